package service

import (
	"context"
	"log/slog"
	"path/filepath"
	"sync"

	"github.com/coatcheck/coatcheck/cmd/internal/config"
	"github.com/coatcheck/coatcheck/server/audit"
	"github.com/coatcheck/coatcheck/server/sink"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// sinksDir is where the positions of sinks are, in the directory of the segments.
const sinksDir = "sinks"

// sender is a way out of the audit log that the configuration names.
type sender struct {
	sink.Sender
	fromEnd bool
}

// newSenders returns the ways out of the audit log, after a look at all that they name.
func newSenders(c config.Audit) (senders []sender, err error) {
	if s := c.Syslog; s != nil {
		syslog := &sink.Syslog{
			Address: s.Address, TLS: sink.TLSFiles{CAFile: s.CAFile, Certificate: s.Certificate, Key: s.Key},
			Host: s.Hostname, Facility: s.Facility, Enterprise: s.Enterprise, MaxSize: s.MaxSize, StrictClose: s.StrictClose,
		}
		if err := syslog.Check(); err != nil {
			return nil, err
		}
		senders = append(senders, sender{syslog, s.Begin.AtNext()})
	}
	if o := c.OTLP; o != nil {
		otlp := &sink.OTLP{
			URL: o.URL, TLS: sink.TLSFiles{CAFile: o.CAFile, Certificate: o.Certificate, Key: o.Key},
			HeadersFile: o.HeadersFile, Host: o.Hostname, MaxSize: o.MaxSize, Timeout: o.Timeout,
		}
		if err := otlp.Check(); err != nil {
			return nil, err
		}
		senders = append(senders, sender{otlp, o.Begin.AtNext()})
	}
	return senders, nil
}

// sinks are the followers of the audit log.
type sinks []*sink.Follower

// openSinks has the senders follow a log, whose commits they are told of.
func openSinks(ctx context.Context, senders []sender, auditDir string, store tokenizer.Store, log *audit.Log, logger *slog.Logger) (all sinks, err error) {
	for _, s := range senders {
		f, err := sink.Open(ctx, filepath.Join(auditDir, sinksDir), s.fromEnd, store, s.Sender, logger)
		if err != nil {
			return nil, err
		}
		log.Tell(f.Committed)
		all = append(all, f)
	}
	return all, nil
}

// run sends until ctx ends.
func (all sinks) run(ctx context.Context) {
	var running sync.WaitGroup
	for _, f := range all {
		running.Go(func() { f.Run(ctx) })
	}
	running.Wait()
}

// counts returns what has been counted of each.
func (all sinks) counts() (counts []sink.Counts) {
	for _, f := range all {
		counts = append(counts, f.Counts())
	}
	return counts
}
