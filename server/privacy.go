package server

import (
	"context"
	"encoding/hex"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/server/audit"
	"github.com/coatcheck/coatcheck/server/exposure"
	"github.com/coatcheck/coatcheck/server/policy"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// privacyService is coatcheck.v1.PrivacyService.
type privacyService struct {
	coatcheckv1.UnimplementedPrivacyServiceServer
	*tokenization
	store   tokenizer.Store
	notary  *audit.Notary
	scratch string
	turn    chan struct{} // has room for who is making a report
}

// reportSubjects is the action of reports that name people by their customer ids.
const reportSubjects = "report-exposure-subjects"

// reportPart is how much of a report is sent at once, in bytes.
const reportPart = 64 << 10

// exposureAsked is what is asked of ReportExposure.
type exposureAsked struct {
	query exposure.Query
	exposure.Asked
}

// ReportExposure is recorded before it begins, and when it has ended.
func (s *privacyService) ReportExposure(req *coatcheckv1.ReportExposureRequest, stream grpc.ServerStreamingServer[coatcheckv1.ReportExposureResponse]) error {
	ctx := stream.Context()
	c := callFrom(ctx)
	c.event.Namespace = DefaultNamespace
	asked, err := s.asked(ctx, c, req)
	if err != nil {
		return err
	}
	var signer tokenizer.Signer
	part := c.group(s.server.policy.Current())
	err = s.server.commitGroup(ctx, part, func() (err error) {
		if err := part.stillNamed(ctx); err != nil {
			return err
		}
		if _, err := s.asked(ctx, part, req); err != nil { // so that part says what, too
			return err
		}
		if err := s.mayReport(part, asked.Names); err != nil {
			return err
		}
		signer, err = s.tokenizer.Signer(ctx, DefaultNamespace, &part.unit)
		return err
	})
	c.meter = part.meter
	if err != nil {
		c.event.Decision, c.event.Rule, c.event.Action = part.event.Decision, part.event.Rule, part.event.Action
		return err
	}
	c.event.Rule, c.event.Action, c.event.Items = part.event.Rule, part.event.Action, nil
	ctx, stop := s.untilDrain(ctx)
	defer stop()
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	report, err := s.report(ctx, asked, signer, stream)
	if err != nil {
		return first(context.Cause(ctx), err)
	}
	c.event.Records = report.Subjects
	return nil
}

// mayReport asks policy.
func (s *privacyService) mayReport(c *call, names bool) error {
	decision, err := c.ask(c.request(""))
	if err != nil || !names {
		return err
	}
	c.event.Action = reportSubjects
	request := c.request("")
	request.Action = reportSubjects
	if decision, err = c.ask(request); err != nil {
		return err
	}
	return c.pay(decision.Duties())
}

// untilDrain returns a context that ends when the server drains, too.
func (s *privacyService) untilDrain(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, end := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		select {
		case <-s.server.draining:
			end(errDraining)
		case <-done:
		}
	}()
	return ctx, func() {
		close(done)
		end(nil)
	}
}

// report finds what is asked for, and sends it.
func (s *privacyService) report(ctx context.Context, asked exposureAsked, signer tokenizer.Signer, stream grpc.ServerStreamingServer[coatcheckv1.ReportExposureResponse]) (*exposure.Report, error) {
	finder := &exposure.Finder{
		Store: s.store, Tokenizer: s.tokenizer, Namespace: DefaultNamespace, Scratch: s.scratch,
		Progress: func(events uint64) {
			_ = stream.Send(&coatcheckv1.ReportExposureResponse{EventsRead: events}) // the next will fail too
		},
	}
	found, err := finder.Find(ctx, asked.query)
	if err != nil {
		return nil, err
	}
	defer found.Close()
	if _, text, _, err := s.notary.Latest(); err == nil { // there is none yet if not
		asked.Checkpoint = string(text)
	}
	return finder.Write(ctx, reportWriter{stream}, found, asked.Asked, signer)
}

// reportWriter sends what is written to it.
type reportWriter struct {
	stream grpc.ServerStreamingServer[coatcheckv1.ReportExposureResponse]
}

func (w reportWriter) Write(b []byte) (n int, err error) {
	for len(b) > 0 {
		part := b[:min(len(b), reportPart)]
		if err := w.stream.Send(&coatcheckv1.ReportExposureResponse{Report: part}); err != nil {
			return n, first(w.stream.Context().Err(), receiveError(err))
		}
		n, b = n+len(part), b[len(part):]
	}
	return n, nil
}

// asked checks a request, and records what it asks for.
func (s *privacyService) asked(ctx context.Context, c *call, req *coatcheckv1.ReportExposureRequest) (a exposureAsked, err error) {
	d := &c.newDeeds(1)[0]
	d.stated(req.GetReason())
	c.event.StatedReason = d.StatedReason
	if d.err != nil {
		return a, d.err
	}
	q := &a.query
	a.By, a.RequestID, a.At, a.Names = c.event.Caller, c.event.RequestID, c.event.Time, req.GetRevealSubjects()
	q.Until = c.event.Time
	for _, t := range []struct {
		from *timestamppb.Timestamp
		to   *time.Time
	}{{req.GetSince(), &q.Since}, {req.GetUntil(), &q.Until}, {req.GetKnownSince(), &a.KnownSince}} {
		if t.from == nil {
			continue
		}
		if *t.to = t.from.AsTime(); t.from.CheckValid() != nil || t.to.Year() < 1970 || t.to.Year() > 2200 {
			return a, errPeriod
		}
	}
	if req.GetSince() == nil || !q.Since.Before(q.Until) {
		return a, errPeriod
	}
	c.event.Since, c.event.Until = audit.FormatTime(q.Since), audit.FormatTime(q.Until)
	if q.Caller = req.GetCaller(); q.Caller != "" && policy.ValidateCaller(q.Caller) != nil {
		return a, errInvalidCaller
	}
	c.event.AboutCaller = q.Caller
	if q.Certificate = strings.ToLower(req.GetCertificate()); q.Certificate != "" {
		if b, err := hex.DecodeString(q.Certificate); err != nil || len(b) != 32 {
			return a, errCertificate
		}
		c.event.AboutCertificate = q.Certificate
	}
	if req.GetProfile() != "" {
		p, err := s.tokenizer.Profile(req.GetProfile())
		if err != nil {
			return a, err
		}
		q.Profile, c.event.Profile = p.Name, p.Name
	}
	if q.Subject = req.GetSubject(); q.Subject != "" {
		if len(q.Subject) > tokenizer.MaxSubject {
			return a, &tokenizer.InputError{Kind: tokenizer.ErrInvalidSubject, Reason: "is longer than 256 bytes"}
		}
		if d.Subject, err = s.tokenizer.DigestSubject(ctx, DefaultNamespace, q.Subject); err != nil {
			return a, err
		}
		c.event.Items = []audit.Item{{Subject: d.Subject}}
	}
	return a, nil
}
