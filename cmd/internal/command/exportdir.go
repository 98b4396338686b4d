package command

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"filippo.io/age"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/server"
)

// manifestName is the name of the manifest in the directory of an export.
const manifestName = "manifest.jsonl"

// An export is a directory of pages, each an age file, and a manifest: a line
// that says what is exported, and a line for each page, in order. A page counts
// once its line is there.
type (
	exportHead struct {
		Version   int    `json:"version"`
		Profile   string `json:"profile"`
		Recipient string `json:"recipient"`
	}
	exportPage struct {
		File      string `json:"file"`
		Tokens    uint32 `json:"tokens"`
		Damaged   uint32 `json:"damaged"`         // tokens that are left out
		Next      string `json:"next_page_token"` // "" on the last page
		Signature []byte `json:"signature"`
		PublicKey []byte `json:"public_key"`
	}
	exportManifest struct {
		exportHead
		pages []exportPage
		size  int64 // of what counts; behind it there may be half a line
	}
)

// exportVersion is the version of the manifest.
const exportVersion = 1

// readManifest reads the manifest of an export.
func readManifest(dir string) (*exportManifest, error) {
	path := filepath.Join(dir, manifestName)
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	m := new(exportManifest)
	lines := bufio.NewReader(file)
	for n := 1; ; n++ {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			break // half a line is one that was being written when the export stopped
		}
		if err != nil {
			return nil, err
		}
		m.size += int64(len(line))
		if n == 1 {
			err = json.Unmarshal(line, &m.exportHead)
		} else {
			m.pages = append(m.pages, exportPage{})
			err = json.Unmarshal(line, &m.pages[n-2])
		}
		if err != nil || m.Version != exportVersion || n > 1 && m.pages[n-2].File != pageName(n-1) {
			return nil, fmt.Errorf("%s: line %d is not that of a manifest", path, n)
		}
	}
	return m, nil
}

// complete says whether the last page is there.
func (m *exportManifest) complete() bool { return len(m.pages) > 0 && m.from() == "" }

// from is where the export goes on.
func (m *exportManifest) from() string { return m.before(len(m.pages)) }

// before is the page token by which the n-th page, from 0, was asked for.
func (m *exportManifest) before(n int) string {
	if n == 0 {
		return ""
	}
	return m.pages[n-1].Next
}

// tokens is how many tokens there are.
func (m *exportManifest) tokens() (n uint64) {
	for _, p := range m.pages {
		n += uint64(p.Tokens)
	}
	return n
}

// damaged is how many tokens were left out.
func (m *exportManifest) damaged() (n uint64) {
	for _, p := range m.pages {
		n += uint64(p.Damaged)
	}
	return n
}

// pageName is the name of the n-th page, from 1.
func pageName(n int) string { return fmt.Sprintf("page-%06d.age", n) }

// errSignature says that a page isn't signed by the store that it is said to be
// from.
var errSignature = errors.New("the signature of the page is not good")

// verify checks the signature of a page, which was asked for by the page token
// from, and that the key is the one of the pages before it, or the one that is
// expected.
func (p exportPage) verify(profile, from string, sealed, key []byte) error {
	if len(p.PublicKey) != ed25519.PublicKeySize || key != nil && !bytes.Equal(p.PublicKey, key) {
		return fmt.Errorf("%s: it is not signed by the key that is expected", p.File)
	}
	message := server.ExportMessage(profile, from, &coatcheckv1.ExportTokensResponse{
		Sealed: sealed, TokenCount: p.Tokens, DamagedCount: p.Damaged, NextPageToken: p.Next,
	})
	if !ed25519.Verify(p.PublicKey, message, p.Signature) {
		return fmt.Errorf("%s: %w", p.File, errSignature)
	}
	return nil
}

// exportSource reads the lines of an export, as if they were one file.
type exportSource struct {
	dir        string
	manifest   *exportManifest
	modified   inputState
	identities []age.Identity
	key        []byte // that has to have signed the pages; nil: any, but one
}

// openExport opens a directory, of which all pages have to be there.
func openExport(dir, identityFile string, key []byte) (*exportSource, error) {
	file, err := os.Open(identityFile)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	s := &exportSource{dir: dir, key: key}
	if s.identities, err = age.ParseIdentities(file); err != nil {
		// What age says may repeat a line of the file.
		return nil, fmt.Errorf("--identity %s: is not a file of age identities", identityFile)
	}
	if s.manifest, err = readManifest(dir); err != nil {
		return nil, err
	}
	if !s.manifest.complete() {
		return nil, fmt.Errorf("%s: the export is not complete; coatcheck export --resume goes on with it", dir)
	}
	info, err := os.Stat(filepath.Join(dir, manifestName))
	if err != nil {
		return nil, err
	}
	s.modified = inputState{info.Size(), info.ModTime()}
	return s, nil
}

func (s *exportSource) name() string      { return s.dir }
func (s *exportSource) state() inputState { return s.modified }
func (s *exportSource) size() int64       { return 0 }
func (s *exportSource) close() error      { return nil }

// open decrypts page by page, and skips what is before the offset.
func (s *exportSource) open(offset int64) (io.Reader, error) {
	r := &exportReader{source: s, key: s.key}
	_, err := io.CopyN(io.Discard, r, offset)
	return r, err
}

// exportReader reads pages one after the other.
type exportReader struct {
	source *exportSource
	next   int
	key    []byte
	page   io.Reader // nil: none is open
}

func (r *exportReader) Read(p []byte) (int, error) {
	for {
		if r.page != nil {
			n, err := r.page.Read(p)
			if errors.Is(err, io.EOF) {
				r.page, err = nil, nil
			}
			if n > 0 || err != nil {
				return n, err
			}
			continue
		}
		if r.next == len(r.source.manifest.pages) {
			return 0, io.EOF
		}
		if err := r.turn(); err != nil {
			return 0, err
		}
	}
}

// turn opens the next page.
func (r *exportReader) turn() error {
	page := r.source.manifest.pages[r.next]
	sealed, err := os.ReadFile(filepath.Join(r.source.dir, page.File))
	if err != nil {
		return err
	}
	if err := page.verify(r.source.manifest.Profile, r.source.manifest.before(r.next), sealed, r.key); err != nil {
		return err
	}
	plain, err := age.Decrypt(bytes.NewReader(sealed), r.source.identities...)
	if err != nil {
		return fmt.Errorf("%s: %w", page.File, err)
	}
	r.key, r.page = page.PublicKey, plain
	r.next++
	return nil
}
