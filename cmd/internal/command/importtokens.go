package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/coatcheck/coatcheck/cmd/internal/rows"
	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
)

// importTokens is coatcheck import.
type importTokens struct {
	job
	profile, identity, keyText string
	anySigner                  bool
	renamed                    []string // ours=theirs
	optional                   []string // of these, theirs that rows may lack

	key   []byte
	names []string // ours, for each field
}

const importLong = `Reads tokens with their values, and has the server take them over as they are: the
same tokens stand for the same values from then on.

  coatcheck import --in old-vault.csv --profile card                 columns token and value
  coatcheck import --in old.jsonl --profile card --field token=id --field value=pan
  coatcheck import --in cards --identity identity.txt --public-key … what coatcheck export wrote

JSON lines are of the form of an export: profile, token, value or data, subject, metadata,
expire_time, max_uses. It can be repeated: what is there already, with the same value, is left as
it is. Rows that the server refuses are kept in --rejects FILE; exits with 1 if there are any.`

func importCommand(env Env) *cobra.Command {
	i := &importTokens{job: job{env: env, command: "import"}}
	cmd := &cobra.Command{
		Use:   "import",
		Short: "Take over tokens with their values from elsewhere",
		Long:  importLong,
		Args:  noValues,
		RunE:  i.run,
	}
	i.flags(cmd)
	flags := cmd.Flags()
	flags.StringVar(&i.profile, "profile", "", "the profile that they become tokens of, whatever the rows say")
	flags.StringArrayVar(&i.renamed, "field", nil, "ours=theirs: what a field is called there, such as value=pan; repeat it")
	flags.StringArrayVar(&i.optional, "optional", nil, "a field of --field, as it is called there, that JSON objects may lack. Repeat it")
	flags.StringVar(&i.identity, "identity", "", "an age identity file, to read what coatcheck export wrote: --in is its directory")
	flags.StringVar(&i.keyText, "public-key", "", "with --identity: the key, in base64, that has to have signed the export")
	flags.BoolVar(&i.anySigner, "any-signer", false, "with --identity: whoever has signed the export is believed")
	return cmd
}

// prepare checks the flags.
func (i *importTokens) prepare(cmd *cobra.Command) (err error) {
	if i.identity != "" {
		if i.format != "" && i.format != string(rows.JSONLines) || i.in == "-" {
			return usageError{errors.New("--identity is for the directory of an export: --in DIR")}
		}
		i.format, i.in = string(rows.JSONLines), strings.TrimRight(i.in, "/")
	}
	if err := i.check(cmd); err != nil {
		return err
	}
	if i.options.Format == rows.Lines {
		return usageError{errors.New("--format is csv or jsonl: a line has no room for token and value")}
	}
	if i.options.Format == rows.CSV && i.profile == "" {
		return usageError{errors.New("--profile is needed for CSV")}
	}
	switch {
	case (i.keyText != "" || i.anySigner) && i.identity == "":
		return usageError{errors.New("--public-key and --any-signer need --identity")}
	case i.identity != "" && (i.keyText == "") != i.anySigner:
		return usageError{errors.New("--identity needs either --public-key KEY, which the export printed, or --any-signer: " +
			"anybody can encrypt to the identity, so without the key values may be from anybody")}
	}
	if i.key, err = parsePublicKey(i.keyText); err != nil {
		return usageError{err}
	}
	i.names = importFields
	i.options.Fields, i.options.Optional, i.options.Objects = slices.Clone(importFields), true, true
	for _, arg := range i.renamed {
		ours, theirs, _ := strings.Cut(arg, "=")
		at := slices.Index(importFields, ours)
		if at < 0 || theirs == "" {
			return usageError{fmt.Errorf("--field %q: is not of the form ours=theirs; ours are %s", arg, strings.Join(importFields, ", "))}
		}
		i.options.Fields[at] = theirs
	}
	for _, name := range i.optional {
		if !slices.Contains(i.options.Fields, name) {
			return usageError{fmt.Errorf("--optional %q: is no field that is asked for", name)}
		}
	}
	if err := i.options.Validate(); err != nil {
		return usageError{err}
	}
	i.settings = map[string]string{
		"profile": i.profile, "field": strings.Join(i.renamed, " "), "optional": strings.Join(i.optional, " "),
		"public-key": i.keyText, "any-signer": strconv.FormatBool(i.anySigner),
	}
	return nil
}

func (i *importTokens) run(cmd *cobra.Command, _ []string) error {
	if err := i.prepare(cmd); err != nil {
		return err
	}
	conn, err := dial(&i.server)
	if err != nil {
		return err
	}
	defer conn.Close()
	var src source
	if i.identity != "" {
		src, err = openExport(i.in, i.identity, i.key)
	} else {
		src, err = openSource(i.env, i.in)
	}
	if err != nil {
		return err
	}
	done, err := i.begin(src)
	if err != nil {
		return err
	}
	if done {
		return errors.Join(i.summary(nil), i.close())
	}
	if err := i.columns(); err != nil {
		return errors.Join(err, i.undo(), i.close())
	}
	return i.end(i.batches(cmd.Context(), conn))
}

// columns says which columns a CSV has to have and hasn't.
func (i *importTokens) columns() error {
	for at, name := range i.names {
		needed := name == "token" || i.options.Fields[at] != name
		if needed && !i.reader.Has(at) {
			return fmt.Errorf("column %q: %w", i.options.Fields[at], rows.ErrField)
		}
	}
	if left := i.reader.Others(); len(left) > 0 {
		fmt.Fprintf(i.env.Stderr, "coatcheck: columns that mean nothing to an import: %s\n", printable(strings.Join(left, ", ")))
	}
	return nil
}

// lacking refuses a row that lacks a field that has been named: the name may be
// mistyped, and what it says of the token would be lost.
func (i *importTokens) lacking(row *rows.Row) *rows.Refusal {
	for at, name := range i.names {
		theirs := i.options.Fields[at]
		if theirs != name && row.Lacks(at) && !slices.Contains(i.optional, theirs) {
			return malformed(theirs, "has no such field; --optional names those that rows may lack")
		}
	}
	return nil
}

// Bounds of a batch.
const (
	importBatch = 1000
	importBytes = 1 << 20
)

// importRow is a row on its way. One that is refused before it is sent has no
// item.
type importRow struct {
	*rows.Row
	item    *coatcheckv1.ImportedToken
	refused *rows.Refusal
}

// batches sends batch by batch. The next one goes once what became of the one
// before is written.
func (i *importTokens) batches(ctx context.Context, conn *grpc.ClientConn) error {
	patience := &persistence{env: i.env, conn: conn, limit: i.retry, always: i.insist}
	tokens := coatcheckv1.NewTokenServiceClient(conn)
	for {
		batch, last := i.gather()
		if err := i.send(ctx, tokens, patience, batch); err != nil {
			return err
		}
		for _, r := range batch {
			var err error
			if r.refused != nil {
				err = i.reject(r.Row, *r.refused)
			} else {
				err = i.write(r.Row, nil)
			}
			if err != nil {
				return err
			}
		}
		if errors.Is(last, io.EOF) {
			return nil
		}
		if last != nil {
			return last
		}
	}
}

// gather reads the rows of a batch. last is why there are no more, if there
// aren't.
func (i *importTokens) gather() (batch []importRow, last error) {
	size, sent := 0, 0
	for sent < importBatch && size < importBytes {
		row, err := i.reader.Next()
		if err != nil {
			return batch, err
		}
		r := importRow{Row: row}
		if row.Problem != "" {
			r.refused = malformed("", row.Problem)
		} else if r.refused = i.lacking(row); r.refused != nil {
		} else if r.item, r.refused = i.item(row, time.Now()); r.item != nil {
			size += proto.Size(r.item)
			sent++
		}
		batch = append(batch, r)
		size += len(row.Raw)
	}
	return batch, nil
}

// send sends a batch, again and again as long as the server is away.
func (i *importTokens) send(ctx context.Context, tokens coatcheckv1.TokenServiceClient, patience *persistence, batch []importRow) error {
	for {
		var open []*importRow
		req := &coatcheckv1.ImportTokensRequest{}
		for at := range batch {
			if r := &batch[at]; r.item != nil && r.refused == nil {
				open = append(open, r)
				req.Items = append(req.Items, r.item)
			}
		}
		if len(open) == 0 {
			return nil
		}
		resp, err := tokens.ImportTokens(ctx, req)
		if err == nil && len(resp.GetResults()) != len(open) {
			return errors.New("the server answers what was not asked")
		}
		if err == nil {
			err = judgeImport(open, resp.GetResults())
		}
		if err == nil {
			patience.progress()
			return nil
		}
		var final finalError
		if errors.As(err, &final) {
			return final.error
		}
		if err := patience.wait(ctx, err); err != nil {
			return err
		}
	}
}

// judgeImport notes what became of items. An error is not about an item.
func judgeImport(sent []*importRow, results []*coatcheckv1.ImportResult) error {
	stops := []string{"UNKNOWN_PROFILE", "NO_RULE", "KEY_SPENT"}
	for k, result := range results {
		switch {
		case result.GetResponse() != nil:
			continue
		case result.GetError() == nil:
			return finalError{errors.New("the server gives no answer")}
		}
		refused, err := judge(result.GetError(), stops)
		if err != nil {
			return err
		}
		refused.Field = refusedField(result.GetError())
		sent[k].refused = refused
	}
	return nil
}
