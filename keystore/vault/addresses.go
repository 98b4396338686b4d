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
// client makes. The name can't exist (RFC 6761 section 6.4).
const anyAddress = "https://vault.invalid"

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
	body, err := readBody(req)
	if err != nil {
		return nil, err
	}
	defer clear(body)
	ctx, cancel := context.WithCancel(req.Context())
	detach := context.AfterFunc(a.life, cancel)
	release := func() { detach(); cancel() }

	at := a.current.Load()
	resp, err := a.send(req.Clone(ctx), body, a.list[at])
	// One who has lost interest says nothing about the address.
	if unusable(resp, err) && !errors.Is(req.Context().Err(), context.Canceled) {
		a.current.CompareAndSwap(at, (at+1)%uint32(len(a.list)))
	}
	if err != nil {
		release()
		return nil, err
	}
	resp.Body = &releasingBody{io.LimitReader(resp.Body, maxBody+1), resp.Body, release}
	return resp, nil
}

// send sends a request to an address, and again to where that redirects it, once:
// a standby that may not forward points to the active node. Vault's client would
// do so too, but would forget the body.
func (a *addresses) send(req *http.Request, body []byte, to endpoint) (*http.Response, error) {
	req.URL.Scheme, req.URL.Host, req.Host = to.scheme, to.host, to.host
	setBody(req, body)
	resp, err := to.transport.RoundTrip(req)
	if err == nil && resp.StatusCode == http.StatusTemporaryRedirect {
		_ = resp.Body.Close()
		active, err := resp.Location()
		if err != nil || active.Scheme != "https" {
			return nil, fmt.Errorf("%s: a redirect that is not to https", to.name)
		}
		to.name += " and by redirect https://" + active.Host
		again := req.Clone(req.Context())
		again.URL, again.Host = active, active.Host
		setBody(again, body)
		resp, err = a.direct.RoundTrip(again)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", to.name, err)
		}
		return resp, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", to.name, err)
	}
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
// It ends after maxBody bytes: Vault's client reads answers that are not ours
// whole, and one without an end would fill the memory.
type releasingBody struct {
	io.Reader
	body    io.Closer
	release func()
}

// Close implements io.Closer.
func (b *releasingBody) Close() error {
	defer b.release()
	return b.body.Close()
}

// readBody returns a copy of a request's body. The caller of RoundTrip may wipe its
// own as soon as that returns, while a transport may still be sending.
func readBody(req *http.Request) ([]byte, error) {
	if req.Body == nil {
		return nil, nil
	}
	defer func() { _ = req.Body.Close() }()
	if req.ContentLength < 0 || req.ContentLength > maxBody {
		return nil, fmt.Errorf("a request of %d bytes", req.ContentLength)
	}
	content := make([]byte, req.ContentLength)
	if _, err := io.ReadFull(req.Body, content); err != nil {
		clear(content)
		return nil, err
	}
	return content, nil
}

// setBody gives a request a copy of a body, which is wiped as it is sent, or when
// the transport closes it, as it always does.
func setBody(req *http.Request, body []byte) {
	req.Body, req.GetBody = nil, nil
	if len(body) == 0 {
		return
	}
	// The transport asks for another one where a connection turns out to be dead.
	req.GetBody = func() (io.ReadCloser, error) { return &onceBody{rest: bytes.Clone(body)}, nil }
	req.Body, _ = req.GetBody()
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
