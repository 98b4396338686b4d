package audit

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coatcheck/coatcheck/tokenizer"
)

// testBlock is how many events a block has here.
const testBlock = 64

// indexed is an index over a log in memory, of small blocks.
type indexed struct {
	*Index
	t      *testing.T
	store  *memoryStore
	made   *made
	events []*Event
	logged *logBuffer
}

func newIndexed(t *testing.T, n int) *indexed {
	t.Helper()
	in := &indexed{t: t, store: newMemoryStore(1, 0), made: &made{Rand: rand.New(rand.NewPCG(3, 4))}, logged: new(logBuffer)}
	in.Index = NewIndex(t.TempDir(), in.store, in.logged.logger())
	in.size = testBlock
	in.grow(n)
	return in
}

// grow adds events to the log.
func (in *indexed) grow(n int) {
	for range n {
		e := in.made.event()
		in.events = append(in.events, e)
		in.store.add(e.Body())
	}
}

// work has the index catch up.
func (in *indexed) work() {
	in.t.Helper()
	if err := in.pass(ctx); err != nil {
		in.t.Fatal(err)
	}
}

// reopen has another index read the files.
func (in *indexed) reopen() {
	in.t.Helper()
	in.close()
	in.Index = NewIndex(in.dir, in.store, in.logged.logger())
	in.size = testBlock
	in.work()
}

// all returns the numbers of the events that a query finds, page by page.
func (in *indexed) all(q Query, newest bool) (numbers []uint64) {
	in.t.Helper()
	from := uint64(1)
	if newest {
		from = math.MaxUint64
	}
	bounds := Bounds{Events: 1 + in.made.IntN(50), Bytes: 1 + in.made.IntN(1<<15), Look: 1 + in.made.IntN(300)}
	for f := NewFilter(q); ; {
		found, err := in.Find(ctx, f, from, newest, bounds)
		if err != nil {
			in.t.Fatal(err)
		}
		if len(found.Entries) > bounds.Events {
			in.t.Fatalf("%d events, at most %d were asked for", len(found.Entries), bounds.Events)
		}
		for _, e := range found.Entries {
			numbers = append(numbers, e.Sequence)
		}
		if found.End {
			return numbers
		}
		from = found.Next
	}
}

// compare checks that queries find what there is to find.
func (in *indexed) compare(queries int) {
	in.t.Helper()
	for range queries {
		q := in.made.query()
		var want []uint64
		for i, e := range in.events {
			if naive(q, e) {
				want = append(want, uint64(i)+1)
			}
		}
		if got := in.all(q, false); !slices.Equal(got, want) {
			in.t.Fatalf("%+v: %d events, want %d", q, len(got), len(want))
		}
		slices.Reverse(want)
		if got := in.all(q, true); !slices.Equal(got, want) {
			in.t.Fatalf("newest first, %+v: %d events, want %d", q, len(got), len(want))
		}
	}
}

// path returns the path of the first file.
func (in *indexed) path() string { return filepath.Join(in.dir, indexFileName(1)) }

func TestFindIsANaiveScan(t *testing.T) {
	for _, n := range []int{0, 1, testBlock, 20*testBlock + 30} {
		in := newIndexed(t, n)
		in.compare(50) // before there is an index
		in.work()
		in.compare(60)
		in.grow(testBlock / 2) // what no block has yet
		in.compare(50)
	}
}

func TestFindPassesOver(t *testing.T) {
	in := newIndexed(t, 0)
	rare := func() {
		in.store.add((&Event{Time: madeBegin, Action: "detokenize", Code: "OK", Items: []Item{{Subject: "a1:ff"}}}).Body())
	}
	for i := range 20 * testBlock {
		if i == 100 || i == 10*testBlock {
			rare()
		}
		in.store.add((&Event{Time: madeBegin.Add(time.Duration(i) * time.Second), RequestID: decimal(i), Action: "tokenize", Code: "OK",
			Items: []Item{{Token: "a1:" + decimal(i), Subject: "a1:" + decimal(i/3)}}}).Body())
	}
	in.work()
	for _, q := range []Query{{Subjects: []string{"a1:ff"}}, {RequestID: "1000"}, {Since: madeBegin.Add(19 * testBlock * time.Second)}, {Tokens: []string{"a1:nobody"}}} {
		before := in.Looked()
		in.all(q, false)
		if looked := in.Looked() - before; looked > 4*testBlock {
			t.Errorf("%+v: %d of %d events were looked at", q, looked, 20*testBlock)
		}
	}
}

func TestFalsePositives(t *testing.T) {
	in := newIndexed(t, 0)
	const blocks = 10
	for i := range blocks * testBlock {
		in.store.add((&Event{Time: madeBegin, RequestID: decimal(i), Items: []Item{{Token: "a1:" + decimal(i), Subject: "a1:" + decimal(i)}}}).Body())
	}
	in.work()
	wrong, asked := 0, 0
	for i := range 2000 {
		f := NewFilter(Query{Subjects: []string{"nobody" + decimal(i)}})
		for _, b := range in.snapshot() {
			asked++
			if in.mayMatch(&b, f) {
				wrong++
			}
		}
	}
	if asked != 2000*blocks || wrong > asked/250 {
		t.Errorf("%d of %d blocks may have what isn't there", wrong, asked)
	}
}

func TestIndexOfLargeEvents(t *testing.T) {
	in := newIndexed(t, 0)
	for i := range 10 {
		e := &Event{Time: madeBegin, Action: "tokenize", Code: "OK"}
		for j := range 30_000 {
			e.Items = append(e.Items, Item{Token: decimal(1_000_000*i + j)})
		}
		in.store.add(e.Body())
		in.events = append(in.events, e)
	}
	in.work()
	if n := len(in.snapshot()); n != 3 { // of three events each
		t.Errorf("%d blocks", n)
	}
	if got := in.all(Query{Tokens: []string{"7000123"}}, true); !slices.Equal(got, []uint64{8}) {
		t.Errorf("found %v", got)
	}
}

func TestIndexIsReadAgain(t *testing.T) {
	in := newIndexed(t, (indexFileBlocks+2)*testBlock)
	in.work()
	before := in.Last()
	in.reopen()
	if in.Last() != before || before == 0 {
		t.Errorf("the files cover %d events, %d before", in.Last(), before)
	}
	in.grow(2 * testBlock)
	in.work()
	if in.Last() <= before {
		t.Errorf("the files cover %d events, %d before", in.Last(), before)
	}
	in.compare(10)
}

func TestIndexThatIsNotWhole(t *testing.T) {
	for _, row := range []struct {
		name string
		harm func(t *testing.T, path string)
	}{
		{"missing", func(t *testing.T, path string) { must(t, os.Remove(path)) }},
		{"empty", func(t *testing.T, path string) { must(t, os.Truncate(path, 0)) }},
		{"cut in a header", func(t *testing.T, path string) { must(t, os.Truncate(path, int64(blockHeaderSize)/2)) }},
		{"cut in a block", func(t *testing.T, path string) { must(t, os.Truncate(path, size(t, path)-100)) }},
		{"longer", func(t *testing.T, path string) { must(t, os.Truncate(path, size(t, path)+5000)) }},
		{"not ours", func(t *testing.T, path string) { must(t, os.WriteFile(path, []byte("hello"), 0o600)) }},
		{"header changed", func(t *testing.T, path string) { flip(t, path, 11) }},
	} {
		t.Run(row.name, func(t *testing.T) {
			in := newIndexed(t, 4*testBlock+10)
			in.work()
			whole, err := os.ReadFile(in.path())
			must(t, err)
			in.close()
			row.harm(t, in.path())
			in.reopen()
			in.compare(5)
			if again, err := os.ReadFile(in.path()); err != nil || string(again) != string(whole) {
				t.Errorf("the file isn't what it was: %v", err)
			}
		})
	}
}

// TestIndexWithAnyByteChanged changes bytes while the index is in use.
func TestIndexWithAnyByteChanged(t *testing.T) {
	in := newIndexed(t, 2*testBlock+10)
	in.work()
	whole, err := os.ReadFile(in.path())
	must(t, err)
	for range 20 {
		for range 200 {
			flip(t, in.path(), in.made.Int64N(int64(len(whole))))
		}
		in.compare(1)
		in.work()
		in.compare(1)
		must(t, os.WriteFile(in.path(), whole, 0o600))
	}
	// What a query has come across is mended.
	flip(t, in.path(), int64(blockHeaderSize)) // of the first bucket
	for i := range 1000 {
		in.all(Query{Subjects: []string{decimal(i)}}, false)
	}
	in.work()
	if again, err := os.ReadFile(in.path()); err != nil || string(again) != string(whole) {
		t.Errorf("the file isn't what it was: %v", err)
	}
	if !strings.Contains(in.logged.String(), "a part of it is made anew") {
		t.Error("nothing is said of it")
	}
}

func TestIndexOfAnotherHistory(t *testing.T) {
	in := newIndexed(t, 4*testBlock)
	in.work()
	in.close()
	in.store.entries, in.events = in.store.entries[:testBlock+7], in.events[:testBlock+7]
	in.grow(3 * testBlock) // others
	in.reopen()
	in.compare(20)

	in.close()
	in.store.entries, in.events = in.store.entries[:10], in.events[:10]
	in.reopen()
	if in.Last() != 0 {
		t.Errorf("the index covers %d events of 10", in.Last())
	}
	in.compare(5)

	other := newIndexed(t, 2*testBlock)
	other.store.id = tokenizer.LogID{2}
	other.dir = in.dir
	other.work()
	other.compare(5)
}

func TestIndexThatWasDeletedWhileItRuns(t *testing.T) {
	in := newIndexed(t, 2*testBlock)
	in.work()
	must(t, os.Rename(in.dir, in.dir+".old"))
	must(t, os.Mkdir(in.dir, 0o700))
	in.grow(testBlock)
	if err := in.pass(ctx); err == nil {
		t.Error("the index goes on in a file that nobody finds")
	}
	in.compare(3)
	in.work()
	if in.Last() == 0 {
		t.Error("the index isn't made again")
	}
	in.compare(3)
}

func TestIndexWithoutAStore(t *testing.T) {
	in := newIndexed(t, 2*testBlock)
	in.work()
	in.store.fail = tokenizer.ErrUnavailable
	if _, err := in.Find(ctx, NewFilter(Query{}), 1, false, Bounds{1, 1, 1}); !errors.Is(err, tokenizer.ErrUnavailable) {
		t.Error(err)
	}
	if _, err := in.Find(ctx, NewFilter(Query{}), 1, true, Bounds{1, 1, 1}); !errors.Is(err, tokenizer.ErrUnavailable) {
		t.Error(err)
	}
	if err := in.pass(ctx); !errors.Is(err, tokenizer.ErrUnavailable) {
		t.Error(err)
	}
	in.store.fail = nil
	in.compare(3)
}

// TestFindWhileItGrows asks while events are committed and the index is made.
func TestFindWhileItGrows(t *testing.T) {
	in := newIndexed(t, 0)
	running, stop := context.WithCancel(ctx)
	var background sync.WaitGroup
	background.Go(func() { in.Run(running) })
	defer background.Wait()
	defer stop()
	const events = 300 * testBlock
	background.Go(func() {
		for i := range events {
			in.store.add((&Event{Time: madeBegin, RequestID: decimal(i), Caller: "cn:" + decimal(i%3)}).Body())
		}
	})
	f := NewFilter(Query{Caller: "cn:1"})
	next, at := uint64(2), uint64(1) // every third event, from the second on
	for deadline := time.Now().Add(time.Minute); next <= events; {
		found, err := in.Find(ctx, f, at, false, Bounds{Events: 100, Bytes: 1 << 20, Look: 1000})
		must(t, err)
		for _, e := range found.Entries {
			if e.Sequence != next {
				t.Fatalf("event %d, want %d", e.Sequence, next)
			}
			next += 3
		}
		at = found.Next
		if time.Now().After(deadline) {
			t.Fatalf("at event %d", at)
		}
	}
}

func TestFindFromAnywhere(t *testing.T) {
	in := newIndexed(t, 300)
	for _, from := range []uint64{0, 1, 300, 301, 1 << 40, math.MaxInt64, math.MaxUint64} {
		for _, newest := range []bool{false, true} {
			found, err := in.Find(ctx, NewFilter(Query{}), from, newest, Bounds{Events: 1000, Bytes: 1 << 20, Look: 1000})
			must(t, err)
			want := 0
			switch {
			case newest:
				want = int(min(from, 300))
			case from >= 1 && from <= 300:
				want = 301 - int(from)
			}
			if len(found.Entries) != want || !found.End {
				t.Errorf("from %d, newest %v: %d events, want %d; end %v", from, newest, len(found.Entries), want, found.End)
			}
		}
	}
	if last, err := in.LastEvent(ctx); err != nil || last != 300 {
		t.Errorf("the last event is %d: %v", last, err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func size(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	must(t, err)
	return info.Size()
}

// flip changes a byte of a file.
func flip(t *testing.T, path string, at int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	var b [1]byte
	_, err = f.ReadAt(b[:], at)
	must(t, err)
	b[0] ^= 0x40
	_, err = f.WriteAt(b[:], at)
	must(t, err)
}
