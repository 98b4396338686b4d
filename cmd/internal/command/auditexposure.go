package command

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/coatcheck/coatcheck/cmd/internal/client"
	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/server/exposure"
)

// auditExposure is coatcheck audit exposure.
type auditExposure struct {
	*remote
	req                              coatcheckv1.ReportExposureRequest
	since, until, known              string
	format, contact, verify, keyText string
	key                              []byte
	report                           func(*exposure.Report, []byte) error // prints it, if it isn't printed on the way
	person                           func(*exposure.Person) error         // prints one
}

const auditExposureLong = `Finds out from the audit log whose data was shown in a time: to one caller, by one
certificate, or at all. After a theft of a certificate:

  coatcheck audit exposure --since 2026-03-01T10:00:00Z --until 2026-03-01T12:00:00Z \
      --certificate SHA256 --known-since 2026-03-02T08:30:00Z --subjects --json > report.json

The report is a JSON document with a line for each person, signed by the server. The other forms
are made of it, now or later, without a server:

  coatcheck audit exposure --verify report.json                   a summary, once the signature is good
  coatcheck audit exposure --verify report.json --format csv      the people, for a spreadsheet
  coatcheck audit exposure --verify report.json --format html     a page to be printed: the notice to the
                                                                  authority (GDPR, article 33), as far as known

People are named by digests; --subjects names them by their customer ids, for those who may.`

func (a *auditCommands) exposure() *cobra.Command {
	e := &auditExposure{remote: &a.remote}
	cmd := &cobra.Command{
		Use:   "exposure --since TIME [--until TIME] [--caller CALLER] [--certificate SHA256] [--profile PROFILE] [--subject ID]",
		Short: "Report whose data was shown to whom",
		Long:  auditExposureLong,
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return e.run(cmd.Context()) },
	}
	flags := cmd.Flags()
	flags.StringVar(&e.since, "since", "", "from when on: a date, or a time of RFC 3339")
	flags.StringVar(&e.until, "until", "", "before when (default now)")
	flags.StringVar(&e.req.Caller, "caller", "", "to whom, such as spiffe://coatcheck.example/payments")
	flags.StringVar(&e.req.Certificate, "certificate", "", "with which client certificate: the SHA-256 hash of its DER form in hexadecimal")
	flags.StringVar(&e.req.Profile, "profile", "", "data of this profile only")
	flags.StringVar(&e.req.Subject, "subject", "", "data of this customer id only")
	flags.BoolVar(&e.req.RevealSubjects, "subjects", false, "name people by their customer ids")
	flags.StringVar(&e.known, "known-since", "", "when the incident became known: 72 hours later the authority has to be told")
	flags.StringVar(&e.req.Reason, "reason", "", "why, for the audit log")
	flags.StringVar(&e.format, "format", "text", "text, json, csv or html")
	flags.StringVar(&e.contact, "contact", "", "whom the authority may ask, for the page")
	flags.StringVar(&e.verify, "verify", "", "a file with a report that is there already; no server is asked")
	flags.StringVar(&e.keyText, "public-key", "", "the key, in base64, that has to have signed the report (default any)")
	return cmd
}

// prepare checks the flags.
func (e *auditExposure) prepare() (err error) {
	if e.json {
		e.format = "json"
	}
	if e.key, err = parsePublicKey(e.keyText); err != nil {
		return usageError{err}
	}
	switch e.format {
	case "text":
		e.report = func(r *exposure.Report, key []byte) error { return printExposure(e.env.Stdout, r, key) }
	case "html":
		e.report = func(r *exposure.Report, key []byte) error {
			return writeNotice(e.env.Stdout, r, key, e.contact, time.Now())
		}
	case "csv":
		e.report, e.person = exposureCSV(e.env.Stdout)
	case "json":
		e.report = func(*exposure.Report, []byte) error { return nil }
	default:
		return usageError{fmt.Errorf("--format %q is not text, json, csv or html", e.format)}
	}
	if e.verify != "" {
		return nil
	}
	if e.since == "" {
		return usageError{errors.New("exposure needs --since, or --verify")}
	}
	for _, f := range []struct {
		name, text string
		to         **timestamppb.Timestamp
	}{{"since", e.since, &e.req.Since}, {"until", e.until, &e.req.Until}, {"known-since", e.known, &e.req.KnownSince}} {
		at, err := moment(f.name, f.text)
		if err != nil {
			return usageError{err}
		}
		if !at.IsZero() {
			*f.to = timestamppb.New(at)
		}
	}
	return nil
}

func (e *auditExposure) run(ctx context.Context) error {
	if err := e.prepare(); err != nil {
		return err
	}
	if e.verify != "" {
		file, err := os.Open(e.verify)
		if err != nil {
			return err
		}
		defer file.Close()
		return e.print(file)
	}
	conn, err := dial(&e.server)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, stop := context.WithCancel(ctx) // there is no telling how long it takes
	defer stop()
	stream, err := coatcheckv1.NewPrivacyServiceClient(conn).ReportExposure(ctx, &e.req)
	if err != nil {
		return client.Explain(err)
	}
	return e.print(&exposureParts{env: e.env, recv: stream.Recv})
}

// print prints a report in the form that is wanted. Nothing is printed of one that isn't
// good, but of the forms that have a line for each person, what came before that was found.
func (e *auditExposure) print(from io.Reader) error {
	if e.format == "json" {
		from = io.TeeReader(from, e.env.Stdout)
	}
	r, key, err := exposure.Read(from, e.person)
	if err != nil {
		return fmt.Errorf("don't use the report: %w", err)
	}
	if e.key != nil && !bytes.Equal(e.key, key) {
		return fmt.Errorf("don't use the report: it is signed by another key, %s", base64.StdEncoding.EncodeToString(key))
	}
	return e.report(r, key)
}

// exposureParts reads a report as it comes from the server.
type exposureParts struct {
	env  Env
	recv func() (*coatcheckv1.ReportExposureResponse, error)
	rest []byte
}

// Read is that of io.Reader.
func (p *exposureParts) Read(b []byte) (int, error) {
	for len(p.rest) == 0 {
		m, err := p.recv()
		if errors.Is(err, io.EOF) {
			return 0, err
		}
		if err != nil {
			return 0, client.Explain(err)
		}
		if n := m.GetEventsRead(); n > 0 && p.env.Terminal {
			fmt.Fprintf(p.env.Stderr, "\r%d events read\r", n)
		}
		p.rest = m.GetReport()
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}
