package command

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/coatcheck/coatcheck/cmd/internal/rows"
	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
)

// detokenizeRows is coatcheck detokenize.
type detokenizeRows struct {
	job
	mapping
	purpose, reveal, reason string

	form coatcheckv1.Reveal
}

const detokenizeLong = `Reads rows, asks the server for the value behind each mapped field, and writes the
rows with the values in their place, in the same order. All else is as with tokenize.

  coatcheck detokenize --in safe.csv --out customers.csv --map card_number --purpose refund
  coatcheck detokenize --format lines --purpose support --reveal MASKED <tokens.txt

A profile is named, as in --map card_number=card, where the token doesn't name it: all tokens
but opaque ones. What is written holds values: files are made for their owner alone. Every
value that is revealed is on the server's record.`

func detokenizeCommand(env Env) *cobra.Command {
	d := &detokenizeRows{job: job{env: env, command: "detokenize", output: true}}
	cmd := &cobra.Command{
		Use:   "detokenize",
		Short: "Put values in the place of tokens in a file",
		Long:  detokenizeLong,
		Args:  noValues,
		RunE:  d.run,
	}
	d.job.flags(cmd)
	d.mapping.flags(cmd, "field or field=profile: a column of CSV by name or number, or a member of JSON, a.b for b in a; repeat it")
	flags := cmd.Flags()
	flags.StringVar(&d.out, "out", "-", "a new file to write; - is standard output")
	flags.StringVar(&d.purpose, "purpose", "", "why the values are needed: a purpose that the profile declares")
	flags.StringVar(&d.reveal, "reveal", "", "how much: "+strings.Join(revealNames(), ", ")+" (default the most that policy grants)")
	flags.StringVar(&d.reason, "reason", "", "why, in your own words, for the record; no personal data")
	return cmd
}

// revealNames returns the forms as people write them.
func revealNames() (names []string) {
	for n := int32(1); ; n++ {
		name, ok := coatcheckv1.Reveal_name[n]
		if !ok {
			return names
		}
		names = append(names, strings.TrimPrefix(name, "REVEAL_"))
	}
}

// prepare checks the flags.
func (d *detokenizeRows) prepare(cmd *cobra.Command) error {
	if err := d.check(cmd); err != nil {
		return err
	}
	if err := d.parse(d.options.Format, false); err != nil {
		return usageError{err}
	}
	if d.purpose == "" {
		return usageError{errors.New("--purpose is needed")}
	}
	if d.reveal != "" {
		if !slices.Contains(revealNames(), d.reveal) {
			return usageError{fmt.Errorf("--reveal %q: there are %s", d.reveal, strings.Join(revealNames(), ", "))}
		}
		d.form = coatcheckv1.Reveal(coatcheckv1.Reveal_value["REVEAL_"+d.reveal])
	}
	d.options.Fields = d.fields
	if err := d.options.Validate(); err != nil {
		return usageError{err}
	}
	if err := d.checkOptional(d.fields); err != nil {
		return usageError{err}
	}
	d.settings = map[string]string{"map": d.text(), "purpose": d.purpose, "reveal": d.reveal, "optional": strings.Join(d.optional, " ")}
	return nil
}

func (d *detokenizeRows) run(cmd *cobra.Command, _ []string) error {
	if err := d.prepare(cmd); err != nil {
		return err
	}
	if d.out == "-" && isTerminal(d.env.Stdout) {
		fmt.Fprintln(d.env.Stderr, "coatcheck: values are shown on this terminal; --out FILE writes them to a file")
	}
	stream := &detokenizeFields{request: d.request}
	// What is said of the purpose is said of every row; and so is all that policy
	// says, if all profiles are known beforehand.
	stops := []string{"INVALID_PURPOSE", "INVALID_REASON"}
	if !slices.Contains(d.profiles, "") {
		stops = append(stops, "UNKNOWN_PROFILE", "NO_RULE", "PURPOSE_NOT_ALLOWED", "REVEAL_NOT_ALLOWED", "REVEAL_AMBIGUOUS", "REVEAL_NOT_APPLICABLE")
	}
	return d.pass(cmd.Context(), &flow{
		job: &d.job, fields: d.fields, inFlight: d.inFlight, large: stream.large, stops: stops,
		check: func(r *rowInFlight) *rows.Refusal { return d.lacking(r, d.fields) },
		accept: func(field int, text string) *rows.Refusal {
			if d.options.Format.Fits(text) {
				return nil
			}
			return malformed(d.fields[field], "the value has a line end, and the format lines can't hold that")
		},
	}, stream.open)
}

// request asks for a value. A use of a token with max_uses is counted once,
// however often it is asked for.
func (d *detokenizeRows) request(q *question) *coatcheckv1.DetokenizeRequest {
	return &coatcheckv1.DetokenizeRequest{
		Token: q.of.Fields[q.field].Value, Profile: d.profiles[q.field],
		Purpose: d.purpose, Reveal: d.form, Reason: d.reason, RedemptionId: d.key(q),
	}
}

// pass moves the rows of a job through a flow.
func (j *job) pass(ctx context.Context, f *flow, open func(context.Context, *grpc.ClientConn) (asker, error)) error {
	conn, err := dial(&j.server)
	if err != nil {
		return err
	}
	defer conn.Close()
	src, err := openSource(j.env, j.in)
	if err != nil {
		return err
	}
	done, err := j.begin(src)
	if err != nil {
		return err
	}
	if done {
		return errors.Join(j.summary(nil), j.close())
	}
	f.open = func(ctx context.Context) (asker, error) { return open(ctx, conn) }
	return j.end(f.run(ctx, &persistence{env: j.env, conn: conn, limit: j.retry, always: j.insist}))
}
