package audit

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/coatcheck/coatcheck/tokenizer"
)

// Checkpoint says what a log was: the hash of the tree over its first events. Signed,
// it is a note of the form of C2SP signed-note, whose text is that of C2SP
// tlog-checkpoint with two lines more:
//
//	coatcheck/audit/<log id>
//	<events>
//	<root of the tree, base64>
//	time <RFC 3339, UTC, whole seconds>
//	head <hash of the last of the events, hexadecimal>
type Checkpoint struct {
	Log    tokenizer.LogID
	Events uint64         // how many it covers: those with the numbers 1 to Events
	Root   tlog.Hash      // of the tree over them
	Time   time.Time      // when it was signed
	Head   tokenizer.Hash // hash of event number Events
}

// originPrefix begins the origin of a checkpoint, behind which the id of the log stands.
const originPrefix = "coatcheck/audit/"

// Origin returns the origin of a log's checkpoints, which is the name of its key too.
func Origin(log tokenizer.LogID) string { return originPrefix + hex.EncodeToString(log[:]) }

// What the last two lines of a checkpoint begin with.
const (
	timeLine = "time "
	headLine = "head "
)

// noteLines is how many lines a signed checkpoint has: five, an empty one and one with
// the signature.
const noteLines = 7

// maxNote bounds the bytes of a signed checkpoint.
const maxNote = 1 << 10

// text returns what is signed.
func (c Checkpoint) text() string {
	return fmt.Sprintf("%s\n%d\n%s\n%s%s\n%s%s\n", Origin(c.Log), c.Events, c.Root,
		timeLine, c.Time.UTC().Format(time.RFC3339), headLine, hex.EncodeToString(c.Head[:]))
}

// parseCheckpoint reads what was signed. It takes no other than what text makes, byte for
// byte; all else is ErrBroken.
func parseCheckpoint(text string) (Checkpoint, error) {
	var c Checkpoint
	lines := strings.Split(text, "\n")
	for len(lines) < 5 {
		lines = append(lines, "")
	}
	id, _ := strings.CutPrefix(lines[0], originPrefix)
	_, _ = hex.Decode(c.Log[:], []byte(id[:min(len(id), 2*len(c.Log))]))
	c.Events, _ = strconv.ParseUint(lines[1], 10, 63)
	c.Root, _ = tlog.ParseHash(lines[2])
	c.Time, _ = time.Parse(time.RFC3339, strings.TrimPrefix(lines[3], timeLine))
	head, _ := strings.CutPrefix(lines[4], headLine)
	_, _ = hex.Decode(c.Head[:], []byte(head[:min(len(head), 2*len(c.Head))]))
	if c.Events == 0 || c.text() != text {
		return Checkpoint{}, fmt.Errorf("%w: not a checkpoint of an audit log", ErrBroken)
	}
	return c, nil
}

// VerifierKey returns the public key of a log's checkpoints as a line for verifiers: the
// form of C2SP signed-note, NAME+HASH+KEY.
func VerifierKey(log tokenizer.LogID, public ed25519.PublicKey) (string, error) {
	return note.NewEd25519VerifierKey(Origin(log), public)
}

// signed returns the note of a checkpoint.
func (c Checkpoint) signed(signer tokenizer.Signer) ([]byte, error) {
	key, err := noteKey(c.Log, signer)
	if err != nil {
		return nil, err
	}
	return note.Sign(&note.Note{Text: c.text()}, key)
}

// OpenCheckpoint returns the checkpoint of a note which one of the keys has signed.
//
// Errors: ErrBroken.
func OpenCheckpoint(signed []byte, keys ...note.Verifier) (Checkpoint, error) {
	n, err := note.Open(signed, note.VerifierList(keys...))
	if err != nil {
		return Checkpoint{}, fmt.Errorf("%w: a checkpoint: %w", ErrBroken, err)
	}
	c, err := parseCheckpoint(n.Text)
	if err != nil {
		return Checkpoint{}, err
	}
	// One signature, of the key with the name of the log, in the one way to write it.
	sig := n.Sigs[0]
	raw, err := base64.StdEncoding.Strict().DecodeString(sig.Base64)
	line := fmt.Sprintf("%s\n— %s %s\n", n.Text, Origin(c.Log), base64.StdEncoding.EncodeToString(raw))
	if err != nil || line != string(signed) {
		return Checkpoint{}, fmt.Errorf("%w: a checkpoint is not signed as checkpoints of its log are", ErrBroken)
	}
	return c, nil
}

// unverified returns the checkpoint of a note, whoever has signed it.
func unverified(signed []byte) (Checkpoint, error) {
	text, _, found := strings.Cut(string(signed), "\n\n")
	if !found {
		return Checkpoint{}, fmt.Errorf("%w: not a signed checkpoint", ErrBroken)
	}
	return parseCheckpoint(text + "\n")
}

// logKey is a signer in the form of package note.
type logKey struct {
	note.Verifier
	signer tokenizer.Signer
}

func noteKey(log tokenizer.LogID, signer tokenizer.Signer) (logKey, error) {
	key, err := VerifierKey(log, signer.Public())
	if err != nil {
		return logKey{}, err
	}
	verifier, err := note.NewVerifier(key)
	return logKey{verifier, signer}, err
}

// Sign implements note.Signer.
func (k logKey) Sign(message []byte) ([]byte, error) { return k.signer.Sign(message), nil }
