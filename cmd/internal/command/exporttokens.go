package command

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"filippo.io/age"
	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/coatcheck/coatcheck/cmd/internal/client"
	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
)

// export is coatcheck export.
type export struct {
	env                              Env
	server                           client.Options
	profile, recipient, dir, keyText string
	resume, json, insist             bool
	retry                            time.Duration

	manifest *exportManifest
	made     bool     // the directory is there
	locked   *os.File // it
	key      []byte   // that has to sign the pages, once it is known
	bar      *rowsBar
}

const exportLong = `Writes all tokens of a profile, with their values, into a new directory: pages that are
encrypted to the recipient (age), and a manifest with the server's signatures. Values are in clear
with the holder of the recipient's identity only, and nowhere on the way.

  age-keygen -o identity.txt          keep it apart from the export; prints age1...
  coatcheck export --profile card --recipient age1... --out cards

An export that stopped goes on with --resume. coatcheck import --identity reads it.`

func exportCommand(env Env) *cobra.Command {
	e := &export{env: env}
	cmd := &cobra.Command{
		Use:   "export --profile PROFILE --recipient age1... --out DIR",
		Short: "Export tokens with their values, encrypted to a recipient",
		Long:  exportLong,
		Args:  cobra.NoArgs,
		RunE:  e.run,
	}
	flags := cmd.Flags()
	e.server.Flags(flags, env.Getenv)
	flags.StringVar(&e.profile, "profile", "", "the profile whose tokens are exported")
	flags.StringVar(&e.recipient, "recipient", "", "the age recipient (X25519) that they are encrypted to")
	flags.StringVar(&e.dir, "out", "", "a new directory")
	flags.StringVar(&e.keyText, "public-key", "", "the key, in base64, that has to have signed the pages (default that of the first page)")
	flags.BoolVar(&e.resume, "resume", false, "go on with an export that stopped; begin if there is none")
	flags.DurationVar(&e.retry, "retry", time.Minute, "how long the server may be away before it is given up. If this is given, also at the beginning")
	flags.BoolVar(&e.json, "json", false, "print a summary as JSON")
	return cmd
}

// prepare checks the flags.
func (e *export) prepare(cmd *cobra.Command) (err error) {
	e.insist = cmd.Flags().Changed("retry")
	if e.profile == "" || e.recipient == "" || e.dir == "" {
		return usageError{errors.New("export needs --profile, --recipient and --out")}
	}
	if _, err := age.ParseX25519Recipient(e.recipient); err != nil {
		return usageError{errors.New("--recipient is no age recipient: age1 and 58 more characters")}
	}
	if e.key, err = parsePublicKey(e.keyText); err != nil {
		return usageError{err}
	}
	return nil
}

// parsePublicKey reads --public-key.
func parsePublicKey(text string) ([]byte, error) {
	if text == "" {
		return nil, nil
	}
	key, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(key) != 32 {
		return nil, errors.New("--public-key is not 32 bytes of base64")
	}
	return key, nil
}

func (e *export) run(cmd *cobra.Command, _ []string) error {
	if err := e.prepare(cmd); err != nil {
		return err
	}
	conn, err := dial(&e.server)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := e.begin(); err != nil {
		return err
	}
	defer func() { _ = e.locked.Close() }() // nil is an error
	if !e.manifest.complete() {
		e.bar = newRowsBar(e.env, "tokens", 0, int64(e.manifest.tokens()), 0, false)
		err = e.pages(cmd.Context(), conn)
		e.bar.at(int64(e.manifest.tokens()), 0, time.Now(), true)
		e.bar.end()
	}
	return e.summary(err)
}

// begin makes the directory, or reads what is there.
func (e *export) begin() error {
	there, err := exists(e.dir)
	if err != nil {
		return err
	}
	head := exportHead{Version: exportVersion, Profile: e.profile, Recipient: e.recipient}
	if there && !e.resume {
		return fmt.Errorf("%s is there already; --resume goes on with an export", e.dir)
	}
	if e.made = there; there {
		if err := e.lock(); err != nil {
			return err
		}
		if e.manifest, err = readManifest(e.dir); err != nil {
			return err
		}
	}
	if e.manifest == nil || e.manifest.size == 0 {
		e.manifest = &exportManifest{exportHead: head}
		return nil // made with the first page, so that a refusal leaves nothing behind
	}
	if e.manifest.exportHead != head {
		return fmt.Errorf("%s is the export of another profile, or to another recipient", e.dir)
	}
	for n, page := range e.manifest.pages {
		if e.key == nil {
			e.key = page.PublicKey
		}
		sealed, err := os.ReadFile(filepath.Join(e.dir, page.File))
		if err != nil {
			return err
		}
		if err := page.verify(e.profile, e.manifest.before(n), sealed, e.key); err != nil {
			return err
		}
	}
	return nil
}

// lock keeps other exports from the directory, until it is closed.
func (e *export) lock() error {
	dir, err := os.Open(e.dir)
	if err != nil {
		return err
	}
	if err := lock(dir); err != nil {
		return errors.Join(fmt.Errorf("%s: another export is at work on it: %w", e.dir, err), dir.Close())
	}
	e.locked = dir
	return nil
}

// pages takes pages until the last is there.
func (e *export) pages(ctx context.Context, conn *grpc.ClientConn) error {
	patience := &persistence{env: e.env, conn: conn, limit: e.retry, always: e.insist}
	for {
		err := e.stream(ctx, conn, patience)
		if err == nil {
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

// stream takes the pages of one call.
func (e *export) stream(ctx context.Context, conn *grpc.ClientConn, patience *persistence) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := coatcheckv1.NewTokenServiceClient(conn).ExportTokens(ctx, &coatcheckv1.ExportTokensRequest{
		Profile: e.profile, Recipient: e.recipient, PageToken: e.manifest.from(),
	}, grpc.MaxCallRecvMsgSize(maxAnswer))
	if err != nil {
		return err
	}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return errEnded // the last page would have ended this
		}
		if err != nil {
			return err
		}
		patience.progress()
		if err := e.keep(m); err != nil {
			return finalError{err}
		}
		if e.manifest.complete() {
			return nil
		}
	}
}

// keep verifies a page and writes it, and then its line in the manifest.
func (e *export) keep(m *coatcheckv1.ExportTokensResponse) error {
	n := len(e.manifest.pages) + 1
	page := exportPage{
		File: pageName(n), Tokens: m.GetTokenCount(), Damaged: m.GetDamagedCount(), Next: m.GetNextPageToken(), Signature: m.GetSignature(), PublicKey: m.GetPublicKey(),
	}
	if err := page.verify(e.profile, e.manifest.from(), m.GetSealed(), e.key); err != nil {
		return err
	}
	e.key = page.PublicKey
	if e.manifest.size == 0 {
		if err := e.append(e.manifest.exportHead); err != nil {
			return err
		}
	}
	file, err := replaceFile(filepath.Join(e.dir, page.File), m.GetSealed(), func(*os.File) error { return nil })
	if err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	if err := e.append(page); err != nil {
		return err
	}
	e.manifest.pages = append(e.manifest.pages, page)
	e.bar.at(int64(e.manifest.tokens()), 0, time.Now(), false)
	return nil
}

// append makes a line of the manifest durable, and the directory before the
// first.
func (e *export) append(line any) error {
	if !e.made {
		if err := os.MkdirAll(filepath.Dir(e.dir), 0o700); err != nil {
			return err
		}
		// Only who has made the directory locks it: else of two that begin at the same
		// time, the one that is too late could lock the other out.
		if err := os.Mkdir(e.dir, 0o700); err != nil {
			return err
		}
		if err := e.lock(); err != nil {
			return err
		}
		e.made = true
	}
	data, err := json.Marshal(line)
	if err != nil {
		return err
	}
	s, err := openSink(filepath.Join(e.dir, manifestName), false, e.manifest.size)
	if err != nil {
		return err
	}
	_, err = s.Write(append(data, '\n'))
	if err = errors.Join(err, s.sync(), s.close()); err != nil {
		return err
	}
	if e.manifest.size == 0 {
		err = errors.Join(syncDir(e.dir), syncDir(filepath.Dir(filepath.Clean(e.dir))))
	}
	e.manifest.size = s.size
	return err
}

// summary tells what there is.
func (e *export) summary(err error) error {
	m := e.manifest
	if e.json {
		err = errors.Join(err, printJSON(e.env.Stdout, jsonExport{m.tokens(), m.damaged(), len(m.pages), e.key, m.complete()}))
	}
	text := counted(m.tokens(), "token") + " in " + counted(len(m.pages), "page")
	switch {
	case err != nil && len(m.pages) > 0:
		return fmt.Errorf("%w\ncoatcheck: stopped after %s; --resume goes on", err, text)
	case err != nil:
		return err
	}
	if n := m.damaged(); n > 0 {
		fmt.Fprintf(e.env.Stderr, "coatcheck: %s tokens are left out: what is stored of them is damaged\n", grouped(n))
	}
	fmt.Fprintf(e.env.Stderr, "coatcheck: %s, signed by %s\n", text, base64.StdEncoding.EncodeToString(e.key))
	return nil
}

// jsonExport is what --json prints.
type jsonExport struct {
	Tokens    uint64 `json:"tokens"`
	Damaged   uint64 `json:"damaged"`
	Pages     int    `json:"pages"`
	PublicKey []byte `json:"public_key"`
	Done      bool   `json:"done"`
}
