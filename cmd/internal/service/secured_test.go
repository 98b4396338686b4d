package service

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coatcheck/coatcheck/cmd/internal/config"
	"github.com/coatcheck/coatcheck/server/audit"
	"github.com/coatcheck/coatcheck/server/crl"
	"github.com/coatcheck/coatcheck/server/servertest"
	"github.com/coatcheck/coatcheck/tokenizer/boltstore"
)

// trail opens an audit log. told ends it and returns how often texts are in it.
func trail(t *testing.T) (log *audit.Log, told func(texts ...string) []int) {
	t.Helper()
	dir := t.TempDir()
	store, err := boltstore.Open(filepath.Join(dir, "store.db"))
	if err != nil {
		t.Fatal(err)
	}
	segments, err := audit.OpenSegments(t.Context(), filepath.Join(dir, "audit"), store, audit.SegmentOptions{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- segments.Run(ctx) }()
	return audit.NewLog(store, segments), func(texts ...string) []int {
		t.Helper()
		stop()
		if err := errors.Join(<-ended, segments.Close(), store.Close()); err != nil {
			t.Fatal(err)
		}
		counts := make([]int, len(texts))
		for event, err := range audit.Read(filepath.Join(dir, "audit"), time.Time{}, time.Time{}) {
			if err != nil {
				t.Fatal(err)
			}
			for i, text := range texts {
				if strings.Contains(string(event), text) {
					counts[i]++
				}
			}
		}
		return counts
	}
}

// securing is the files of TLS in a directory, and their followers.
type securing struct {
	*securedFiles
	certificates, lists *follower

	refuses error    // what a server would say to other files
	put     *crl.Set // what it was told to put to work
}

// newSecuring writes the files and begins to follow them.
func newSecuring(t *testing.T, log *audit.Log, own *servertest.Authority, ca, list []byte) *securing {
	t.Helper()
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	c := config.TLS{Certificate: in("server.crt"), Key: in("server.key"), ClientCA: in("ca.crt"), CRL: config.Paths{in("list.crl")}}
	pair := own.Server(t)
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	write(t, c.Certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]}))
	write(t, c.Key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
	write(t, c.ClientCA, ca)
	write(t, c.CRL[0], list)
	work, err := loadTLS(c, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	s := &securing{put: work.revoked}
	discard := slog.New(slog.DiscardHandler)
	prepare := func(_ *tls.Config, revoked *crl.Set) (func(), error) {
		return func() { s.put = revoked }, s.refuses
	}
	s.securedFiles = &securedFiles{config: c, prepare: prepare, work: work, hash: func() string { return "policy" }, audit: log, log: discard}
	s.lists = newFollower(&listSource{s.securedFiles}, "list", discard)
	s.certificates = newFollower(&tlsSource{s.securedFiles, s.lists.again}, "certificates", discard)
	return s
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// look looks at all of the files as often as is needed to decide, and once more.
func (s *securing) look(t *testing.T) {
	t.Helper()
	for range 3 {
		s.certificates.look(t.Context(), false)
		s.lists.look(t.Context(), false)
	}
}

func authoritiesPEM(authorities ...*servertest.Authority) []byte {
	var all []byte
	for _, a := range authorities {
		all = append(all, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Certificate().Raw})...)
	}
	return all
}

// What is revoked stays revoked whichever way the authorities change, while the lists
// are where they were.
func TestListsFollowTheAuthorities(t *testing.T) {
	log, told := trail(t)
	a, b := servertest.NewAuthority(t), servertest.NewAuthority(t)
	now := time.Now()
	ofA, ofB := a.Caller(t, "a").Leaf, b.Caller(t, "b").Leaf
	s := newSecuring(t, log, a, authoritiesPEM(a, b), append(a.Revoke(t, now, ofA), b.Revoke(t, now, ofB)...))
	refused := func(leaf *x509.Certificate, by *servertest.Authority) bool {
		_, err := s.put.Check([][]*x509.Certificate{{leaf, by.Certificate()}}, now)
		return errors.Is(err, crl.ErrRevoked)
	}
	for _, row := range []struct {
		authorities []*servertest.Authority
		ofA, ofB    bool // whether it is refused as revoked
	}{
		{[]*servertest.Authority{a, b}, true, true},
		{[]*servertest.Authority{a}, true, false},
		{[]*servertest.Authority{a, b}, true, true},
		{[]*servertest.Authority{b}, false, true},
		{[]*servertest.Authority{b, a}, true, true},
	} {
		write(t, s.config.ClientCA, authoritiesPEM(row.authorities...))
		s.look(t)
		if refused(ofA, a) != row.ofA || refused(ofB, b) != row.ofB {
			t.Errorf("with %d authorities: revoked %v and %v, want %v and %v", len(row.authorities), refused(ofA, a), refused(ofB, b), row.ofA, row.ofB)
		}
	}
	if got := told(`"action":"reload-tls"`, `"action":"reload-crl"`, `_INVALID`); got[0] != 4 || got[1] != 0 || got[2] != 0 {
		t.Errorf("recorded: %v", got)
	}
}

// What the server doesn't take is refused, once; no event says that it is at work.
func TestFilesThatTheServerDoesNotTake(t *testing.T) {
	log, told := trail(t)
	a, b := servertest.NewAuthority(t), servertest.NewAuthority(t)
	now := time.Now()
	s := newSecuring(t, log, a, authoritiesPEM(a), a.Revoke(t, now))
	was := s.put
	s.refuses = errors.New("not like that")
	write(t, s.config.ClientCA, authoritiesPEM(a, b))
	write(t, s.config.CRL[0], a.Revoke(t, now, a.Caller(t, "a").Leaf))
	s.look(t)
	s.look(t)
	if !s.certificates.refused.Load() || !s.lists.refused.Load() || s.put != was {
		t.Error("what isn't taken is not refused")
	}
	s.refuses = nil
	write(t, s.config.CRL[0], a.Revoke(t, now, a.Caller(t, "a").Leaf, a.Caller(t, "b").Leaf))
	s.look(t)
	if s.lists.refused.Load() || s.put.Len() != 2 {
		t.Errorf("the next lists: %d revoked", s.put.Len())
	}
	got := told(`"action":"reload-tls"`, `"reason":"TLS_INVALID"`, `"action":"reload-crl"`, `"reason":"CRL_INVALID"`)
	if got[0] != 1 || got[1] != 1 || got[2] != 2 || got[3] != 1 {
		t.Errorf("recorded: %v", got)
	}
}
