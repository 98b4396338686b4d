package vault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
)

// anyAddress stands for whichever address is tried, in the requests that Vault's
// client makes. The name can't exist (RFC 6761 section 6.4), and its scheme has
// the client refuse a redirect to plain HTTP.
const (
	anyAddress = "https://" + anyHost
	anyHost    = "vault.invalid"
)

// errClosed is why a request of a Backend that was closed fails.
var errClosed = errors.New("it is closed")

// endpoint is one address of Vault.
type endpoint struct {
	name      string // the address, as it was configured
	scheme    string // https, or http for loopback and sockets
	host      string
	transport *http.Transport
}

// addresses is an http.RoundTripper that sends each request to one of several
// addresses of the same Vault: to the one that worked last. One that can't be
// reached, doesn't answer in time or says that it can't serve (5xx, which is how
// a sealed Vault and a standby that can't forward answer) makes the next
// request, a retry or another one, go to the address behind it, around the list.
//
// All requests end when the Backend is closed. A request's body is wiped when it
// has been sent.
type addresses struct {
	life    context.Context // ends when the Backend is closed
	list    []endpoint
	direct  *http.Transport // for the one redirect that a standby may answer with
	current atomic.Uint32   // index into list
}

// RoundTrip implements http.RoundTripper.
func (a *addresses) RoundTrip(req *http.Request) (*http.Response, error) {
	if a.life.Err() != nil {
		return nil, errClosed
	}
	at := a.current.Load()
	to := a.list[at]
	ctx, cancel := context.WithCancel(req.Context())
	detach := context.AfterFunc(a.life, cancel)
	release := func() { detach(); cancel() }

	sent := req.Clone(ctx)
	wipe, err := wipingBody(sent, req.Body)
	if err != nil {
		release()
		return nil, err
	}
	defer wipe()
	if req.URL.Host == anyHost {
		sent.URL.Scheme, sent.URL.Host, sent.Host = to.scheme, to.host, to.host
	} else {
		to = endpoint{name: "the address of a redirect", transport: a.direct}
	}
	resp, err := to.transport.RoundTrip(sent)
	// One who has lost interest says nothing about the address.
	if unusable(resp, err) && !errors.Is(req.Context().Err(), context.Canceled) {
		a.current.CompareAndSwap(at, (at+1)%uint32(len(a.list)))
	}
	if err != nil {
		release()
		return nil, fmt.Errorf("%s: %w", to.name, err)
	}
	resp.Body = &releasingBody{resp.Body, release}
	return resp, nil
}

// CloseIdleConnections closes the connections that no request uses.
func (a *addresses) CloseIdleConnections() {
	for _, e := range a.list {
		e.transport.CloseIdleConnections()
	}
	a.direct.CloseIdleConnections()
}

// unusable reports whether an address should not be tried first again.
func unusable(resp *http.Response, err error) bool {
	return err != nil || resp.StatusCode >= 500 || standby(resp.StatusCode)
}

// standby reports whether a node answers that it only stands by: 472 for disaster
// recovery, 473 for performance.
func standby(status int) bool { return status == 472 || status == 473 }

// releasingBody calls release when it is closed.
type releasingBody struct {
	io.ReadCloser
	release func()
}

// Close implements io.Closer.
func (b *releasingBody) Close() error {
	defer b.release()
	return b.ReadCloser.Close()
}

// wipingBody gives a request a copy of a body, so that the caller may wipe its
// own as soon as the request returns, while the transport may still be sending.
// What the transport has is wiped when it closes it, which it always does, and
// the rest by the returned function.
func wipingBody(req *http.Request, body io.ReadCloser) (wipe func(), err error) {
	if body == nil || body == http.NoBody {
		return func() {}, nil
	}
	defer func() { _ = body.Close() }()
	if req.ContentLength < 0 || req.ContentLength > maxBody {
		return nil, fmt.Errorf("a request of %d bytes", req.ContentLength)
	}
	content := make([]byte, req.ContentLength)
	if _, err := io.ReadFull(body, content); err != nil {
		clear(content)
		return nil, err
	}
	// The transport asks for it again where a connection turns out to be dead.
	req.GetBody = func() (io.ReadCloser, error) {
		return &onceBody{rest: bytes.Clone(content)}, nil
	}
	req.Body, _ = req.GetBody()
	return func() { clear(content) }, nil
}

// onceBody is a body that is wiped as it is read and when it is closed.
type onceBody struct {
	mu   sync.Mutex // reading and closing may happen at once
	rest []byte
}

// Read implements io.Reader.
func (b *onceBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, b.rest)
	clear(b.rest[:n])
	b.rest = b.rest[n:]
	return n, nil
}

// Close implements io.Closer.
func (b *onceBody) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.rest)
	b.rest = nil
	return nil
}
