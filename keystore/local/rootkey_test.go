package local

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/coatcheck/coatcheck/keystore"
)

var testRoot = bytes.Repeat([]byte{0x5a, 0x17, 0xc3, 0x99}, keystore.KeySize/4)

// weak makes deriving a key quick.
var weak = kdfParams{salt: [16]byte{1, 2, 3}, time: 1, memory: 8, threads: 1}

// testFile returns a root key file; passphrase nil is plain.
func testFile(t testing.TB, passphrase []byte) []byte {
	t.Helper()
	file, err := encodeRootKey(testRoot, passphrase, weak)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func TestDefaultParams(t *testing.T) {
	// RFC 9106, section 4, second recommended option.
	want := kdfParams{salt: [16]byte{9}, time: 3, memory: 65536, threads: 4}
	if got := defaultParams([16]byte{9}); got != want {
		t.Errorf("parameters %+v, want %+v", got, want)
	}
}

func TestEncodeRootKey(t *testing.T) {
	for _, passphrase := range [][]byte{nil, []byte("passphrase")} {
		file := testFile(t, passphrase)
		root, err := decodeRootKey(file, passphrase)
		if err != nil || !bytes.Equal(root, testRoot) {
			t.Errorf("passphrase %q: came back as %d bytes, error %v", passphrase, len(root), err)
		}
		if passphrase != nil && (bytes.Contains(file, []byte("WhfDmVoX")) || bytes.Contains(file, []byte("not encrypted"))) {
			t.Errorf("the encrypted file is:\n%s", file)
		}
	}
}

// What is done to a file on its way through editors, mails and mounts.
func TestDecodeRootKeyAccepts(t *testing.T) {
	block := string(testFile(t, nil))
	block = block[strings.Index(block, "-----BEGIN"):]
	rows := map[string]string{
		"no remarks":       block,
		"other remarks":    "prod, 2026\n\n" + block,
		"blank lines":      "\n\n" + block + "\n \n",
		"no line feed":     strings.TrimSpace(block),
		"CR LF everywhere": strings.ReplaceAll(block, "\n", "\r\n"),
	}
	for name, file := range rows {
		t.Run(name, func(t *testing.T) {
			if root, err := decodeRootKey([]byte(file), nil); err != nil || !bytes.Equal(root, testRoot) {
				t.Errorf("got %d bytes, error %v", len(root), err)
			}
		})
	}
}

func TestDecodeRootKeyRefuses(t *testing.T) {
	plain, encrypted := string(testFile(t, nil)), string(testFile(t, []byte("passphrase")))
	id := headerKeyID + ": " + rootKeyID(testRoot).String() + "\n"
	line := func(name, value string) string { // replaces a header
		i := strings.Index(encrypted, name+": ")
		j := i + strings.Index(encrypted[i:], "\n")
		return encrypted[:i] + name + ": " + value + encrypted[j:]
	}
	replace := func(s, old, new string) string {
		if !strings.Contains(s, old) {
			t.Fatalf("no %q in the file", old)
		}
		return strings.Replace(s, old, new, 1)
	}
	rows := []struct {
		name, file string
		wantErr    error
	}{
		{"nothing", "", ErrFormat},
		{"no block", "root key", ErrFormat},
		{"two blocks", plain + plain, ErrFormat},
		{"a damaged block before a good one", "-----BEGIN COATCHECK ROOT KEY-----\n" + plain, ErrFormat},
		{"text behind the block", plain + "x", ErrFormat},
		{"another type", strings.ReplaceAll(plain, "COATCHECK ROOT KEY", "PRIVATE KEY"), ErrFormat},
		{"no end", strings.TrimSuffix(plain, "-----END COATCHECK ROOT KEY-----\n"), ErrFormat},
		{"no id", replace(plain, id, ""), ErrFormat},
		{"id of another key", replace(plain, id, headerKeyID+": 0123456789abcdef\n"), ErrFormat},
		{"short id", replace(plain, id, id[:len(id)-3]+"\n"), ErrFormat},
		{"id in capitals", replace(plain, id, headerKeyID+": "+strings.ToUpper(rootKeyID(testRoot).String())+"\n"), ErrFormat},
		{"a header more", replace(plain, id, id+"Kdf: none\n"), ErrFormat},
		{"a shorter key", replace(plain, "WhfDmVoXw5k=", "WhfDmVoX"), ErrFormat},
		{"an altered key", replace(plain, "WhfDmVoX", "XhfDmVoX"), ErrFormat},
		{"an encrypted block as a plain one", strings.ReplaceAll(encrypted, "ENCRYPTED ", ""), ErrFormat},
		{"a plain block as an encrypted one", strings.ReplaceAll(plain, "ROOT", "ENCRYPTED ROOT"), ErrFormat},
		{"unknown KDF", line(headerKDF, "scrypt"), ErrFormat},
		{"no KDF", line(headerKDF, ""), ErrFormat},
		{"no salt", line(headerSalt, ""), ErrFormat},
		{"short salt", line(headerSalt, "00"), ErrFormat},
		{"salt in capitals", line(headerSalt, strings.Repeat("AB", 16)), ErrFormat},
		{"time 0", line(headerTime, "0"), ErrFormat},
		{"time over the limit", line(headerTime, "17"), ErrFormat},
		{"time past 32 bits", line(headerTime, "4294967297"), ErrFormat},
		{"time with a zero before", line(headerTime, "01"), ErrFormat},
		{"time with a sign", line(headerTime, "+1"), ErrFormat},
		{"time below zero", line(headerTime, "-1"), ErrFormat},
		{"threads 0", line(headerThreads, "0"), ErrFormat},
		{"threads over the limit", line(headerThreads, "17"), ErrFormat},
		{"threads past 8 bits", line(headerThreads, "257"), ErrFormat},
		{"memory 0", line(headerMemory, "0"), ErrFormat},
		{"memory below what threads need", line(headerMemory, "7"), ErrFormat},
		{"memory below what more threads need", line(headerThreads, "2"), ErrFormat},
		{"memory just over 1 GiB", line(headerMemory, "1048577"), ErrFormat},
		{"memory of 1 TiB", line(headerMemory, "1073741824"), ErrFormat},
		{"another salt", line(headerSalt, strings.Repeat("ab", 16)), ErrPassphrase},
		{"another time", line(headerTime, "2"), ErrPassphrase},
		{"another memory", line(headerMemory, "9"), ErrPassphrase},
		{"another id", line(headerKeyID, "0123456789abcdef"), ErrPassphrase},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			var passphrase []byte
			if strings.Contains(r.file, "BEGIN COATCHECK ENCRYPTED") {
				passphrase = []byte("passphrase")
			}
			root, err := decodeRootKey([]byte(r.file), passphrase)
			if !errors.Is(err, r.wantErr) || root != nil {
				t.Errorf("got %d bytes, error %v; want %v", len(root), err, r.wantErr)
			}
		})
	}
}

// Whatever byte of a file is altered, it opens to the same key or not at all.
func TestDecodeRootKeyAltered(t *testing.T) {
	for _, passphrase := range [][]byte{nil, []byte("passphrase")} {
		file := testFile(t, passphrase)
		refused := 0
		for i := range file {
			for _, mask := range []byte{1, 4, 0x20} {
				altered := bytes.Clone(file)
				altered[i] ^= mask
				if bytes.Contains(altered, []byte(headerMemory+": ")) && !bytes.Contains(altered, []byte(headerMemory+": 8\n")) {
					continue // what asks for more memory is tested above
				}
				root, err := decodeRootKey(altered, passphrase)
				if err != nil {
					refused++
					if !errors.Is(err, ErrFormat) && !errors.Is(err, ErrPassphrase) {
						t.Fatalf("byte %d altered: error %v", i, err)
					}
				} else if !bytes.Equal(root, testRoot) {
					t.Fatalf("byte %d altered: another key", i)
				}
			}
		}
		if block := len(file) - bytes.Index(file, []byte("-----BEGIN")); refused < 2*block {
			t.Errorf("only %d alterations of a block of %d bytes were refused", refused, block)
		}
	}
}

func TestBackendPrintsNoKey(t *testing.T) {
	backend, err := newBackend(testRoot)
	if err != nil {
		t.Fatal(err)
	}
	part := testRoot[:4]
	traces := []string{
		string(part), hex.EncodeToString(part), strings.ToUpper(hex.EncodeToString(part)),
		strings.Trim(fmt.Sprint(part), "[]"), "0x5a, 0x17, 0xc3", "WhfDmV",
		fmt.Sprint(binary.LittleEndian.Uint32(part)), fmt.Sprint(binary.BigEndian.Uint32(part)), // in a key schedule
	}
	type hidden struct{ b Backend }
	for _, v := range []any{backend, *backend, hidden{*backend}, &hidden{*backend}, struct{ b *Backend }{backend}} {
		for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
			printed := fmt.Sprintf(format, v)
			for _, trace := range traces {
				if strings.Contains(printed, trace) {
					t.Errorf("%s of %T shows the key: %q", format, v, printed)
				}
			}
		}
	}
	for _, format := range []string{"%v", "%+v", "%#v", "%x"} {
		if got, want := fmt.Sprintf(format, backend), "local root key "+rootKeyID(testRoot).String(); got != want {
			t.Errorf("%s printed %q, want %q", format, got, want)
		}
	}
}

// Without a passphrase no file makes it work hard, so every file is quick.
func FuzzDecodeRootKey(f *testing.F) {
	f.Add(testFile(f, nil))
	f.Add(testFile(f, []byte("passphrase")))
	for _, name := range []string{"plain-v1.rootkey", "encrypted-v1.rootkey"} {
		file, err := os.ReadFile("testdata/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(file)
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		root, err := decodeRootKey(file, nil)
		if err != nil {
			if !errors.Is(err, ErrFormat) && !errors.Is(err, ErrPassphraseRequired) || root != nil {
				t.Fatalf("got %d bytes, error %v", len(root), err)
			}
			return
		}
		again, err := encodeRootKey(root, nil, kdfParams{})
		if err != nil {
			t.Fatal(err)
		}
		if back, err := decodeRootKey(again, nil); err != nil || !bytes.Equal(back, root) {
			t.Fatalf("%x came back as %x, error %v", root, back, err)
		}
	})
}
