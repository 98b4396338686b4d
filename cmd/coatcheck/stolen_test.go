package main

import (
	"bytes"
	"crypto/aes"
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
	"github.com/coatcheck/coatcheck/tokenizer"
	"github.com/coatcheck/coatcheck/tokenizer/boltstore"
)

// loot is what a thief has who takes an instance's whole directory and can't
// reach Vault: all its bytes, and whatever in them is in hex or base64.
type loot struct {
	pieces  [][]byte
	windows map[uint64]struct{} // of 8 bytes each
}

var (
	hexRun    = regexp.MustCompile(`[0-9a-fA-F]{16,}`)
	base64Run = regexp.MustCompile(`[0-9A-Za-z+/_-]{16,}`)
)

func steal(t *testing.T, dir string) loot {
	t.Helper()
	l := loot{windows: make(map[uint64]struct{})}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		l.pieces = append(l.pieces, content)
		for _, run := range hexRun.FindAll(content, -1) {
			if raw, err := hex.DecodeString(string(run[:len(run)/2*2])); err == nil {
				l.pieces = append(l.pieces, raw)
			}
		}
		for _, run := range base64Run.FindAll(content, -1) {
			for _, encoding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
				if raw, err := encoding.DecodeString(string(run[:len(run)/4*4])); err == nil {
					l.pieces = append(l.pieces, raw)
				}
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, piece := range l.pieces {
		for i := 0; i+8 <= len(piece); i++ {
			l.windows[binary.BigEndian.Uint64(piece[i:])] = struct{}{}
		}
	}
	delete(l.windows, 0)
	return l
}

// keys calls f with everything of the size that could be a key: each window of
// the loot, and its hash.
func (l loot) keys(size int, f func(key []byte)) (n int) {
	zeros := make([]byte, size)
	seen := make(map[[sha256.Size]byte]bool)
	for _, piece := range l.pieces {
		for i := 0; i+size <= len(piece); i++ {
			key := piece[i : i+size]
			if bytes.Equal(key, zeros) {
				continue
			}
			sum := sha256.Sum256(key)
			if seen[sum] {
				continue
			}
			seen[sum] = true
			f(key)
			f(sum[:size])
			n += 2
		}
	}
	return n
}

// has says whether the first 8 bytes of a digest are in the loot.
func (l loot) has(digest []byte) bool {
	_, ok := l.windows[binary.BigEndian.Uint64(digest)]
	return ok
}

// opens says whether a key decrypts a sealed value, of which the plaintext is
// known: without the tag and additional data, since a thief who only guesses
// needs neither. It is the counter mode inside GCM (NIST SP 800-38D, 7.1).
func opens(key, sealed, plaintext []byte) bool {
	block, err := aes.NewCipher(key)
	if err != nil {
		return false
	}
	var counter, stream [aes.BlockSize]byte
	copy(counter[:], sealed[:12])
	counter[15] = 2
	block.Encrypt(stream[:], counter[:])
	for i := range min(len(plaintext), len(stream)) {
		if stream[i]^sealed[12+i] != plaintext[i] {
			return false
		}
	}
	return true
}

// messages are the forms in which a value could go into a digest.
func messages(values ...string) (list [][]byte) {
	for _, value := range values {
		list = append(list, []byte(value))
		for _, label := range []string{"", "value", "index", "subject", "ssn", "default", "audit token"} { // as Keyring.MAC has it
			labelled := binary.BigEndian.AppendUint32(nil, uint32(len(label)))
			list = append(list, append(append(labelled, label...), value...))
		}
	}
	return list
}

// TestStolenDirectory tries all that a thief could who has everything but
// Vault. Nothing opens, and there is nothing to compare a guess with: were all
// 10⁹ Social Security numbers tried, none would look more likely than another,
// since no digest of the value that was tokenized is there, be it unkeyed or
// under anything that is there.
func TestStolenDirectory(t *testing.T) {
	i := newOnVault(t, "")
	p := i.start(t)
	c := p.callers(t, i.dir)
	const ssn, dashed, card = "536228745", "536-22-8745", "4111111111111111"
	var tokens []string
	for _, v := range [][2]string{{"ssn", ssn}, {"ssn", dashed}, {"ssn", ssn}, {"card", card}, {"note", dashed}} {
		resp, err := c.checkout.Tokenize(inTime(t), &coatcheckv1.TokenizeRequest{Profile: v[0], Value: v[1], Metadata: map[string]string{"ssn": ssn}})
		if err != nil {
			t.Fatal(err)
		}
		tokens = append(tokens, resp.GetToken())
	}
	for _, token := range tokens {
		if _, err := c.detokenize(t, token); err != nil {
			t.Fatal(err)
		}
	}
	for _, class := range []coatcheckv1.KeyClass{coatcheckv1.KeyClass_KEY_CLASS_DATA, coatcheckv1.KeyClass_KEY_CLASS_INDEX} {
		if err := c.rotate(t, class); err != nil {
			t.Fatal(err)
		}
	}
	if _, stderr, code := keysCommand(p, i.dir, "rewrap"); code != 0 {
		t.Fatal(stderr)
	}
	keys := i.keyBytes(t)
	p.terminate(t)
	i.Stop()

	stolen := steal(t, i.dir)
	records := readRecords(t, i.dir)[1:] // the first is the key of the checkpoints
	if len(records) != len(tokens) {
		t.Fatalf("%d records, want %d", len(records), len(tokens))
	}
	t.Run("the service doesn't start", func(t *testing.T) {
		i.configure(t, "  start_wait: 200ms\n")
		if code, stderr := run("serve", "--config", i.config); code != 1 {
			t.Errorf("exit code %d: %s", code, stderr)
		}
	})
	t.Run("nothing of it is a key", func(t *testing.T) {
		sealed := records[0].Value // of the SSN
		if !opens(keys[`data key 2 of namespace "default"`], sealed, []byte(ssn)) {
			t.Fatal("the right key doesn't open it: the attack is wrong")
		}
		tried := 0
		for _, size := range []int{16, 24, 32} {
			tried += stolen.keys(size, func(key []byte) {
				if opens(key, sealed, []byte(ssn)) {
					t.Errorf("a record opens under %x", key)
				}
			})
		}
		t.Logf("%d keys tried", tried)
	})
	t.Run("there is no digest of a value", func(t *testing.T) {
		hashes := []func() hash.Hash{md5.New, sha1.New, sha256.New224, sha256.New, sha512.New384, sha512.New, sha512.New512_256}
		tokenMAC := hmac.New(sha256.New, keys[`audit key 1 of namespace "default"`])
		tokenMAC.Write(messages(tokens[0])[7])
		if !stolen.has(tokenMAC.Sum(nil)) {
			t.Fatal("the digest of a token isn't found under the right key: the attack is wrong")
		}
		for _, message := range messages(ssn, dashed, card) {
			for _, h := range hashes {
				unkeyed := h()
				unkeyed.Write(message)
				if stolen.has(unkeyed.Sum(nil)) {
					t.Errorf("an unkeyed digest of %q is there", message)
				}
			}
		}
		tried := 0
		for _, size := range []int{16, 32} {
			tried += stolen.keys(size, func(key []byte) {
				for _, message := range [][]byte{[]byte(ssn), []byte(dashed), messages(ssn)[2]} {
					keyed := hmac.New(sha256.New, key)
					keyed.Write(message)
					if stolen.has(keyed.Sum(nil)) {
						t.Errorf("a digest of %q under %x is there", message, key)
					}
				}
			})
		}
		t.Logf("%d keys tried", tried)
	})
	t.Run("equal values look as different ones do", func(t *testing.T) {
		var ssns [][]byte
		for _, r := range records[:3] {
			ssns = append(ssns, r.Value, r.Details)
		}
		seen := make(map[string]bool)
		for _, sealed := range ssns {
			for k := 0; k+6 <= len(sealed); k++ {
				if part := string(sealed[k : k+6]); seen[part] {
					t.Errorf("two ciphertexts share %x", part)
				} else {
					seen[part] = true
				}
			}
		}
	})
	t.Run("no key lies about", func(t *testing.T) {
		for _, name := range slices.Sorted(maps.Keys(keys)) {
			for form, needle := range forms(keys[name]) {
				for _, piece := range stolen.pieces {
					if bytes.Contains(piece, needle) {
						t.Errorf("%s is there (%s)", name, form)
					}
				}
			}
		}
		for _, piece := range stolen.pieces {
			if strings.Contains(string(piece), i.RootToken) {
				t.Error("a token of Vault is there")
			}
		}
	})
}

// readRecords returns the records of a store that nobody has open, by id.
func readRecords(t *testing.T, dir string) []tokenizer.Record {
	t.Helper()
	store, err := boltstore.Open(filepath.Join(dir, "data", "coatcheck.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	found, err := store.Outdated(t.Context(), "default", 0, 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	return found.Records
}
