package sink

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// DefaultMaxOTLP is the most that the body of a log record has, in bytes, where nothing
// else is said.
const DefaultMaxOTLP = 256 << 10

const (
	defaultOTLPTimeout = 30 * time.Second // for one request
	maxAnswer          = 64 << 10
	maxWhy             = 256         // bytes of a receiver's text that are logged
	clientAge          = time.Minute // after which files are read anew
)

// OTLP is a Sender of log records to an OpenTelemetry collector, by OTLP/HTTP with
// protobuf, compressed by gzip. An answer of 200 confirms what the request had. No redirect
// is followed, and no proxy is used.
type OTLP struct {
	URL         string // of the form that CheckURL wants
	TLS         TLSFiles
	HeadersFile string        // has headers of requests, one a line, as NAME: VALUE; none if empty
	Host        string        // the attribute host.name; left out if empty
	MaxSize     int           // of the body of a record, in bytes; default DefaultMaxOTLP
	Timeout     time.Duration // of a request; default 30 seconds

	client  *http.Client // nil until it is needed, and after a failure
	made    time.Time    // when client was
	receipt Receipt      // of what is not confirmed yet
}

// CheckURL says whether an OTLP can have a URL. The error doesn't hold it, as it may be a
// secret.
func CheckURL(address string) error {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http":
		return errors.New("is not of the form https://HOST:4318/v1/logs")
	case u.User != nil || u.Fragment != "":
		return errors.New("has a user or a fragment")
	case u.Path == "" || u.Path == "/":
		return errors.New("has no path, which is /v1/logs for most collectors")
	case u.Scheme == "http" && !loopback(u.Hostname()):
		return errPlain
	}
	return nil
}

// Name implements Sender.
func (*OTLP) Name() string { return "otlp" }

// Bounds implements Sender.
func (*OTLP) Bounds() Bounds { return Bounds{Bytes: batchBytes} }

// Check reads the files once, so that a mistake is found before it matters.
func (o *OTLP) Check() error {
	if err := CheckURL(o.URL); err != nil {
		return fmt.Errorf("audit: otlp: url %w", err)
	}
	if _, err := o.TLS.config(); err != nil {
		return fmt.Errorf("audit: otlp: %w", err)
	}
	if _, err := o.headers(); err != nil {
		return fmt.Errorf("audit: otlp: %w", err)
	}
	return nil
}

// headers reads the headers of requests.
func (o *OTLP) headers() (http.Header, error) {
	headers := make(http.Header)
	if o.HeadersFile == "" {
		return headers, nil
	}
	text, err := readFile(o.HeadersFile)
	if err != nil {
		return nil, err
	}
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		if strings.TrimSpace(line) == "" {
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		if !ok || !isHeaderName(name) || value == "" || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' }) {
			return nil, fmt.Errorf("%s:%d: not of the form NAME: VALUE", o.HeadersFile, number) // it may be a secret
		}
		headers.Add(name, value)
	}
	return headers, nil
}

// isHeaderName says whether a text is of the characters that names of headers are made of.
func isHeaderName(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r > '~' || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
	})
}

// Send implements Sender.
func (o *OTLP) Send(ctx context.Context, events []Event) (reduced int, err error) {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(o.Timeout, defaultOTLPTimeout))
	defer cancel()
	message, reduced := o.encode(events, time.Now())
	body, err := proto.Marshal(message)
	if err != nil {
		return 0, err
	}
	var packed bytes.Buffer
	w, _ := gzip.NewWriterLevel(&packed, gzip.BestSpeed)
	_, err = w.Write(body)
	if err = errors.Join(err, w.Close()); err != nil {
		return 0, err
	}
	answer, err := o.post(ctx, &packed)
	if err != nil {
		return 0, err
	}
	o.receipt, err = parseAnswer(answer)
	return reduced, err
}

func (o *OTLP) maxSize() int { return cmp.Or(o.MaxSize, DefaultMaxOTLP) }

// post sends a request and returns the answer to it.
func (o *OTLP) post(ctx context.Context, body io.Reader) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, o.URL, body)
	if err != nil {
		return nil, errors.New("not a URL") // the error would hold it
	}
	if req.Header, err = o.headers(); err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	req.Header.Set("Content-Encoding", "gzip")
	req.Header.Set("User-Agent", "coatcheck")
	if o.client == nil || time.Since(o.made) > clientAge {
		if err := o.connect(); err != nil {
			return nil, err
		}
	}
	resp, err := o.client.Do(req)
	if err != nil {
		var withURL *url.Error
		if errors.As(err, &withURL) {
			return nil, withURL.Err
		}
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("answered with status %d", resp.StatusCode)
	}
	return answer, err
}

// connect makes a new client.
func (o *OTLP) connect() error {
	config, err := o.TLS.config()
	if err != nil {
		return err
	}
	o.Close()
	o.made = time.Now()
	o.client = &http.Client{
		Transport: &http.Transport{
			TLSClientConfig: config, ForceAttemptHTTP2: true, MaxResponseHeaderBytes: maxAnswer,
			DialContext: (&net.Dialer{Timeout: dialTimeout}).DialContext,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return nil
}

// parseAnswer returns what an ExportLogsServiceResponse says in its partial_success.
func parseAnswer(answer []byte) (Receipt, error) {
	var r Receipt
	partial, _, err := field(answer, 1)
	if err == nil {
		var n uint64
		_, n, err = field(partial, 1)
		r.Rejected = int(min(n, batchEvents))
	}
	if err == nil {
		var why []byte
		why, _, err = field(partial, 2)
		r.Why = string(why[:min(len(why), maxWhy)])
	}
	if err != nil {
		return Receipt{}, fmt.Errorf("answered with what is no ExportLogsServiceResponse: %w", err)
	}
	return r, nil
}

// field returns a field of a message, which is text or a number, and empty if it isn't there.
func field(message []byte, want protowire.Number) (text []byte, number uint64, err error) {
	for len(message) > 0 {
		name, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return nil, 0, protowire.ParseError(n)
		}
		message = message[n:]
		if n = protowire.ConsumeFieldValue(name, kind, message); n < 0 {
			return nil, 0, protowire.ParseError(n)
		}
		switch {
		case name == want && kind == protowire.BytesType:
			text, _ = protowire.ConsumeBytes(message)
		case name == want && kind == protowire.VarintType:
			number, _ = protowire.ConsumeVarint(message)
		}
		message = message[n:]
	}
	return text, number, nil
}

// Confirm implements Sender. The answer has confirmed it.
func (o *OTLP) Confirm(context.Context) (Receipt, error) {
	r := o.receipt
	o.receipt = Receipt{}
	return r, nil
}

// Close implements Sender.
func (o *OTLP) Close() {
	if o.client != nil {
		o.client.CloseIdleConnections()
		o.client = nil
	}
	o.receipt = Receipt{}
}
