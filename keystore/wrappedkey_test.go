package keystore_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/coatcheck/coatcheck/keystore"
)

// The numbers are in every stored key and in every label: changing one loses
// data.
func TestClassNumbers(t *testing.T) {
	for _, c := range []struct {
		class  keystore.Class
		number uint8
		name   string
	}{
		{keystore.Data, 1, "data"},
		{keystore.Token, 2, "token"},
		{keystore.Index, 3, "index"},
		{keystore.Subject, 4, "subject"},
		{keystore.Audit, 5, "audit"},
		{keystore.FPE, 6, "fpe"},
		{keystore.Class(7), 7, "class(7)"},
	} {
		if uint8(c.class) != c.number || c.class.String() != c.name {
			t.Errorf("class %d is %q, want %d and %q", c.class, c.class, c.number, c.name)
		}
	}
}

// Keys of which nobody can know that they aren't needed are never retired.
func TestClassPermanent(t *testing.T) {
	for _, class := range keystore.Classes() {
		if want := class == keystore.Audit || class == keystore.FPE; class.Permanent() != want {
			t.Errorf("%v keys: permanent %v", class, !want)
		}
	}
}

// validKey returns a wrapped key with the change made to it.
func validKey(change func(k *keystore.WrappedKey)) keystore.WrappedKey {
	k := keystore.WrappedKey{
		Namespace: "default",
		Class:     keystore.Data,
		Version:   1,
		Created:   time.Unix(1_700_000_000, 0).UTC(),
		Wrapped:   []byte("wrapped"),
	}
	change(&k)
	return k
}

func TestWrappedKeyAppendBinary(t *testing.T) {
	rows := []struct {
		name    string
		change  func(k *keystore.WrappedKey)
		wantErr bool
	}{
		{"as it is", func(*keystore.WrappedKey) {}, false},
		{"longest namespace", func(k *keystore.WrappedKey) { k.Namespace = strings.Repeat("n", keystore.MaxNamespace) }, false},
		{"largest version", func(k *keystore.WrappedKey) { k.Version = 1<<32 - 1 }, false},
		{"last class", func(k *keystore.WrappedKey) { k.Class = keystore.FPE }, false},
		{"1970", func(k *keystore.WrappedKey) { k.Created = time.Unix(0, 0) }, false},
		{"9999", func(k *keystore.WrappedKey) { k.Created = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC) }, false},
		{"another zone", func(k *keystore.WrappedKey) { k.Created = k.Created.In(time.FixedZone("", 3600)) }, false},
		{"largest wrapped", func(k *keystore.WrappedKey) { k.Wrapped = make([]byte, keystore.MaxWrapped) }, false},
		{"no namespace", func(k *keystore.WrappedKey) { k.Namespace = "" }, true},
		{"too long a namespace", func(k *keystore.WrappedKey) { k.Namespace = strings.Repeat("n", keystore.MaxNamespace+1) }, true},
		{"broken UTF-8", func(k *keystore.WrappedKey) { k.Namespace = "\xff" }, true},
		{"no class", func(k *keystore.WrappedKey) { k.Class = 0 }, true},
		{"unknown class", func(k *keystore.WrappedKey) { k.Class = 7 }, true},
		{"version 0", func(k *keystore.WrappedKey) { k.Version = 0 }, true},
		{"no time", func(k *keystore.WrappedKey) { k.Created = time.Time{} }, true},
		{"before 1970", func(k *keystore.WrappedKey) { k.Created = time.Unix(-1, 0) }, true},
		{"after 9999", func(k *keystore.WrappedKey) { k.Created = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) }, true},
		{"no whole second", func(k *keystore.WrappedKey) { k.Created = k.Created.Add(1) }, true},
		{"nothing wrapped", func(k *keystore.WrappedKey) { k.Wrapped = nil }, true},
		{"too much wrapped", func(k *keystore.WrappedKey) { k.Wrapped = make([]byte, keystore.MaxWrapped+1) }, true},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			k := validKey(r.change)
			got, err := k.AppendBinary([]byte("before"))
			if r.wantErr {
				if err == nil || string(got) != "before" {
					t.Fatalf("got %q, error %v; want dst and an error", got, err)
				}
				return
			}
			if err != nil || !bytes.HasPrefix(got, []byte("before")) {
				t.Fatalf("got %q, error %v", got, err)
			}
			parsed, err := keystore.ParseWrappedKey(got[len("before"):])
			if err != nil {
				t.Fatal(err)
			}
			if parsed.String() != k.String() || !parsed.Created.Equal(k.Created) || parsed.Created.Location() != time.UTC ||
				!bytes.Equal(parsed.Wrapped, k.Wrapped) || !bytes.Equal(parsed.Label(), k.Label()) {
				t.Errorf("came back as %+v, was %+v", parsed, k)
			}
		})
	}
}

func TestParseWrappedKeyRefuses(t *testing.T) {
	valid, err := validKey(func(*keystore.WrappedKey) {}).AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	set := func(i int, v byte) []byte {
		b := bytes.Clone(valid)
		b[i] = v
		return b
	}
	rows := map[string][]byte{
		"nothing":                      nil,
		"format 0":                     set(0, 0),
		"format 2":                     set(0, 2),
		"class 0":                      set(1, 0),
		"class 7":                      set(1, 7),
		"version 0":                    set(5, 0),
		"created after 9999":           set(7, 1),
		"created before 1970":          set(6, 0xff),
		"no namespace":                 set(14, 0),
		"namespace past the end":       set(14, 255),
		"namespace up to the end":      set(14, byte(len(valid)-15)),
		"namespace not UTF-8":          set(15, 0xff),
		"wrapped bytes over the limit": append(bytes.Clone(valid), make([]byte, keystore.MaxWrapped)...),
	}
	for n := range len(valid) - len("wrapped") + 1 {
		rows["cut"+strings.Repeat(".", n)] = valid[:n]
	}
	for name, b := range rows {
		t.Run(name, func(t *testing.T) {
			if k, err := keystore.ParseWrappedKey(b); !errors.Is(err, keystore.ErrDamaged) {
				t.Errorf("got %v, error %v; want ErrDamaged", k, err)
			}
		})
	}
}

func TestParseWrappedKeySharesNoMemory(t *testing.T) {
	stored, err := validKey(func(*keystore.WrappedKey) {}).AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	k, err := keystore.ParseWrappedKey(stored)
	if err != nil {
		t.Fatal(err)
	}
	clear(stored)
	if string(k.Wrapped) != "wrapped" || k.Namespace != "default" {
		t.Errorf("the key changed with the bytes that it was parsed from: %+v", k)
	}
}

// Two keys that differ in anything have different labels.
func TestWrappedKeyLabelIsUnambiguous(t *testing.T) {
	changes := map[string]func(k *keystore.WrappedKey){
		"as it is":         func(*keystore.WrappedKey) {},
		"namespace":        func(k *keystore.WrappedKey) { k.Namespace = "defaul" },
		"longer namespace": func(k *keystore.WrappedKey) { k.Namespace = "default\x00" },
		"class":            func(k *keystore.WrappedKey) { k.Class = keystore.Token },
		"version":          func(k *keystore.WrappedKey) { k.Version = 1 << 24 },
		"created":          func(k *keystore.WrappedKey) { k.Created = k.Created.Add(time.Second) },
		"no namespace":     func(k *keystore.WrappedKey) { k.Namespace = "" },
	}
	seen := make(map[string]string)
	for name, change := range changes {
		label := string(validKey(change).Label())
		if other, ok := seen[label]; ok {
			t.Errorf("%q and %q have the same label", name, other)
		}
		seen[label] = name
	}
}

func FuzzParseWrappedKey(f *testing.F) {
	for _, k := range vectorKeys(f) {
		stored, err := k.AppendBinary(nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(stored)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := keystore.ParseWrappedKey(b)
		if err != nil {
			if !errors.Is(err, keystore.ErrDamaged) {
				t.Fatalf("error %v, want ErrDamaged", err)
			}
			return
		}
		if stored, err := k.AppendBinary(nil); err != nil || !bytes.Equal(stored, b) {
			t.Fatalf("parsed from %x, stored as %x, error %v", b, stored, err)
		}
	})
}
