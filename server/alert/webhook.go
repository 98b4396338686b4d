package alert

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

// SignatureHeader has the signature of a request of a Webhook: t=<time>,v1=<signature>.
// The time is in Unix seconds. The signature is the HMAC-SHA-256, in hexadecimal, under
// the secret, of the time as it stands there, a full stop, and the body.
const SignatureHeader = "Coatcheck-Signature"

// Bounds of files with secrets and certificates.
const (
	leastSecret = 16 // bytes that a signature is made with
	maxFile     = 64 << 10
)

// Webhook is a Sink that sends the payload in a POST request, signed. The alert is
// delivered when the answer is 2xx. No redirect is followed, and no proxy is used.
//
// Its files are read at each delivery, so that they can be replaced while the service
// runs. White space around a secret is ignored.
type Webhook struct {
	URL        string        // of the form that CheckURL wants
	CAFile     string        // PEM: the authorities of the receiver; the system's if empty
	TokenFile  string        // has a bearer token; none is sent if empty
	SecretFile string        // has the secret of signatures, at least 16 bytes
	Timeout    time.Duration // of a request; default DefaultTimeout
}

// CheckURL says whether a Webhook can have a URL. The error doesn't hold it, as it may
// be a secret.
func CheckURL(address string) error {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http":
		return errors.New("is not of the form https://HOST/PATH")
	case u.User != nil || u.Fragment != "":
		return errors.New("has a user or a fragment")
	case u.Scheme == "http" && !loopback(u.Hostname()):
		return errors.New("is plain HTTP to another host, where anyone on the way could read and change what is sent")
	}
	return nil
}

// loopback reports whether a host is this one, by what it is called.
func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Name implements Sink.
func (Webhook) Name() string { return "webhook" }

// Check reads the files once, so that a mistake is found before it matters.
func (w Webhook) Check() error {
	if _, err := w.request(context.Background(), nil, time.Now()); err != nil {
		return fmt.Errorf("alerts: webhook: %w", err)
	}
	if _, err := w.client(); err != nil {
		return fmt.Errorf("alerts: webhook: %w", err)
	}
	return nil
}

// Deliver implements Sink. Each delivery makes a connection of its own: there are few.
func (w Webhook) Deliver(ctx context.Context, a *Alert) error {
	ctx, cancel := context.WithTimeout(ctx, orDefault(w.Timeout))
	defer cancel()
	req, err := w.request(ctx, a.Payload, time.Now())
	if err != nil {
		return err
	}
	client, err := w.client()
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		var withURL *url.Error
		if errors.As(err, &withURL) {
			return withURL.Err
		}
		return err
	}
	_ = resp.Body.Close()
	switch code := resp.StatusCode; {
	case code >= 200 && code < 300:
		return nil
	case code == http.StatusRequestTimeout, code == http.StatusTooManyRequests, code >= 500:
		return fmt.Errorf("answered with status %d", code)
	default:
		return fmt.Errorf("%w with status %d", ErrRefused, code)
	}
}

// request returns the request for a payload that is sent at a time.
func (w Webhook) request(ctx context.Context, payload []byte, now time.Time) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.URL, bytes.NewReader(payload))
	if err != nil {
		return nil, errors.New("not a URL") // the error would hold it
	}
	secret, err := readSecret(w.SecretFile)
	if err != nil {
		return nil, err
	}
	if len(secret) < leastSecret {
		return nil, fmt.Errorf("%s has less than %d bytes", w.SecretFile, leastSecret)
	}
	req.Header.Set(SignatureHeader, signature(secret, now, payload))
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "coatcheck")
	if w.TokenFile != "" {
		token, err := readSecret(w.TokenFile)
		if err != nil {
			return nil, err
		}
		if strings.ContainsFunc(string(token), func(r rune) bool { return r <= ' ' || r > '~' }) {
			return nil, fmt.Errorf("%s has characters that no token has", w.TokenFile)
		}
		req.Header.Set("Authorization", "Bearer "+string(token))
	}
	return req, nil
}

// signature returns what SignatureHeader has.
func signature(secret []byte, now time.Time, payload []byte) string {
	t := strconv.FormatInt(now.Unix(), 10)
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(t + "."))
	mac.Write(payload)
	return "t=" + t + ",v1=" + hex.EncodeToString(mac.Sum(nil))
}

// client returns one for a single request.
func (w Webhook) client() (*http.Client, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if w.CAFile != "" {
		pem, err := readFile(w.CAFile)
		if err != nil {
			return nil, err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("no certificate in %s", w.CAFile)
		}
	}
	return &http.Client{
		Transport:     &http.Transport{TLSClientConfig: config, DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// readSecret reads a file that holds nothing but a secret.
func readSecret(path string) ([]byte, error) {
	content, err := readFile(path)
	if err != nil {
		return nil, err
	}
	secret := bytes.TrimSpace(content)
	if len(secret) == 0 {
		return nil, fmt.Errorf("%s is empty", path)
	}
	return secret, nil
}

// readFile reads a small file. A FIFO or a device would hang us.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return nil, fmt.Errorf("%s is not a file of at most %d bytes", path, maxFile)
	}
	return os.ReadFile(path)
}
