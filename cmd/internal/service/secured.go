package service

import (
	"context"
	"crypto/tls"
	"log/slog"
	"time"

	"github.com/coatcheck/coatcheck/cmd/internal/config"
	"github.com/coatcheck/coatcheck/server/audit"
	"github.com/coatcheck/coatcheck/server/crl"
)

// securedFiles are the files of TLS, of which certificates and revocation lists are
// followed one by one, and put to work in one server. It is not for concurrent use.
type securedFiles struct {
	config  config.TLS
	prepare func(*tls.Config, *crl.Set) (put func(), err error) // of the server
	work    secured                                             // what is at work
	hash    func() string                                       // of the policy
	audit   *audit.Log
	log     *slog.Logger

	outdated time.Time // when the lists at work were due whose being out of date is logged
}

// change checks whether the server takes other files, and returns what puts them to work
// and calls done, as soon as the event that says so is durable. After the event nothing
// can fail.
func (s *securedFiles) change(action string, next secured, name, previous string, done func()) (func(context.Context) error, error) {
	put, err := s.prepare(next.config, next.revoked)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		event := audit.SystemEvent(action, "", s.hash())
		event.Files, event.PreviousFiles = name, previous
		if err := commitEvent(ctx, s.audit, &event); err != nil {
			return err
		}
		put()
		s.work = next
		done()
		return nil
	}, nil
}

// lookAtTime says in the log when a list goes out of date, once.
func (s *securedFiles) lookAtTime() {
	due, issuer := s.work.revoked.Expires()
	if !due.IsZero() && time.Now().After(due) && !due.Equal(s.outdated) {
		s.outdated = due
		s.log.Error("a revocation list is out of date: client certificates of its issuer are refused", "issuer", issuer, "due", due.UTC().Format(time.RFC3339))
	}
}

// tlsSource are the server's certificate and key, and the authorities of clients.
type tlsSource struct {
	*securedFiles
	replaced func() // is called when others are at work
}

func (s *tlsSource) paths() []string {
	return []string{s.config.Certificate, s.config.Key, s.config.ClientCA}
}
func (s *tlsSource) read() ([][]byte, error)    { return readTLS(s.config) }
func (s *tlsSource) working() string            { return s.work.files.digest }
func (s *tlsSource) name(files [][]byte) string { return certificatesName(files) }

func (s *tlsSource) load(files [][]byte) (func(context.Context) error, error) {
	next, err := parseTLS(s.config, files, time.Now())
	if err != nil {
		return nil, err
	}
	next.listFiles, next.lists = s.work.listFiles, s.work.lists
	if len(s.config.CRL) > 0 {
		if next.revoked, err = crl.ParseKnown(listsOf(s.config, next.listFiles), next.authorities); err != nil {
			return nil, err
		}
	}
	return s.change(audit.ActionReloadTLS, next, next.files.name, s.work.files.name, func() {
		leaf := next.config.Certificates[0].Leaf
		s.log.Info("certificates replaced", "expires", leaf.NotAfter.UTC().Format(time.RFC3339), "authorities", len(next.authorities))
		s.replaced()
	})
}

func (s *tlsSource) refuse(ctx context.Context, name string) error {
	event := refusalEvent(audit.ActionReloadTLS, s.hash(), name, audit.ReasonTLSUnreadable, audit.ReasonTLSInvalid)
	event.Files, event.RefusedFiles = s.work.files.name, name
	return commitEvent(ctx, s.audit, &event)
}

// listSource are the revocation lists.
type listSource struct{ *securedFiles }

func (s *listSource) paths() []string            { return s.config.CRL }
func (s *listSource) read() ([][]byte, error)    { return readLists(s.config) }
func (s *listSource) working() string            { return s.work.lists.digest }
func (s *listSource) name(files [][]byte) string { return concatenated(files...) }

func (s *listSource) load(files [][]byte) (func(context.Context) error, error) {
	revoked, err := crl.Parse(listsOf(s.config, files), s.work.authorities)
	if err == nil {
		err = revoked.Replaces(s.work.revoked)
	}
	if err != nil {
		return nil, err
	}
	next := s.work
	next.revoked, next.listFiles, next.lists = revoked, files, version{digest(files), s.name(files)}
	return s.change(audit.ActionReloadCRL, next, next.lists.name, s.work.lists.name, func() {
		due, _ := revoked.Expires()
		s.log.Info("revocation lists replaced", "revoked", revoked.Len(), "due", due.UTC().Format(time.RFC3339))
	})
}

func (s *listSource) refuse(ctx context.Context, name string) error {
	event := refusalEvent(audit.ActionReloadCRL, s.hash(), name, audit.ReasonCRLUnreadable, audit.ReasonCRLInvalid)
	event.Files, event.RefusedFiles = s.work.lists.name, name
	return commitEvent(ctx, s.audit, &event)
}
