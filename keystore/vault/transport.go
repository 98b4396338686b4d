package vault

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// newAddresses returns the transport for a valid configuration. It neither
// reads a file nor makes a connection.
func newAddresses(life context.Context, cfg Config) *addresses {
	d := dialer{life: life, cfg: cfg}
	a := &addresses{life: life, direct: d.transport(d.dial)}
	for _, address := range cfg.Address {
		e := endpoint{name: address, transport: a.direct}
		if socket, ok := strings.CutPrefix(address, "unix://"); ok {
			e.scheme, e.host = "http", "localhost"
			e.transport = d.transport(func(ctx context.Context, _, _ string) (net.Conn, error) {
				return d.dial(ctx, "unix", socket)
			})
		} else if u, err := url.Parse(address); err == nil { // Validate has seen to that
			e.scheme, e.host = u.Scheme, u.Host
		}
		a.list = append(a.list, e)
	}
	return a
}

// dialer makes connections, each in time and none for a closed Backend.
type dialer struct {
	life context.Context
	cfg  Config
}

type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// transport returns one with HTTP/1.1 only: there a request that times out
// takes its connection with it, while the many of an HTTP/2 connection to a
// host that has vanished would go on waiting on it. There is no proxy, which
// would be another party between us and Vault that nobody has configured here.
func (d dialer) transport(dial dialFunc) *http.Transport {
	return &http.Transport{
		DialContext:            dial,
		DialTLSContext:         d.dialTLS,
		TLSNextProto:           map[string]func(string, *tls.Conn) http.RoundTripper{},
		MaxIdleConnsPerHost:    8,
		IdleConnTimeout:        time.Minute,
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true,
	}
}

// within returns a context for making a connection. It ends with the Backend
// too, since a transport goes on with a connection when the request that wanted
// it has ended.
func (d dialer) within(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.Timeout)
	detach := context.AfterFunc(d.life, cancel)
	return ctx, func() { detach(); cancel() }
}

func (d dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := d.within(ctx)
	defer cancel()
	return new(net.Dialer).DialContext(ctx, network, address)
}

func (d dialer) dialTLS(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := d.within(ctx)
	defer cancel()
	config, err := d.tlsConfig(address)
	if err != nil {
		return nil, err
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	secured := tls.Client(conn, config)
	if err := secured.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return secured, nil
}

// tlsConfig reads the files anew, since whoever runs Vault replaces them when
// certificates are renewed, and doesn't restart us.
func (d dialer) tlsConfig(address string) (*tls.Config, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host}
	if d.cfg.ServerName != "" {
		config.ServerName = d.cfg.ServerName
	}
	if d.cfg.CAFile != "" {
		pem, err := readFile(d.cfg.CAFile)
		if err != nil {
			return nil, err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("no certificate in %s", d.cfg.CAFile)
		}
	}
	if d.cfg.ClientCertificate != "" {
		certificate, err := loadPair(d.cfg.ClientCertificate, d.cfg.ClientKey)
		if err != nil {
			return nil, fmt.Errorf("client certificate %s: %w", d.cfg.ClientCertificate, err)
		}
		config.Certificates = []tls.Certificate{certificate}
	}
	return config, nil
}

func loadPair(certificate, key string) (tls.Certificate, error) {
	certificatePEM, err := readFile(certificate)
	if err != nil {
		return tls.Certificate{}, err
	}
	keyPEM, err := readFile(key)
	if err != nil {
		return tls.Certificate{}, err
	}
	defer clear(keyPEM)
	return tls.X509KeyPair(certificatePEM, keyPEM)
}
