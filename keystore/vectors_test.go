package keystore_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/keystore/keystoretest"
	"github.com/coatcheck/coatcheck/keystore/local"
)

// hexBytes are bytes that are in hex in JSON.
type hexBytes []byte

func (b *hexBytes) UnmarshalText(text []byte) (err error) {
	*b, err = hex.DecodeString(string(text))
	return err
}

var classNames = map[string]keystore.Class{
	"data":    keystore.Data,
	"token":   keystore.Token,
	"index":   keystore.Index,
	"subject": keystore.Subject,
	"audit":   keystore.Audit,
	"fpe":     keystore.FPE,
}

// vectors are those of a file under testdata. Subject has a Secret with each of
// Sealed, fpe has Keys and Encrypted, keyring has all else.
type vectors struct {
	Keys []struct {
		Namespace              string
		Class                  string
		Version                uint32
		Created                int64
		Label, Wrapped, Stored hexBytes
	}
	Sealed []struct {
		Version                               uint32
		Secret, Plaintext, Additional, Sealed hexBytes
	}
	Encrypted []struct {
		Version          uint32
		Block, Encrypted hexBytes
	}
	Permuted []struct {
		Version         uint32
		Block, Permuted hexBytes
	}
	MACs []struct {
		Class     string
		Version   uint32
		Label     string
		Data, Sum hexBytes
	}
}

// readFile reads vectors, which are never regenerated.
func readFile(t testing.TB, name string) (v vectors) {
	t.Helper()
	file, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(file, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func readVectors(t testing.TB) (v vectors) {
	t.Helper()
	v = readFile(t, "keyring-v1.json")
	if len(v.Keys) == 0 || len(v.Sealed) == 0 || len(v.Permuted) == 0 || len(v.MACs) == 0 {
		t.Fatal("testdata/keyring-v1.json lacks vectors")
	}
	return v
}

// vectorBackend opens the root key of the vectors.
func vectorBackend(t testing.TB) keystore.Backend {
	t.Helper()
	file, err := os.ReadFile("local/testdata/plain-v1.rootkey")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "root.key")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	backend, err := local.Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	return backend
}

// vectorKeys parses the keys of the vectors from their stored form. There is no
// audit key among them; one is added.
func vectorKeys(t testing.TB) (keys []keystore.WrappedKey) {
	t.Helper()
	for _, v := range append(readVectors(t).Keys, readFile(t, "fpe-v1.json").Keys...) {
		k, err := keystore.ParseWrappedKey(v.Stored)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k)
	}
	k := keystore.WrappedKey{Namespace: "default", Class: keystore.Audit, Version: 1, Created: time.Unix(1_700_000_000, 0).UTC()}
	var err error
	if k.Wrapped, err = vectorBackend(t).Wrap(t.Context(), bytes.Repeat([]byte{0xa5, 0x5a}, keystore.KeySize/2), k.Label()); err != nil {
		t.Fatal(err)
	}
	return append(keys, k)
}

// vectorRing is the keyring of the vectors: data, token, index and fpe keys of
// versions 1 and 2, a subject and an audit key of version 1.
func vectorRing(t testing.TB) *keystore.Keyring {
	t.Helper()
	ring, err := keystore.New(vectorBackend(t), shelfOf(t, vectorKeys(t)...), keystore.Options{}).Keyring(t.Context(), "default")
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

func shelfOf(t testing.TB, keys ...keystore.WrappedKey) *keystoretest.MemoryShelf {
	t.Helper()
	shelf := new(keystoretest.MemoryShelf)
	if err := shelf.AddWrappedKeys(t.Context(), keys); err != nil {
		t.Fatal(err)
	}
	return shelf
}

func TestVectorsWrappedKey(t *testing.T) {
	for _, v := range append(readVectors(t).Keys, readFile(t, "fpe-v1.json").Keys...) {
		t.Run(v.Class, func(t *testing.T) {
			want := keystore.WrappedKey{
				Namespace: v.Namespace,
				Class:     classNames[v.Class],
				Version:   v.Version,
				Created:   time.Unix(v.Created, 0).UTC(),
				Wrapped:   v.Wrapped,
			}
			got, err := keystore.ParseWrappedKey(v.Stored)
			if err != nil {
				t.Fatal(err)
			}
			if got.String() != want.String() || got.Created != want.Created || !bytes.Equal(got.Wrapped, want.Wrapped) {
				t.Errorf("parsed %+v, want %+v", got, want)
			}
			if stored, err := want.AppendBinary(nil); err != nil || !bytes.Equal(stored, v.Stored) {
				t.Errorf("stored form %x, error %v; want %x", stored, err, v.Stored)
			}
			if !bytes.Equal(want.Label(), v.Label) {
				t.Errorf("label %x, want %x", want.Label(), v.Label)
			}
		})
	}
}

func TestVectorsSubject(t *testing.T) {
	ring, v := vectorRing(t), readFile(t, "subject-v1.json")
	if len(v.Sealed) == 0 {
		t.Fatal("no vectors")
	}
	for _, v := range v.Sealed {
		got, err := ring.OpenFor(nil, v.Version, v.Sealed, v.Additional, (*[keystore.SubjectSecretSize]byte)(v.Secret))
		if err != nil || !bytes.Equal(got, v.Plaintext) {
			t.Errorf("opened to %q, error %v; want %q", got, err, v.Plaintext)
		}
	}
}

func TestVectorsFPE(t *testing.T) {
	ring, v := vectorRing(t), readFile(t, "fpe-v1.json")
	if len(v.Encrypted) == 0 {
		t.Fatal("no vectors")
	}
	for _, v := range v.Encrypted {
		block, err := ring.FPE(v.Version)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 16)
		if block.Encrypt(got, v.Block); !bytes.Equal(got, v.Encrypted) {
			t.Errorf("%x encrypted to %x under fpe key %d, want %x", v.Block, got, v.Version, v.Encrypted)
		}
	}
}

func TestVectorsKeyring(t *testing.T) {
	ring, v := vectorRing(t), readVectors(t)
	for _, class := range []keystore.Class{keystore.Data, keystore.Token, keystore.Index} {
		if got := ring.Versions(class); !slices.Equal(got, []uint32{2, 1}) {
			t.Errorf("%v versions %v, want [2 1]", class, got)
		}
	}
	for _, v := range v.Sealed {
		got, err := ring.Open(nil, v.Version, v.Sealed, v.Additional)
		if err != nil || !bytes.Equal(got, v.Plaintext) {
			t.Errorf("opened to %q, error %v; want %q", got, err, v.Plaintext)
		}
	}
	for _, v := range v.Permuted {
		block := [16]byte(v.Permuted)
		if err := ring.Unpermute(v.Version, &block); err != nil || block != [16]byte(v.Block) {
			t.Errorf("unpermuted %x to %x, error %v; want %x", v.Permuted, block, err, v.Block)
		}
		if v.Version == ring.ActiveVersion(keystore.Token) {
			if version := ring.Permute(&block); version != v.Version || block != [16]byte(v.Permuted) {
				t.Errorf("permuted %x to %x under version %d; want %x", v.Block, block, version, v.Permuted)
			}
		}
	}
	for _, v := range v.MACs {
		class := classNames[v.Class]
		sum, err := ring.MACVersion(class, v.Version, v.Label, v.Data)
		if err != nil || sum != [32]byte(v.Sum) {
			t.Errorf("MACVersion under %s key %d, label %q: %x, error %v; want %x", v.Class, v.Version, v.Label, sum, err, v.Sum)
		}
		if v.Version == ring.ActiveVersion(class) {
			sum, version, err := ring.MAC(class, v.Label, v.Data)
			if err != nil || version != v.Version || sum != [32]byte(v.Sum) {
				t.Errorf("MAC under %s key %d, label %q: %x, error %v; want %x", v.Class, version, v.Label, sum, err, v.Sum)
			}
		}
	}
}
