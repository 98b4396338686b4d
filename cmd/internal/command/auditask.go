package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/coatcheck/coatcheck/cmd/internal/client"
	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/server/audit"
)

// auditQuestion is what is asked of the audit log, of a running server or of the segments
// in a directory.
type auditQuestion struct {
	*auditCommands
	dir          string
	since, until string
	filter       coatcheckv1.AuditFilter
}

// auditEntry is an event that was found.
type auditEntry struct {
	Sequence uint64          `json:"seq"`
	Hash     string          `json:"hash"`
	Event    json.RawMessage `json:"event,omitempty"`
	Size     uint32          `json:"size,omitempty"` // of an event that doesn't fit into an answer
}

// flags adds the flags that say which events.
func (q *auditQuestion) flags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&q.dir, "dir", "", "read the segments in a directory instead of asking a server")
	flags.StringVar(&q.since, "since", "", "from a time on: RFC 3339, a date, or how long ago, as in 90m or 7d")
	flags.StringVar(&q.until, "until", "", "before a time")
	f := &q.filter
	for _, text := range []struct {
		at          *string
		name, usage string
	}{
		{&f.Caller, "caller", "who called"},
		{&f.Certificate, "certificate", "SHA-256 of the certificate that it called with"},
		{&f.RequestId, "request", "the id of the call"},
		{&f.Subject, "subject", "whom it is about"},
		{&f.SubjectDigest, "subject-digest", "the digest of a subject, as events have it"},
		{&f.Token, "token", "a token"},
		{&f.TokenDigest, "token-digest", "the digest of a token, as events have it"},
		{&f.Profile, "profile", "the profile of the data"},
		{&f.Purpose, "purpose", "what for it was to be revealed"},
		{&f.Action, "action", "what was done, as in detokenize"},
		{&f.Decision, "decision", "allow or deny"},
		{&f.Code, "code", "how it was answered, as in PERMISSION_DENIED"},
		{&f.Reason, "reason", "why it failed, as in NO_RULE"},
		{&f.Rule, "rule", "the rule that allowed or denied it"},
		{&f.Approval, "approval", "the id of an approval"},
		{&f.Alert, "alert", "HONEYTOKEN, BURST, NOTIFY or ANY"},
	} {
		flags.StringVar(text.at, text.name, "", text.usage)
	}
}

// check reads the times, and refuses what can't be asked.
func (q *auditQuestion) check(now time.Time) error {
	for _, t := range []struct {
		name, text string
		at         **timestamppb.Timestamp
	}{{"since", q.since, &q.filter.Since}, {"until", q.until, &q.filter.Until}} {
		if t.text == "" {
			continue
		}
		at, err := auditTime(t.text, now)
		if err != nil {
			return usageError{fmt.Errorf("--%s %w", t.name, err)}
		}
		*t.at = timestamppb.New(at)
	}
	if q.dir != "" && (q.filter.Subject != "" || q.filter.Token != "") {
		return usageError{errors.New("--subject and --token take the keys of a server; with --dir, name --subject-digest or --token-digest")}
	}
	return nil
}

// auditTime reads a time.
func auditTime(text string, now time.Time) (time.Time, error) {
	for _, form := range []string{time.DateOnly, time.RFC3339} {
		if t, err := time.Parse(form, text); err == nil {
			return t, nil
		}
	}
	if ago, err := parseDays(text); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	return time.Time{}, fmt.Errorf("%q is neither a time of RFC 3339, nor a date, nor how long ago, as in 90m or 7d", text)
}

// query returns what is asked, as far as it takes no keys.
func (q *auditQuestion) query() audit.Query {
	f := &q.filter
	query := audit.Query{
		Caller: f.Caller, Certificate: strings.ToLower(f.Certificate), RequestID: strings.ToLower(f.RequestId), Action: f.Action, Profile: f.Profile, Purpose: f.Purpose,
		Decision: f.Decision, Rule: f.Rule, Code: f.Code, Reason: f.Reason, Approval: strings.ToLower(f.Approval), Alert: f.Alert,
	}
	if f.Since != nil {
		query.Since = f.Since.AsTime()
	}
	if f.Until != nil {
		query.Until = f.Until.AsTime()
	}
	if f.TokenDigest != "" {
		query.Tokens = []string{f.TokenDigest}
	}
	if f.SubjectDigest != "" {
		query.Subjects = []string{f.SubjectDigest}
	}
	return query
}

// connect calls the server, with a context for each call of its own.
func (q *auditQuestion) connect(f func(coatcheckv1.AuditServiceClient) error) error {
	conn, err := dial(&q.server)
	if err != nil {
		return err
	}
	defer conn.Close()
	return client.Explain(f(coatcheckv1.NewAuditServiceClient(conn)))
}

// ask hands on the events that a server finds, up to a number of them unless it is 0.
func (q *auditQuestion) ask(ctx context.Context, server coatcheckv1.AuditServiceClient, newest bool, most int, do func(auditEntry) error) error {
	req := &coatcheckv1.QueryEventsRequest{Filter: &q.filter, NewestFirst: newest, PageSize: 1000}
	for left := most; ; {
		if most > 0 {
			req.PageSize = int32(min(left, 1000))
		}
		resp, err := q.page(ctx, server, req)
		if err != nil {
			return err
		}
		for _, e := range resp.GetEvents() {
			if err := do(entryOf(e)); err != nil {
				return err
			}
		}
		left -= len(resp.GetEvents())
		req.PageToken = resp.GetNextPageToken()
		if req.PageToken == "" || most > 0 && left <= 0 {
			return nil
		}
	}
}

// page asks for one page.
func (q *auditQuestion) page(ctx context.Context, server coatcheckv1.AuditServiceClient, req *coatcheckv1.QueryEventsRequest) (*coatcheckv1.QueryEventsResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, q.timeout)
	defer cancel()
	return server.QueryEvents(ctx, req)
}

// watchAgain is how long to wait before a watch that was cut off is begun again.
const watchAgain = time.Second

// watch hands on the events of a stream, until ctx ends. If the server goes away, or
// renews the connection, it goes on where it was as soon as there is one again.
func (q *auditQuestion) watch(ctx context.Context, server coatcheckv1.AuditServiceClient, stream grpc.ServerStreamingClient[coatcheckv1.WatchEventsResponse], next uint64, do func(auditEntry) error) error {
	for {
		m, err := stream.Recv()
		switch {
		case ctx.Err() != nil:
			return nil // it was interrupted
		case status.Code(err) == codes.Unavailable:
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(watchAgain):
			}
			if stream, err = server.WatchEvents(ctx, &coatcheckv1.WatchEventsRequest{Filter: &q.filter, FromSequence: next}, grpc.WaitForReady(true)); err != nil && ctx.Err() == nil {
				return err
			} else if err != nil {
				return nil
			}
			continue
		case err != nil:
			return err
		}
		next = m.GetNextSequence()
		if m.GetEvent() == nil {
			continue
		}
		if err := do(entryOf(m.GetEvent())); err != nil {
			return err
		}
	}
}

func entryOf(e *coatcheckv1.AuditEvent) auditEntry {
	entry := auditEntry{Sequence: e.GetSequence(), Hash: fmt.Sprintf("%x", e.GetHash()), Event: json.RawMessage(e.GetEvent())}
	if e.GetEvent() == "" {
		entry.Event, entry.Size = nil, e.GetSize()
	}
	return entry
}

// followPace is how often segments are looked at for more.
const followPace = 250 * time.Millisecond

// read hands on the events that are found in the directory, and with follow those that
// come, until ctx ends. Nothing is verified.
func (q *auditQuestion) read(ctx context.Context, follow bool, do func(auditEntry) error, end func() error) error {
	reader, err := audit.OpenReader(q.dir, 0)
	if err != nil {
		return err
	}
	defer reader.Close()
	for filter := audit.NewFilter(q.query()); ctx.Err() == nil; {
		line, err := reader.Next()
		switch {
		case err == io.EOF:
			if err := end(); err != nil || !follow {
				return err
			}
			select {
			case <-ctx.Done():
			case <-time.After(followPace):
			}
			continue
		case err != nil:
			return err
		}
		if !filter.Match(line.Body) {
			continue
		}
		if err := do(auditEntry{Sequence: line.Sequence, Hash: line.Hash.String(), Event: append(json.RawMessage(nil), line.Body...)}); err != nil {
			return err
		}
	}
	return nil
}
