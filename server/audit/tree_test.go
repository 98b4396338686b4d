package audit

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

// The classic vectors of RFC 6962: the roots of the trees over the first of eight inputs,
// as in the reference implementation of Certificate Transparency.
func TestTreeVectors(t *testing.T) {
	roots := []string{
		"6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
		"fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
		"aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
		"d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
		"4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
		"76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
		"ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
		"5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
	}
	var e edge
	for i, input := range []string{"", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"} {
		data, err := hex.DecodeString(input)
		if err != nil {
			t.Fatal(err)
		}
		e.add(nil, tlog.RecordHash(data))
		root := e.root()
		if got := hex.EncodeToString(root[:]); got != roots[i] {
			t.Errorf("root of %d leaves %s, want %s", i+1, got, roots[i])
		}
	}
}

// goldenRoot is the root of the tree over the log of three events that docs/audit.md
// names.
const goldenRoot = "ON6Uc9iitLxbKa2zpj1W0F79UqwzrC1p7HTAXAYQ2Z0="

// goldenKey is what verifies checkpoints that testSigner signs of it.
const goldenKey = "coatcheck/audit/000102030405060708090a0b0c0d0e0f+1184110e+AepKbGPinFIKvvVQexMuxfmVR3auvr57kkIe6mkURtIs"

func TestGoldenTree(t *testing.T) {
	var e edge
	var c chain
	c.each = func(Place, []byte) error {
		e.add(nil, leafOf(c.Head))
		return nil
	}
	if err := c.read("log", newLineReader(bytes.NewReader(golden(t)))); err != nil {
		t.Fatal(err)
	}
	root := e.root()
	if got := base64.StdEncoding.EncodeToString(root[:]); got != goldenRoot {
		t.Errorf("root %s, want %s", got, goldenRoot)
	}
}

// The edge makes the same hashes in the same order as tlog does, and the same root.
func TestEdgeIsThatOfTlog(t *testing.T) {
	var e edge
	var file []byte
	for n := range uint64(300) {
		leaf := tlog.RecordHash([]byte{byte(n), byte(n >> 8)})
		r := treeFile{bytes.NewReader(file)}
		want, err := tlog.StoredHashesForRecordHash(int64(n), leaf, r)
		if err != nil {
			t.Fatal(err)
		}
		got := e.add(nil, leaf)
		if len(got) != len(want) {
			t.Fatalf("leaf %d: %d hashes, want %d", n, len(got), len(want))
		}
		for i, h := range got {
			if h != want[i] {
				t.Fatalf("leaf %d: hash %d differs", n, i)
			}
			file = append(file, h[:]...)
		}
		if int64(len(file)) != treeBytes(n+1) {
			t.Fatalf("the tree of %d has %d bytes, want %d", n+1, len(file), treeBytes(n+1))
		}
		r = treeFile{bytes.NewReader(file)}
		if want, err := tlog.TreeHash(int64(n)+1, r); err != nil || e.root() != want {
			t.Fatalf("root of %d: %v, want %v, %v", n+1, e.root(), want, err)
		}
		if again, err := readEdge(r, n+1); err != nil || again.root() != e.root() || again.size != e.size {
			t.Fatalf("the edge of %d: %v", n+1, err)
		}
	}
}

// Every event is proven in every tree, and every tree to begin with every earlier one;
// a proof of which a bit is wrong proves nothing.
func TestProofs(t *testing.T) {
	var e edge
	var file []byte
	const most = 40
	for n := range uint64(most) {
		for _, h := range e.add(nil, tlog.RecordHash([]byte{byte(n)})) {
			file = append(file, h[:]...)
		}
	}
	r := treeFile{bytes.NewReader(file)}
	rng := rand.New(rand.NewPCG(1, 2))
	for size := uint64(1); size <= most; size++ {
		for at := uint64(1); at <= size; at++ {
			p, err := prove(r, size, at, at)
			if err != nil {
				t.Fatal(err)
			}
			for _, change := range []func(*Proof) *tlog.Hash{
				func(p *Proof) *tlog.Hash { return &p.Root },
				func(p *Proof) *tlog.Hash { return &p.Leaf },
				func(p *Proof) *tlog.Hash { return &p.OldRoot },
				func(p *Proof) *tlog.Hash { return pick(rng, p.Inclusion) },
				func(p *Proof) *tlog.Hash { return pick(rng, p.Consistency) },
			} {
				bad := p
				bad.Inclusion, bad.Consistency = append([]tlog.Hash(nil), p.Inclusion...), append([]tlog.Hash(nil), p.Consistency...)
				h := change(&bad)
				if h == nil {
					continue
				}
				h[rng.IntN(len(h))] ^= 1 << rng.IntN(8)
				if bad.Check() == nil {
					t.Fatalf("a proof of %d in %d with a wrong bit is believed", at, size)
				}
			}
		}
	}
}

// pick returns one of the hashes, nil if there is none.
func pick(rng *rand.Rand, hashes []tlog.Hash) *tlog.Hash {
	if len(hashes) == 0 {
		return nil
	}
	return &hashes[rng.IntN(len(hashes))]
}

// The checkpoint of docs/audit.md is that of the log of docs/audit.md.
func TestGoldenCheckpoint(t *testing.T) {
	root, err := tlog.ParseHash(goldenRoot)
	if err != nil {
		t.Fatal(err)
	}
	sum, err := Verify("log", bytes.NewReader(golden(t)))
	if err != nil {
		t.Fatal(err)
	}
	c := Checkpoint{Log: goldenLog, Events: 3, Root: root, Time: time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC), Head: sum.Head}
	got, err := c.signed(testSigner)
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/checkpoint-v1")
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("checkpoint, %v:\n%s\nwant\n%s", err, got, want)
	}
	if key, err := VerifierKey(goldenLog, testSigner.Public()); err != nil || key != goldenKey {
		t.Errorf("key %s, %v", key, err)
	}
	if again, err := OpenCheckpoint(got, testKey(t, goldenLog)); err != nil || again != c {
		t.Errorf("%+v, %v", again, err)
	}
}
