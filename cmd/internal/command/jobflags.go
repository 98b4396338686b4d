package command

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"google.golang.org/grpc"

	"github.com/coatcheck/coatcheck/cmd/internal/client"
	"github.com/coatcheck/coatcheck/cmd/internal/rows"
)

// job is a file of rows that is worked through: tokenize, detokenize, import.
type job struct {
	env     Env
	command string
	server  client.Options

	// Flags.
	in, out, format, delimiter, rejectsPath, statePath, run string
	noHeader, fromRejects, resume, json                     bool
	maxRejects                                              int64
	retry                                                   time.Duration
	insist                                                  bool // --retry is given

	options  rows.Options
	settings map[string]string // that have to be the same when it is resumed
	output   bool              // it has one

	source  source
	fresh   bool // this run began it
	reader  *rows.Reader
	sink    *sink // nil: no output
	rejects *sink // nil: none wanted
	state   *stateFile
	bar     *rowsBar
	saved   time.Time
	told    int // rejected rows that were told of
}

// flags adds the flags that the commands share.
func (j *job) flags(cmd *cobra.Command) {
	flags := cmd.Flags()
	j.server.Flags(flags, j.env.Getenv)
	flags.StringVar(&j.in, "in", "-", "the file to read; - is standard input")
	flags.StringVar(&j.format, "format", "", "csv, jsonl or lines; if it is left out, the name of the file tells")
	flags.StringVar(&j.delimiter, "delimiter", "", `what is between the columns of CSV, such as ";" or "tab" (default ",")`)
	flags.BoolVar(&j.noHeader, "no-header", false, "the CSV has no header: columns are numbers from 1")
	flags.BoolVar(&j.fromRejects, "from-rejects", false, "the input is what --rejects kept: what was added to its rows is left out")
	flags.StringVar(&j.rejectsPath, "rejects", "", "a new file for rows that are rejected, if any are, with the reasons. It holds what they hold")
	flags.Int64Var(&j.maxRejects, "max-rejects", -1, "stop once more rows than this are rejected; -1 for no limit")
	flags.BoolVar(&j.resume, "resume", false, "go on where an earlier run stopped; begin if there was none")
	flags.StringVar(&j.statePath, "state", "", "where it is kept how far a run is (default the file that is written, or that is imported, and .state)")
	flags.DurationVar(&j.retry, "retry", time.Minute, "how long the server may be away before it is given up. If this is given, also at the beginning")
	flags.BoolVar(&j.json, "json", false, "print a summary as JSON")
}

// check says what is wrong with the flags.
func (j *job) check(cmd *cobra.Command) error {
	j.insist = cmd.Flags().Changed("retry")
	if err := j.checkFormat(); err != nil {
		return usageError{err}
	}
	toFile := !j.output || j.out != "-"
	switch {
	case j.resume && (j.in == "-" || !toFile):
		return usageError{errors.New("--resume needs files: --in FILE and --out FILE")}
	case j.json && !toFile:
		return usageError{errors.New("--json needs --out FILE: the data goes to standard output")}
	case j.output && toFile && j.out == j.rejectsPath:
		return usageError{errors.New("--out and --rejects are the same file")}
	case j.rejectsPath == "-" || j.output && j.out == "":
		return usageError{errors.New("--out and --rejects name files")}
	case j.statePath != "" && (j.in == "-" || !toFile):
		return usageError{errors.New("--state needs files: --in FILE and --out FILE")}
	}
	if j.statePath == "" && j.in != "-" && toFile {
		j.statePath = j.in + ".state"
		if j.output {
			j.statePath = j.out + ".state"
		}
	}
	return nil
}

// checkFormat makes rows.Options of the flags.
func (j *job) checkFormat() error {
	o := &j.options
	if o.Format = rows.Format(j.format); o.Format == "" {
		if o.Format = rows.FormatOf(j.in); o.Format == "" {
			return errors.New("--format is needed: csv, jsonl or lines")
		}
	}
	switch {
	case j.delimiter == "tab" || j.delimiter == "" && strings.HasSuffix(strings.ToLower(j.in), ".tsv"):
		o.Comma = '\t'
	case len(j.delimiter) == 1:
		o.Comma = j.delimiter[0]
	case j.delimiter != "":
		return errors.New("--delimiter is one character, or tab")
	default:
		o.Comma = ','
	}
	o.Header, o.Rejected = !j.noHeader, j.fromRejects
	return o.Validate()
}

// isTerminal says whether a writer is a terminal.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// dial connects to a server, if it is said which.
func dial(o *client.Options) (*grpc.ClientConn, error) {
	if missing := o.Missing(); len(missing) > 0 {
		return nil, usageError{fmt.Errorf("%s must be given, or be in the environment: see --help", strings.Join(missing, ", "))}
	}
	return o.Dial()
}
