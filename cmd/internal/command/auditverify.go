package command

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/coatcheck/coatcheck/server/audit"
)

// auditVerify is coatcheck audit verify.
type auditVerify struct {
	env        Env
	keys, kept []string
	event      uint64
	json       bool
}

const auditVerifyLong = `Verifies the audit log in a directory: each line, how the lines are chained, the tree over
them, and every signed checkpoint. It needs no server. Whatever was changed, removed, added, moved
or cut off is found, and the place is named. The events behind the last checkpoint are chained, but
not signed yet: how many they are is said.

  coatcheck audit verify audit --public-key audit.pub
  coatcheck audit verify audit --public-key audit.pub --checkpoint kept/2026-11-25

Get the key and the checkpoints from where they were kept: whoever can write the directory can
replace those in it. Against an earlier checkpoint a history is found that was rewritten, or put
back from a copy, with the key.

It exits with 0 if the log is good, and 1 if not.`

func auditVerifyCommand(env Env) *cobra.Command {
	a := &auditVerify{env: env}
	cmd := &cobra.Command{
		Use:   "verify DIR --public-key FILE|KEY",
		Short: "Verify the audit log in a directory",
		Long:  auditVerifyLong,
		Args:  cobra.ExactArgs(1),
		RunE:  func(_ *cobra.Command, args []string) error { return a.run(args[0]) },
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&a.keys, "public-key", nil, "the key of the checkpoints, NAME+HASH+KEY, or a file with it; may be given more than once")
	flags.StringArrayVar(&a.kept, "checkpoint", nil, "a file with checkpoints that were kept elsewhere; may be given more than once")
	flags.Uint64Var(&a.event, "event", 0, "the number of an event to print, with the proof that it is in the log, as JSON")
	flags.BoolVar(&a.json, "json", false, "print JSON")
	return cmd
}

func (a *auditVerify) run(dir string) error {
	if len(a.keys) == 0 {
		return usageError{errors.New("verify needs --public-key, which coatcheck audit checkpoint --public-key prints")}
	}
	options := audit.SignedOptions{Event: a.event}
	for _, text := range a.keys {
		key, err := readNoteKey(text)
		if err != nil {
			return err
		}
		options.Keys = append(options.Keys, key)
	}
	for _, path := range a.kept {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		kept, err := audit.ReadCheckpoints(text, options.Keys...)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		options.Kept = append(options.Kept, kept...)
	}
	began := time.Now()
	found, err := audit.VerifySigned(dir, options)
	if a.json || a.event > 0 {
		return errors.Join(err, printJSON(a.env.Stdout, verifiedOf(found, err)))
	}
	if err != nil {
		return err
	}
	return printVerified(a.env.Stdout, found, time.Since(began))
}

// readNoteKey reads a verifier key, or a file with one.
func readNoteKey(text string) (note.Verifier, error) {
	if !strings.Contains(text, "+") {
		content, err := os.ReadFile(text)
		if err != nil {
			return nil, err
		}
		text = string(content)
	}
	key, err := note.NewVerifier(strings.TrimSpace(text))
	if err != nil {
		return nil, errors.New("not a public key of checkpoints, NAME+HASH+KEY, or a file with one")
	}
	return key, nil
}

// What --json prints. Names and meanings are a promise: fields may be added. Hashes are
// in hexadecimal.
type (
	jsonVerified struct {
		OK          bool            `json:"ok"`
		Log         string          `json:"log"`
		Events      uint64          `json:"events"`
		Head        string          `json:"head"`
		Checkpoints uint64          `json:"checkpoints"`
		Latest      *jsonCheckpoint `json:"latest,omitempty"`
		Uncovered   uint64          `json:"uncovered"`
		Torn        bool            `json:"torn"`
		Fault       *jsonAuditFault `json:"fault,omitempty"`
		Proof       *jsonInclusion  `json:"proof,omitempty"`
	}
	jsonCheckpoint struct {
		Events uint64    `json:"events"`
		Root   string    `json:"root"`
		Head   string    `json:"head"`
		Time   time.Time `json:"time"`
		Note   string    `json:"note"`
	}
	jsonAuditFault struct {
		Message string `json:"message"`
		File    string `json:"file,omitempty"`
		Line    int    `json:"line,omitempty"`
		Event   uint64 `json:"event,omitempty"`
	}
	jsonInclusion struct {
		Event  uint64   `json:"event"`
		Line   string   `json:"line,omitempty"`
		Leaf   string   `json:"leaf"`
		Events uint64   `json:"events"`
		Root   string   `json:"root"`
		Hashes []string `json:"hashes"`
	}
	jsonConsistency struct {
		OldEvents uint64   `json:"old_events"`
		OldRoot   string   `json:"old_root"`
		Events    uint64   `json:"events"`
		Root      string   `json:"root"`
		Hashes    []string `json:"hashes"`
	}
)

func hexOf(h tlog.Hash) string { return hex.EncodeToString(h[:]) }

func hexList(hashes []tlog.Hash) []string {
	list := make([]string, 0, len(hashes)) // not null
	for _, h := range hashes {
		list = append(list, hexOf(h))
	}
	return list
}

func checkpointOf(c audit.Checkpoint, text []byte) *jsonCheckpoint {
	return &jsonCheckpoint{Events: c.Events, Root: hexOf(c.Root), Head: c.Head.String(), Time: c.Time, Note: string(text)}
}

func inclusionOf(p audit.Proof, line []byte) *jsonInclusion {
	return &jsonInclusion{
		Event: p.Event, Line: strings.TrimSuffix(string(line), "\n"), Leaf: hexOf(p.Leaf), Events: p.Events, Root: hexOf(p.Root), Hashes: hexList(p.Inclusion),
	}
}

func verifiedOf(found audit.Signed, err error) jsonVerified {
	v := jsonVerified{
		OK: err == nil, Log: found.Log.String(), Events: found.Events, Head: found.Head.String(),
		Checkpoints: found.Checkpoints, Uncovered: found.Uncovered(), Torn: found.Torn,
	}
	if found.Checkpoints > 0 {
		v.Latest = checkpointOf(found.Latest, found.Note)
	}
	if found.Proof != nil {
		v.Proof = inclusionOf(*found.Proof, found.Line)
	}
	if err != nil {
		v.Fault = &jsonAuditFault{Message: err.Error()}
		var fault *audit.Fault
		if errors.As(err, &fault) {
			v.Fault.File, v.Fault.Line, v.Fault.Event = fault.File, fault.Line, fault.Event
		}
	}
	return v
}

func printVerified(w io.Writer, found audit.Signed, took time.Duration) error {
	fmt.Fprintf(w, "The log %s is whole: %d events, verified in %v.\n", found.Log, found.Events, took.Round(time.Millisecond))
	fmt.Fprintf(w, "%d checkpoints; the last was signed at %s over %d events.\n", found.Checkpoints, found.Latest.Time.Format(time.RFC3339), found.Latest.Events)
	if n := found.Uncovered(); n > 0 {
		fmt.Fprintf(w, "%d events behind it are chained, but not signed yet.\n", n)
	}
	if found.Torn {
		fmt.Fprintln(w, "The last line is unfinished: it is being written, or a crash has left it.")
	}
	return nil
}
