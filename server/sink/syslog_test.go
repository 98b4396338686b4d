package sink

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coatcheck/coatcheck/server/audit"
	"github.com/coatcheck/coatcheck/server/servertest"
)

func contextOf(t testing.TB) (context.Context, context.CancelFunc) {
	return context.WithCancel(context.WithoutCancel(t.Context()))
}

// syslogReceiver takes syslog messages over TLS, from clients with a certificate.
type syslogReceiver struct {
	received
	t      testing.TB
	files  TLSFiles // of a client
	config *tls.Config
	addr   string

	listener net.Listener
	conns    atomic.Int64

	// read reads from the connection of a number, from 1, in place of all of it.
	read func(n int64, conn net.Conn, all func(io.Reader))

	last atomic.Pointer[message5424]
}

func newSyslogReceiver(t testing.TB) *syslogReceiver {
	authority, dir := servertest.NewAuthority(t), t.TempDir()
	r := &syslogReceiver{t: t, config: &tls.Config{
		Certificates: []tls.Certificate{authority.Server(t)}, ClientCAs: authority.Pool(), ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS12,
	}}
	r.files.CAFile, _ = writePEM(t, dir, "ca", tls.Certificate{Certificate: [][]byte{authority.Certificate().Raw}})
	r.files.Certificate, r.files.Key = writePEM(t, dir, "client", authority.Caller(t, "coatcheck"))
	r.addr = "127.0.0.1:0"
	t.Cleanup(r.close)
	return r
}

// listen begins to take connections. What the receiver does must be set before.

func (r *syslogReceiver) listen() {
	listener, err := net.Listen("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.listener, r.addr = listener, listener.Addr().String()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go r.serve(r.conns.Add(1), conn)
		}
	}()
}

func (r *syslogReceiver) close() {
	if r.listener != nil {
		_ = r.listener.Close()
	}
}

func (r *syslogReceiver) serve(n int64, raw net.Conn) {
	defer raw.Close()
	conn := raw
	if r.config != nil {
		secured := tls.Server(raw, r.config)
		if secured.Handshake() != nil {
			return
		}
		conn = secured
	}
	r.begin()
	all := func(from io.Reader) { r.messages(bufio.NewReader(from)) }
	if r.read != nil {
		r.read(n, conn, all)
	} else {
		all(conn)
	}
	_ = conn.Close() // says in TLS that it is the end
}

// messages takes messages until there are no more.
func (r *syslogReceiver) messages(from *bufio.Reader) {
	for {
		frame, err := readFrame(from)
		if err != nil {
			return
		}
		m, err := parse5424(frame)
		if err != nil {
			r.t.Error(err)
			return
		}
		seq, err := strconv.ParseUint(m.structured["coatcheck@32473"]["seq"], 10, 64)
		if err != nil {
			r.t.Error(err)
		}
		r.last.Store(&m)
		r.add(seq, string(m.msg))
	}
}

// sender returns a way to the receiver, which listens from here on, that doesn't wait as
// long as usual.
func (r *syslogReceiver) sender() *hasty {
	if r.listener == nil {
		r.listen()
	}
	return &hasty{Syslog: &Syslog{Address: "tls://" + r.addr, TLS: r.files, Host: "vault-1", StrictClose: true}, bounds: Bounds{Bytes: 64 << 10, Age: 20 * time.Millisecond}}
}

// hasty has other bounds.
type hasty struct {
	*Syslog
	bounds Bounds
}

func (h *hasty) Bounds() Bounds { return h.bounds }

func TestSyslogMapping(t *testing.T) {
	store, r := openStore(t), newSyslogReceiver(t)
	denied, failed, item, alert := event(0), event(0), event(2), event(0)
	denied.Decision, denied.Code = audit.Deny, "PERMISSION_DENIED"
	failed.Code, failed.Decision = "UNAVAILABLE", ""
	item.Items[1].Code = "NOT_FOUND"
	alert.Alerts, alert.Code = []string{audit.AlertBurst}, "PERMISSION_DENIED"
	f := follow(t, t.TempDir(), store, r.sender())
	for i, row := range []struct {
		event    audit.Event
		severity int
	}{{event(2), 6}, {denied, 5}, {failed, 5}, {item, 5}, {alert, 1}} {
		commit(t, store, row.event)
		f.delivered(t, uint64(i+1))
		m := r.last.Load()
		if m.facility != 13 || m.severity != row.severity || m.host != "vault-1" || m.app != "coatcheck" || m.msgID != "tokenize" ||
			!m.at.Equal(row.event.Time.Truncate(time.Microsecond)) {
			t.Errorf("event %d: %+v", i+1, m)
		}
		data := m.structured["coatcheck@32473"]
		if data["log"] != store.LogID().String() || len(data["hash"]) != 64 || !strings.Contains(string(m.msg), `"hash":"`+data["hash"]+`"`) || data["reduced"] != "" {
			t.Errorf("event %d: %q", i+1, data)
		}
	}
	r.check(t, lines(t, store))
}

// What is larger than the receiver takes is reduced, and never cut.
func TestSyslogMaxSize(t *testing.T) {
	store, r := openStore(t), newSyslogReceiver(t)
	commit(t, store, event(0), event(10_000))
	f := follow(t, t.TempDir(), store, r.sender())
	f.delivered(t, 2)
	m := r.last.Load()
	if m.size > DefaultMaxSyslog || m.size < DefaultMaxSyslog-200 || m.structured["coatcheck@32473"]["reduced"] != "true" || f.Counts().Reduced != 1 {
		t.Errorf("%d bytes, %q, %+v", m.size, m.structured, f.Counts())
	}
}

// The file that the receiver doesn't know is replaced while the sink tries.
func TestSyslogFilesAreReadAnew(t *testing.T) {
	store, r := openStore(t), newSyslogReceiver(t)
	commit(t, store, many(3)...)
	other := servertest.NewAuthority(t)
	good := r.files
	r.files.CAFile, _ = writePEM(t, t.TempDir(), "other", tls.Certificate{Certificate: [][]byte{other.Certificate().Raw}})
	f := follow(t, t.TempDir(), store, r.sender())
	waitFor(t, "failure", func() bool { return f.Counts().Failed > 2 })
	if r.count() != 0 {
		t.Error("messages came before the receiver was known")
	}
	content, err := readFile(good.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, r.files.CAFile, content)
	f.delivered(t, 3)
	r.check(t, lines(t, store))
}

// Plain TCP and Unix sockets, on one machine.
func TestSyslogInTheClear(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			store := openStore(t)
			commit(t, store, many(100)...)
			r := &syslogReceiver{t: t, addr: "127.0.0.1:0"}
			t.Cleanup(r.close)
			address := "127.0.0.1:0"
			if network == "unix" {
				address = filepath.Join(t.TempDir(), "s")
			}
			listener, err := net.Listen(network, address)
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			go func() {
				for {
					conn, err := listener.Accept()
					if err != nil {
						return
					}
					go r.serve(1, conn)
				}
			}()
			s := r.sender()
			s.Address = network + "://" + listener.Addr().String()
			follow(t, t.TempDir(), store, s).delivered(t, 100)
			r.check(t, lines(t, store))
		})
	}
}

func TestCheckAddress(t *testing.T) {
	for address, good := range map[string]bool{
		"tls://siem.example:6514": true, "tls://[2001:db8::1]:6514": true, "tcp://localhost:514": true, "tcp://[::1]:514": true,
		"tcp://127.0.0.1:601": true, "unix:///run/syslog.sock": true,
		"tcp://siem.example:514": false, "tcp://0.0.0.0:514": false, "siem.example:6514": false, "tls://siem.example": false, "tls://:6514": false,
		"tls://siem.example:0": false, "tls://siem.example:65536": false, "tls://siem.example:1/x": false, "tls://u@siem.example:1": false,
		"udp://127.0.0.1:514": false, "unix://run/x": false, "unix:run": false, "": false,
	} {
		if err := CheckAddress(address); (err == nil) != good {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func TestSyslogCheck(t *testing.T) {
	r := newSyslogReceiver(t)
	if err := r.sender().Check(); err != nil {
		t.Error(err)
	}
	for name, files := range map[string]TLSFiles{
		"no file":                 {CAFile: "none"},
		"no certificate":          {CAFile: r.files.Key},
		"a key of something else": {Certificate: r.files.CAFile, Key: r.files.Key},
	} {
		if err := (&Syslog{Address: "tls://" + r.addr, TLS: files}).Check(); err == nil {
			t.Error(name)
		}
	}
}

// A receiver that has everything, but ends the connection without saying so in TLS, has
// confirmed it unless that is asked for.
func TestSyslogStrictClose(t *testing.T) {
	for _, strict := range []bool{true, false} {
		r := newSyslogReceiver(t)
		r.read = func(_ int64, conn net.Conn, all func(io.Reader)) {
			all(conn)
			_ = conn.(*tls.Conn).NetConn().Close()
		}
		s := r.sender()
		s.StrictClose = strict
		if _, err := s.Send(t.Context(), []Event{*asEvent(t, event(0))}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Confirm(t.Context()); (err != nil) != strict || strict && !errors.Is(err, errNoEnd) {
			t.Errorf("strict %v: %v", strict, err)
		}
	}
}

// A receiver that ends the connection in order, but before it has everything, hasn't
// confirmed what came after.
func TestSyslogEarlyEnd(t *testing.T) {
	r := newSyslogReceiver(t)
	store := openStore(t)
	commit(t, store, many(2)...)
	read := make(chan struct{})
	r.read = func(_ int64, conn net.Conn, _ func(io.Reader)) {
		if _, err := readFrame(bufio.NewReader(conn)); err != nil {
			t.Error(err)
		}
		close(read)
	}
	s := r.sender()
	defer s.Close()
	entries, err := store.Entries(t.Context(), 0, 2)
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range entries {
		event, err := newEvent(store.LogID(), e)
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Send(t.Context(), []Event{event})
		if i == 0 {
			<-read
		}
		if err != nil {
			return // found here already
		}
	}
	if _, err := s.Confirm(t.Context()); err == nil {
		t.Error("confirmed what the receiver never read")
	} else if errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}
