package sink

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

// Defaults of a Syslog.
const (
	DefaultFacility   = 13    // log audit
	DefaultEnterprise = 32473 // the number of examples (RFC 5612)
	DefaultMaxSyslog  = 8192  // what receivers should take (RFC 5425, section 4.3.1)
)

// How long a Syslog waits.
const (
	dialTimeout    = 10 * time.Second
	writeTimeout   = 30 * time.Second // for one message
	confirmTimeout = 30 * time.Second
)

// Syslog is a Sender of syslog messages (RFC 5424), each with its length before it (RFC
// 5425), over TLS, or over plain TCP or a Unix socket to what runs on the same machine.
//
// Syslog has no acknowledgements. What stands for one is the end of a connection: the
// sender says that no more comes, and the receiver, once it has read everything, closes
// it. So a connection is closed every 10 seconds, or after 4 MiB, and only then is what
// was sent in it taken for delivered.
type Syslog struct {
	Address string // of the form that CheckAddress wants
	TLS     TLSFiles
	Host    string // HOSTNAME of messages; the machine's name if empty

	Facility   *int // from 0 to 23; DefaultFacility if nil
	Enterprise int  // the number in the name of the structured data; default DefaultEnterprise
	MaxSize    int  // of a message, without its length, in bytes; default DefaultMaxSyslog

	// StrictClose has the receiver say in TLS that it ends the connection (close_notify), as
	// RFC 5425 demands. Without it, the end of the TCP connection does, which not only the
	// receiver can feign. Not all receivers do as the RFC says: rsyslog with gtls doesn't.
	StrictClose bool

	name string   // HOSTNAME, once it is known
	conn net.Conn // nil while there is none
	raw  socket   // under conn
	buf  []byte
}

// socket is what a TCP and a Unix connection can both do.
type socket interface {
	net.Conn
	CloseWrite() error
}

// CheckAddress says whether a Syslog can have an address: tls://HOST:PORT,
// tcp://HOST:PORT of a loopback address, or unix:///PATH.
func CheckAddress(address string) error {
	u, err := url.Parse(address)
	if err != nil || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return errAddress
	}
	switch u.Scheme {
	case "tls", "tcp":
		port, err := strconv.ParseUint(u.Port(), 10, 16)
		if u.Hostname() == "" || err != nil || port == 0 || u.Path != "" {
			return errAddress
		}
		if u.Scheme == "tcp" && !loopback(u.Hostname()) {
			return errPlain
		}
		return nil
	case "unix":
		if u.Host == "" && strings.HasPrefix(u.Path, "/") {
			return nil
		}
	}
	return errAddress
}

var errAddress = errors.New("is not of the form tls://HOST:PORT, tcp://HOST:PORT or unix:///PATH")

// Name implements Sender.
func (*Syslog) Name() string { return "syslog" }

// Bounds implements Sender.
func (*Syslog) Bounds() Bounds { return Bounds{Bytes: 4 << 20, Age: 10 * time.Second} }

// Check reads the files once, so that a mistake is found before it matters.
func (s *Syslog) Check() error {
	if err := CheckAddress(s.Address); err != nil {
		return fmt.Errorf("audit: syslog: address %w", err)
	}
	if _, err := s.TLS.config(); err != nil {
		return fmt.Errorf("audit: syslog: %w", err)
	}
	return nil
}

func (s *Syslog) facility() int {
	if s.Facility == nil {
		return DefaultFacility
	}
	return *s.Facility
}

func (s *Syslog) enterprise() int { return cmp.Or(s.Enterprise, DefaultEnterprise) }

func (s *Syslog) maxSize() int { return cmp.Or(s.MaxSize, DefaultMaxSyslog) }

// host returns HOSTNAME.
func (s *Syslog) host() string {
	if s.name == "" {
		name, _ := os.Hostname() // "-" if there is none
		s.name = plain(cmp.Or(s.Host, name), 255)
	}
	return s.name
}

// Send implements Sender.
func (s *Syslog) Send(ctx context.Context, events []Event) (reduced int, err error) {
	if s.conn == nil {
		if err := s.dial(ctx); err != nil {
			return 0, err
		}
	}
	conn := s.conn
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })
	defer stop()
	for i := range events {
		message, cut := s.appendSyslog(nil, &events[i])
		if cut {
			reduced++
		}
		s.buf = append(append(strconv.AppendInt(s.buf, int64(len(message)), 10), ' '), message...)
		if len(s.buf) >= 1<<15 || i == len(events)-1 {
			if err := conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
				return 0, err
			}
			if err := ctx.Err(); err != nil { // its deadline may have been overwritten
				return 0, err
			}
			_, err := conn.Write(s.buf)
			if s.buf = s.buf[:0]; err != nil {
				return 0, err
			}
		}
	}
	return reduced, nil
}

// dial connects.
func (s *Syslog) dial(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	u, err := url.Parse(s.Address)
	if err != nil {
		return errAddress
	}
	network, address := "tcp", u.Host
	if u.Scheme == "unix" {
		network, address = "unix", u.Path
	}
	var config *tls.Config
	if u.Scheme == "tls" {
		if config, err = s.TLS.config(); err != nil {
			return err
		}
		config.ServerName = u.Hostname()
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return err
	}
	raw, ok := conn.(socket)
	if !ok {
		_ = conn.Close()
		return errAddress
	}
	if config != nil {
		under := conn
		if s.StrictClose {
			under = ending{conn}
		}
		secured := tls.Client(under, config)
		if err := secured.HandshakeContext(ctx); err != nil {
			_ = conn.Close()
			return err
		}
		conn = secured
	}
	s.conn, s.raw, s.buf = conn, raw, s.buf[:0]
	return nil
}

// Confirm implements Sender: it ends the connection, and waits for the receiver to do
// so.
func (s *Syslog) Confirm(ctx context.Context) (Receipt, error) {
	conn, raw := s.conn, s.raw
	defer s.Close()
	if err := conn.SetDeadline(time.Now().Add(confirmTimeout)); err != nil {
		return Receipt{}, err
	}
	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Now()) })
	defer stop()
	if secured, ok := conn.(*tls.Conn); ok {
		if err := secured.CloseWrite(); err != nil {
			return Receipt{}, err
		}
	}
	if err := raw.CloseWrite(); err != nil {
		return Receipt{}, err
	}
	// A receiver has nothing to say. In TLS its own end comes before that of the connection.
	if _, err := io.Copy(io.Discard, conn); err != nil {
		return Receipt{}, fmt.Errorf("the receiver hasn't closed the connection in order: %w", err)
	}
	if _, err := io.Copy(io.Discard, raw); err != nil {
		return Receipt{}, err
	}
	// It may have closed it before it had everything. Then it never acknowledges the rest.
	for {
		if n, err := unacknowledged(raw); n == 0 || err != nil {
			return Receipt{}, err
		}
		if _, err := raw.Read(make([]byte, 1)); err != io.EOF {
			return Receipt{}, cmp.Or(err, errTalks)
		}
		time.Sleep(time.Millisecond)
	}
}

// errTalks says that a receiver has sent something behind its end.
var errTalks = errors.New("the receiver has sent something behind its end")

// ending is a connection under TLS. Package tls takes its end for that of the stream,
// which anyone on the way could feign; so it is made an error, and only what the receiver
// says under its key is an end.
type ending struct{ net.Conn }

func (e ending) Read(p []byte) (int, error) {
	n, err := e.Conn.Read(p)
	if err == io.EOF {
		err = errNoEnd
	}
	return n, err
}

// errNoEnd says that a connection broke off.
var errNoEnd = errors.New("it ends without a close_notify")

// Close implements Sender.
func (s *Syslog) Close() {
	if s.conn != nil {
		_ = s.raw.Close()
		s.conn, s.raw = nil, nil
	}
}
