package tokenizer_test

import (
	"fmt"
	"testing"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// BenchmarkReseal moves records to a new data key in the batches of package
// upkeep, as fast as it goes. An op is a record.
func BenchmarkReseal(b *testing.B) {
	const records, batch = 20_000, 256
	k := newKit(b)
	var unit tokenizer.Unit
	for n := range records {
		if _, err := k.Tokenize(b.Context(), namespace, tokenizer.TokenizeRequest{Profile: "note", Value: tokenizer.NewValue(fmt.Sprint("value ", n))}, &unit); err != nil {
			b.Fatal(err)
		}
	}
	unit.Event = event
	if _, err := k.store.Commit(b.Context(), unit); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	after := uint64(0)
	for done := 0; done < b.N; {
		if after == 0 {
			b.StopTimer()
			k.rotate(b, keystore.Data)
			b.StartTimer()
		}
		unit := tokenizer.Unit{Event: event}
		r, err := k.Reseal(b.Context(), namespace, after, batch, &unit)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := k.store.Commit(b.Context(), unit); err != nil {
			b.Fatal(err)
		}
		after, done = r.Next, done+r.Moved
	}
}
