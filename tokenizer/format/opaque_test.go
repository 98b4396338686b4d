package format

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"hash/crc32"
	"math/big"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// opaqueVectors is the content of testdata/opaque.json.
type opaqueVectors struct {
	Valid []struct {
		Name, Profile, Block, Token string
		Version                     uint32
	}
	Invalid []struct {
		Name, Token string
		Failure     tokenError
	}
}

func readVectors(t testing.TB) (vectors opaqueVectors) {
	t.Helper()
	content, err := os.ReadFile("testdata/opaque.json")
	if err != nil {
		t.Fatal(err)
	}
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&vectors); err != nil {
		t.Fatal(err)
	}
	return vectors
}

func TestOpaqueVectors(t *testing.T) {
	vectors := readVectors(t)
	for _, v := range vectors.Valid {
		t.Run(v.Name, func(t *testing.T) {
			var want [16]byte
			if n, err := hex.Decode(want[:], []byte(v.Block)); n != 16 || err != nil {
				t.Fatalf("block %q: %d bytes, %v", v.Block, n, err)
			}
			if got := AppendOpaque([]byte("before "), v.Profile, v.Version, &want); string(got) != "before "+v.Token {
				t.Errorf("AppendOpaque gives %q, want %q", got, v.Token)
			}
			profile, version, block, err := ParseOpaque(v.Token)
			if err != nil || profile != v.Profile || version != v.Version || block != want {
				t.Errorf("ParseOpaque gives %q, %d, %x, %v", profile, version, block, err)
			}
		})
	}
	for _, v := range vectors.Invalid {
		t.Run(v.Name, func(t *testing.T) {
			checkBadToken(t, v.Token, v.Failure)
		})
	}
}

// checkBadToken checks that a token is refused, for the reason given if one is.
func checkBadToken(t *testing.T, token string, failure tokenError) {
	t.Helper()
	profile, version, block, err := ParseOpaque(token)
	if !errors.Is(err, ErrToken) || errors.Is(err, ErrValue) || longestDigits(err.Error()) > 0 {
		t.Fatalf("%q: error %v", token, err)
	}
	if failure != "" && err != failure {
		t.Fatalf("%q: error %q, want %q", token, err, failure)
	}
	if profile != "" || version != 0 || block != [16]byte{} {
		t.Fatalf("%q: %q, %d, %x beside error %v", token, profile, version, block, err)
	}
}

// Each of the classes occurs among the vectors.
func TestOpaqueFailures(t *testing.T) {
	seen := map[tokenError]bool{}
	for _, v := range readVectors(t).Invalid {
		seen[v.Failure] = true
	}
	for _, class := range []tokenError{errTokenLength, errTokenPrefix, errTokenProfile, errTokenChecksum, errTokenVersion, errTokenBlock} {
		if !seen[class] {
			t.Errorf("no vector fails with %q", class)
		}
	}
}

func TestOpaqueLength(t *testing.T) {
	block := [16]byte(bytes.Repeat([]byte{0xFF}, 16))
	if got := AppendOpaque(nil, strings.Repeat("z", maxProfile), 1<<32-1, &block); len(got) != MaxOpaqueLen || MaxOpaqueLen != 69 {
		t.Errorf("the longest has %d bytes, MaxOpaqueLen is %d", len(got), MaxOpaqueLen)
	}
	if got := AppendOpaque(nil, "z", 1, &[16]byte{}); len(got) != minOpaqueLen || minOpaqueLen != 34 {
		t.Errorf("the shortest has %d bytes, minOpaqueLen is %d", len(got), minOpaqueLen)
	}
}

func TestOpaquePanics(t *testing.T) {
	for _, c := range []struct {
		profile string
		version uint32
	}{{"card", 0}, {"", 1}, {"Card", 1}, {strings.Repeat("a", 32), 1}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("no panic for %q, %d", c.profile, c.version)
				}
			}()
			AppendOpaque(nil, c.profile, c.version, &[16]byte{})
		}()
	}
}

// No token can be changed in one byte, whatever its new value, nor lose or
// double a byte, nor be cut at either end, and be read.
func TestOpaqueOneChange(t *testing.T) {
	for _, v := range readVectors(t).Valid {
		for i := range len(v.Token) {
			changed := []byte(v.Token)
			for c := range 256 {
				changed[i] = byte(c)
				if changed[i] != v.Token[i] {
					checkBadToken(t, string(changed), "")
				}
			}
			checkBadToken(t, v.Token[:i], "")
			checkBadToken(t, v.Token[i+1:], "")
			checkBadToken(t, v.Token[:i]+v.Token[i+1:], "")
			checkBadToken(t, v.Token[:i+1]+v.Token[i:], "")
		}
		for c := range 256 {
			checkBadToken(t, v.Token+string([]byte{byte(c)}), "")
			checkBadToken(t, string([]byte{byte(c)})+v.Token, "")
		}
		for _, other := range []string{strings.ToLower(v.Token), strings.ToUpper(v.Token)} {
			if other != v.Token {
				checkBadToken(t, other, "")
			}
		}
	}
}

func TestValidProfile(t *testing.T) {
	pattern := regexp.MustCompile(`\A[a-z][a-z0-9-]{0,30}\z`)
	names := []string{"", "a", "card", "us-card-2", "a-", "-a", "1a", "A", "aB", "a_b", "a.b", "a b", "a\n", "ä", "aä",
		strings.Repeat("a", 31), strings.Repeat("a", 32)}
	for c := range 256 {
		names = append(names, string([]byte{byte(c)}), string([]byte{'a', byte(c)}))
	}
	for _, name := range names {
		if got, want := ValidProfile(name), pattern.MatchString(name); got != want {
			t.Errorf("ValidProfile(%q) = %v", name, got)
		}
	}
}

func TestOpaquePattern(t *testing.T) {
	pattern := regexp.MustCompile(OpaquePattern)
	vectors := readVectors(t)
	for _, v := range vectors.Valid {
		for _, text := range []string{"", "token=", `{"token":"`, "https://example.com/", "ä"} {
			if got := pattern.FindAllString(text+v.Token+strings.Repeat(".", len(text)), -1); !slices.Equal(got, []string{v.Token}) {
				t.Errorf("after %q: found %q, want %q", text, got, v.Token)
			}
		}
	}
	card := vectors.Valid[2].Token
	for _, text := range []string{
		"", "cc_", "cc_card_", card[:20], strings.ToUpper(card), "x" + card, card + "00000000",
		"cc_card_0" + card[9:], "cc__" + card[8:], "git@github.com:cc_tools/repository.git",
	} {
		if got := pattern.FindString(text); got != "" {
			t.Errorf("found %q in %q", got, text)
		}
	}
	doc, err := os.ReadFile("format.go")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(doc), "//\t"+OpaquePattern+"\n") {
		t.Error("the package comment shows another pattern")
	}
}

func TestChecksum(t *testing.T) {
	for n := range MaxOpaqueLen + 1 {
		text := make([]byte, n)
		for i := range text {
			text[i] = byte(rand.Uint32())
		}
		want := crc32.ChecksumIEEE(text)
		if checksum(text) != want || checksum(string(text)) != want {
			t.Fatalf("checksum of %x is not %08x", text, want)
		}
	}
}

// The 128-bit arithmetic agrees with that of math/big.
func FuzzBlock(f *testing.F) {
	f.Add(make([]byte, 16))
	f.Add(bytes.Repeat([]byte{0xFF}, 16))
	f.Add(new(big.Int).Exp(big.NewInt(62), big.NewInt(20), nil).FillBytes(make([]byte, 16)))
	f.Fuzz(func(t *testing.T, content []byte) {
		if len(content) != 16 {
			t.Skip()
		}
		block := [16]byte(content)
		got := string(appendBlock(nil, &block))
		want := reference(new(big.Int).SetBytes(content))
		if got != want {
			t.Fatalf("%x is %q, want %q", content, got, want)
		}
		if back, ok := parseBlock(got); !ok || back != block {
			t.Fatalf("%q is %x, %v", got, back, ok)
		}
		// Every number from 2¹²⁸ to 62²² is refused.
		over := new(big.Int).Add(new(big.Int).SetBytes(content), new(big.Int).Lsh(big.NewInt(1), 128))
		limit := new(big.Int).Exp(big.NewInt(62), big.NewInt(blockDigits), nil)
		for ; over.Cmp(limit) < 0; over.Add(over, over) {
			if _, ok := parseBlock(reference(over)); ok {
				t.Fatalf("%x was read", over)
			}
		}
	})
}

// reference writes a number in 22 digits by way of math/big, whose base62 has
// the lower case first.
func reference(n *big.Int) string {
	text := strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z':
			return r - 'a' + 'A'
		case 'A' <= r && r <= 'Z':
			return r - 'A' + 'a'
		}
		return r
	}, n.Text(62))
	return strings.Repeat("0", blockDigits-len(text)) + text
}

// What parses is written back byte for byte.
func FuzzParseOpaque(f *testing.F) {
	vectors := readVectors(f)
	for _, v := range vectors.Valid {
		f.Add(v.Token)
	}
	for _, v := range vectors.Invalid {
		f.Add(v.Token)
	}
	pattern := regexp.MustCompile(`\A(?:` + OpaquePattern + `)\z`)
	f.Fuzz(func(t *testing.T, token string) {
		// A fuzzer can't guess a checksum: the token is tried with the right one
		// as well.
		tries := []string{token}
		if crcStart := len(token) - crcDigits; crcStart >= 0 {
			crc := appendBase62(nil, uint64(checksum(token[:crcStart])), crcDigits)
			tries = append(tries, token[:crcStart]+string(crc))
		}
		for _, token := range tries {
			profile, version, block, err := ParseOpaque(token)
			if err != nil {
				checkBadToken(t, token, "")
				continue
			}
			if got := AppendOpaque(nil, profile, version, &block); string(got) != token {
				t.Fatalf("%q is written back as %q", token, got)
			}
			if !pattern.MatchString(token) {
				t.Fatalf("OpaquePattern does not match %q", token)
			}
		}
	})
}

// What is written is read.
func FuzzAppendOpaque(f *testing.F) {
	f.Add("card", uint32(1), make([]byte, 16))
	f.Fuzz(func(t *testing.T, profile string, version uint32, content []byte) {
		if !ValidProfile(profile) || version == 0 || len(content) != 16 {
			t.Skip()
		}
		want := [16]byte(content)
		token := string(AppendOpaque(nil, profile, version, &want))
		gotProfile, gotVersion, got, err := ParseOpaque(token)
		if err != nil || gotProfile != profile || gotVersion != version || got != want {
			t.Fatalf("%q: %q, %d, %x, %v", token, gotProfile, gotVersion, got, err)
		}
	})
}
