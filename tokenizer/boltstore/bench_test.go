package boltstore

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// openBench is a store with the keys of benchRecord and benchClaim.
func openBench(b *testing.B) *Store {
	b.Helper()
	s, err := Open(filepath.Join(b.TempDir(), "store.db"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	var keys []keystore.WrappedKey
	for _, class := range []keystore.Class{keystore.Data, keystore.Token, keystore.Index} {
		keys = append(keys, keystore.WrappedKey{Namespace: "default", Class: class, Version: 1, Created: time.Unix(1, 0), Wrapped: make([]byte, 400)})
	}
	if _, err := s.Commit(context.Background(), tokenizer.Unit{Keys: keys, Event: event}); err != nil {
		b.Fatal(err)
	}
	return s
}

func benchEvent(tokenizer.Outcome) []byte { return make([]byte, 400) }

func benchRecord(id uint64) tokenizer.Record {
	return tokenizer.Record{ID: id, Namespace: "default", Profile: "card", KeyVersion: 1, TokenVersion: 1, Value: make([]byte, 44)}
}

// benchClaim is like the entry of a value in the index: a sum, and an id.
func benchClaim(random *rand.Rand, id uint64) tokenizer.Claim {
	key := append(make([]byte, 0, 32), "c\x07default\x00\x00\x00\x01"...)
	key = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(key, random.Uint64()), random.Uint64())
	return tokenizer.Claim{
		Key: key, New: binary.BigEndian.AppendUint64(nil, id),
		Under: keystore.KeyID{Namespace: "default", Class: keystore.Index, Version: 1},
	}
}

// BenchmarkCommit commits units of one record, 128 at once on two processors.
func BenchmarkCommit(b *testing.B) {
	s := openBench(b)
	b.ReportAllocs()
	b.SetParallelism(64)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			id, err := s.ReserveIDs(context.Background(), 1)
			if err != nil {
				b.Error(err)
			}
			if _, err = s.Commit(context.Background(), tokenizer.Unit{Records: []tokenizer.Record{benchRecord(id)}, Event: benchEvent}); err != nil {
				b.Error(err)
			}
		}
	})
}

// BenchmarkSpend commits units of one record, some with a spend on one budget, 128 at
// once on two processors.
func BenchmarkSpend(b *testing.B) {
	budget := tokenizer.Budget{ID: [16]byte{1}, Expires: time.Unix(2_000_000_000, 0)}
	for _, row := range []struct {
		name  string
		spend func(id uint64) []tokenizer.Spend
	}{
		{"none", func(uint64) []tokenizer.Spend { return nil }},
		{"an amount", func(uint64) []tokenizer.Spend {
			return []tokenizer.Spend{{Budget: budget, Limit: 1 << 60, Amount: 1}}
		}},
		{"a new member", func(id uint64) []tokenizer.Spend {
			var member [16]byte
			binary.BigEndian.PutUint64(member[:], id*0x9e3779b97f4a7c15) // anywhere among the others
			return []tokenizer.Spend{{Budget: budget, Limit: 1 << 60, Members: [][16]byte{member}}}
		}},
	} {
		b.Run(row.name, func(b *testing.B) {
			s := openBench(b)
			b.ReportAllocs()
			b.SetParallelism(64)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					id, err := s.ReserveIDs(context.Background(), 1)
					if err != nil {
						b.Error(err)
					}
					unit := tokenizer.Unit{Records: []tokenizer.Record{benchRecord(id)}, Event: benchEvent, Spends: row.spend(id)}
					if unit.Spends != nil {
						unit.ExpireBudgets = time.Unix(1_000_000_000, 0)
					}
					if _, err = s.Commit(context.Background(), unit); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}

// BenchmarkBatch commits units of many records, one after the other. The claims
// are of random keys, so the more there are in the file, the more pages each unit
// changes.
func BenchmarkBatch(b *testing.B) {
	for _, row := range []struct{ records, claims int }{{1000, 0}, {1000, 1}, {10_000, 0}, {10_000, 1}} {
		b.Run(fmt.Sprintf("%d records, %d claims each", row.records, row.claims), func(b *testing.B) {
			s := openBench(b)
			random := rand.New(rand.NewPCG(1, 2))
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				b.StopTimer()
				id, err := s.ReserveIDs(context.Background(), row.records)
				if err != nil {
					b.Fatal(err)
				}
				unit := tokenizer.Unit{Event: benchEvent}
				for i := range uint64(row.records) {
					unit.Records = append(unit.Records, benchRecord(id+i))
					for range row.claims {
						unit.Claims = append(unit.Claims, benchClaim(random, id+i))
					}
				}
				b.StartTimer()
				if _, err := s.Commit(context.Background(), unit); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(row.records)*float64(b.N)/b.Elapsed().Seconds(), "records/s")
		})
	}
}

// BenchmarkClaimed looks for many keys at once, half of which are claimed.
func BenchmarkClaimed(b *testing.B) {
	s := openBench(b)
	random := rand.New(rand.NewPCG(1, 2))
	var keys [][]byte
	unit := tokenizer.Unit{Event: benchEvent}
	for i := range uint64(10_000) {
		c := benchClaim(random, i)
		keys = append(keys, c.Key)
		if i%2 == 0 {
			unit.Claims = append(unit.Claims, c)
		}
	}
	if _, err := s.Commit(context.Background(), unit); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Claimed(context.Background(), keys...); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(len(keys))*float64(b.N)/b.Elapsed().Seconds(), "keys/s")
}

// BenchmarkScrub goes through a file that has nothing to overwrite.
func BenchmarkScrub(b *testing.B) {
	s := openBench(b)
	for range 20 {
		id, err := s.ReserveIDs(context.Background(), 10_000)
		if err != nil {
			b.Fatal(err)
		}
		unit := tokenizer.Unit{Event: benchEvent}
		for i := range uint64(10_000) {
			unit.Records = append(unit.Records, benchRecord(id+i))
		}
		if _, err := s.Commit(context.Background(), unit); err != nil {
			b.Fatal(err)
		}
	}
	info, err := s.bolt.Stat()
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(info.Size())
	for b.Loop() {
		if err := s.Scrub(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}
