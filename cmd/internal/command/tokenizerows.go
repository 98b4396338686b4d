package command

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/coatcheck/coatcheck/cmd/internal/rows"
	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
)

// tokenizeRows is coatcheck tokenize.
type tokenizeRows struct {
	job
	mapping
	subject string
	base64  []string
	binary  []bool // for each field
}

const tokenizeLong = `Reads rows, asks the server for a token for each mapped field, and writes the rows
with the tokens in their place, in the same order. All else of a row stays as it is, byte for
byte. An empty field stays empty.

  coatcheck tokenize --in customers.csv --out safe.csv --map card_number=card --map ssn=ssn
  coatcheck tokenize --in events.jsonl --out safe.jsonl --map payment.card=card
  coatcheck tokenize --format lines --profile card <numbers.txt >tokens.txt

With files on both sides a run that stopped goes on with --resume; no value gets a second token
by that. Rows that the server refuses are left out, and kept in --rejects FILE. Exits with 1 if
there are any.

Values are never arguments: they come from a file or standard input.`

func tokenizeCommand(env Env) *cobra.Command {
	t := &tokenizeRows{job: job{env: env, command: "tokenize", output: true}}
	cmd := &cobra.Command{
		Use:   "tokenize",
		Short: "Put tokens in the place of values in a file",
		Long:  tokenizeLong,
		Args:  noValues,
		RunE:  t.run,
	}
	t.job.flags(cmd)
	t.mapping.flags(cmd, "field=profile: a column of CSV by name or number, or a member of JSON, a.b for b in a; repeat it")
	flags := cmd.Flags()
	flags.StringVar(&t.out, "out", "-", "a new file to write; - is standard output")
	flags.StringVar(&t.subject, "subject-field", "", "the field that says whom the values of a row are about")
	flags.StringArrayVar(&t.base64, "base64", nil, "a mapped field that is base64, for profiles of the type bytes; repeat it")
	flags.StringVar(&t.job.run, "idempotency-prefix", "", "what idempotency keys begin with (default a new one for each run, kept for --resume)")
	return cmd
}

// noValues refuses arguments without repeating them: one may be a value.
func noValues(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return errors.New("values are no arguments, they come from --in FILE or standard input")
	}
	return nil
}

// maxPrefix leaves room for a row and a field in the 128 bytes of an
// idempotency key.
const maxPrefix = 64

// prepare checks the flags.
func (t *tokenizeRows) prepare(cmd *cobra.Command) error {
	if err := t.check(cmd); err != nil {
		return err
	}
	if err := t.parse(t.options.Format, true); err != nil {
		return usageError{err}
	}
	if len(t.job.run) > maxPrefix {
		return usageError{fmt.Errorf("--idempotency-prefix has at most %d bytes", maxPrefix)}
	}
	t.options.Fields = slices.Clone(t.fields)
	if t.subject != "" {
		if t.options.Format == rows.Lines {
			return usageError{errors.New("--subject-field is for fields, and lines have none")}
		}
		t.options.Fields = append(t.options.Fields, t.subject)
	}
	if err := t.options.Validate(); err != nil {
		return usageError{err}
	}
	if err := t.checkOptional(t.options.Fields); err != nil {
		return usageError{err}
	}
	t.binary = make([]bool, len(t.fields))
	for _, field := range t.base64 {
		at := slices.Index(t.fields, field)
		if at < 0 {
			return usageError{fmt.Errorf("--base64 %q: the field is not mapped", field)}
		}
		t.binary[at] = true
	}
	t.settings = map[string]string{"map": t.text(), "subject-field": t.subject, "base64": strings.Join(t.base64, " "), "optional": strings.Join(t.optional, " ")}
	return nil
}

func (t *tokenizeRows) run(cmd *cobra.Command, _ []string) error {
	if err := t.prepare(cmd); err != nil {
		return err
	}
	stream := &tokenizeFields{request: t.request}
	return t.pass(cmd.Context(), &flow{
		job: &t.job, fields: t.fields, inFlight: t.inFlight, large: stream.large,
		check: t.checkRow,
		// What is said of the profile, or of the caller, is said of every row.
		stops:  []string{"UNKNOWN_PROFILE", "NO_RULE", "KEY_SPENT"},
		accept: func(int, string) *rows.Refusal { return nil },
	}, stream.open)
}

// checkRow says what the server would not be told of a row.
func (t *tokenizeRows) checkRow(r *rowInFlight) *rows.Refusal {
	if refused := t.lacking(r, t.options.Fields); refused != nil {
		return refused
	}
	for i := range t.fields {
		if _, err := base64.StdEncoding.DecodeString(r.Fields[i].Value); t.binary[i] && err != nil {
			return malformed(t.fields[i], "is not base64")
		}
	}
	return nil
}

// request asks for a token. The subject, if there is one, is the field behind
// the mapped ones.
func (t *tokenizeRows) request(q *question) *coatcheckv1.TokenizeRequest {
	r := q.of
	req := &coatcheckv1.TokenizeRequest{Profile: t.profiles[q.field], IdempotencyKey: t.key(q)}
	if t.binary[q.field] {
		req.Data, _ = base64.StdEncoding.DecodeString(r.Fields[q.field].Value) // checkRow has looked
	} else {
		req.Value = r.Fields[q.field].Value
	}
	if t.subject != "" {
		req.Subject = r.Fields[len(t.fields)].Value
	}
	return req
}

// key is the name of a question: the same when it is asked again, by this run or
// by one that resumes it.
func (j *job) key(q *question) string {
	return j.state.Run + "/" + strconv.FormatInt(q.of.number, 10) + "/" + strconv.Itoa(q.field)
}

// malformed rejects a row for what is wrong with a field.
func malformed(field, message string) *rows.Refusal {
	return &rows.Refusal{Field: field, Code: "INVALID_ARGUMENT", Reason: rows.MalformedRow, Message: message}
}
