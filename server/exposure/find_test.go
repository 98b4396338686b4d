package exposure

import (
	"context"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/server/audit"
	"github.com/coatcheck/coatcheck/tokenizer"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// Events of one person are theirs under whichever key they name them; from before events
// named people they name the token, and from before there were audit keys both under
// an index key.
func TestAccessesOfOnePersonMeet(t *testing.T) {
	for _, rows := range []int{1, 2, 1000} {
		t.Run(fmt.Sprint(rows), func(t *testing.T) {
			k := newKit(t)
			cards := k.tokens("card", "alice", "bob", "alice", "")
			pans := k.tokens("pan", "alice")
			old := func(profile string, token tokenizer.Token) audit.Item { return k.item(profile, token, "") }
			var before []audit.Event
			digests, err := k.tokenizer.Digests(t.Context(), namespace, "card", cards[0])
			if err != nil {
				t.Fatal(err)
			}
			legacy := digests[slices.IndexFunc(digests, func(d string) bool { return !strings.HasPrefix(d, "a") })]
			before = append(before,
				reveal(noon, "card", audit.Item{Token: legacy}),
				reveal(noon.Add(time.Minute), "card", old("card", cards[1]), old("card", cards[3])),
				reveal(noon.Add(2*time.Minute), "pan", old("pan", pans[0])),
				reveal(noon.Add(3*time.Minute), "card", k.item("card", cards[2], "alice")),
			)
			k.log(before...)
			k.rotate(keystore.Audit)
			masked := reveal(noon.Add(4*time.Minute), "card", k.item("card", cards[2], "alice"), k.item("card", cards[2], "alice"))
			masked.Reveal, masked.Purpose, masked.Certificate = "MASKED", "", "beef"
			denied := reveal(noon, "card", k.item("card", cards[1], "bob"))
			denied.Code, denied.Reveal = "PERMISSION_DENIED", ""
			mixed := reveal(noon.Add(5*time.Minute), "", k.item("card", cards[1], "bob"), k.item("pan", pans[0], "alice"))
			mixed.Items[0].Profile, mixed.Items[0].Code, mixed.Items[1].Profile = "card", "NOT_FOUND", "pan"
			export := reveal(noon.Add(6*time.Minute), "card", k.item("card", cards[1], "bob"))
			export.Action, export.Reveal, export.Purpose = "export-tokens", "", ""
			told := reveal(noon.Add(7*time.Minute), "card", k.item("card", cards[1], "bob"))
			told.Action, told.Reveal, told.Purpose = "get-token", "", ""
			gone := reveal(noon.Add(8*time.Minute), "card", audit.Item{Token: "a1:" + strings.Repeat("0", 32), Subject: "a1:" + strings.Repeat("1", 32)}, audit.Item{Token: "a1:" + strings.Repeat("2", 32)})
			k.log(masked, denied, mixed, export, told, gone)

			r, people, _ := k.report(Query{Since: noon}, rows)
			alice, bob, erased := people["alice"], people["bob"], people["a1:"+strings.Repeat("1", 32)]
			if len(people) != 3 || alice == nil || bob == nil || erased == nil {
				t.Fatalf("%d people: %v", len(people), people)
			}
			wantAlice := []PersonProfile{{"card", 2, []string{"FULL", "MASKED"}}, {"pan", 1, []string{"FULL"}}}
			if alice.Accesses != 6 || alice.Records != 3 || !reflect.DeepEqual(alice.Profiles, wantAlice) {
				t.Errorf("alice: %+v", alice)
			}
			if !alice.First.Equal(noon) || !alice.Last.Equal(noon.Add(5*time.Minute)) || !strings.HasPrefix(alice.Reference, "a2:") || !reflect.DeepEqual(alice.Purposes, []string{"", "support"}) {
				t.Errorf("alice: %+v", alice)
			}
			if bob.Accesses != 3 || bob.Records != 1 || !reflect.DeepEqual(bob.Profiles[0].Reveals, []string{"DETAILS", "FULL"}) {
				t.Errorf("bob: %+v", bob)
			}
			if !erased.Erased || erased.Accesses != 1 || r.Erased != 1 || r.Subjects != 3 || r.AboutNobody != 1 || r.Unattributed != 1 || r.Accesses != 12 {
				t.Errorf("%+v, %+v", erased, r)
			}
			if len(r.Callers) != 2 || !reflect.DeepEqual(r.Addresses, []string{"192.0.2.7"}) || r.Profiles[0].Type != "card-number" || r.Profiles[0].Subjects != 3 {
				t.Errorf("%+v", r)
			}
			if r, people, _ := k.report(Query{Since: noon, Subject: "alice"}, rows); len(people) != 1 || !reflect.DeepEqual(people["alice"], alice) || r.Subjects != 1 {
				t.Errorf("alice alone: %+v", people)
			}
			if _, people, _ := k.report(Query{Since: noon, Certificate: "beef"}, rows); len(people) != 1 || people["alice"].Accesses != 2 {
				t.Errorf("with the other certificate: %+v", people)
			}
			if _, people, _ := k.report(Query{Since: noon, Profile: "pan"}, rows); len(people) != 1 || people["alice"].Accesses != 2 {
				t.Errorf("of the profile: %+v", people)
			}
			if r, people, _ := k.report(Query{Since: noon, Caller: "cn:other"}, rows); len(people) != 0 || r.Accesses != 0 || r.First != nil || r.Evidence.Events != 0 {
				t.Errorf("to nobody: %+v", r)
			}
		})
	}
}

// Events are found by their times wherever they are in the log, though clocks have been set
// and streams end with the time of their beginning; and little else is read.
func TestEventsOfATime(t *testing.T) {
	k := newKit(t)
	card := k.tokens("card", "alice")[0]
	item := k.item("card", card, "alice")
	random := rand.New(rand.NewPCG(3, 1))
	var events []audit.Event
	const days, perDay = 20, 150
	for i := range days * perDay {
		at := noon.Add(time.Duration(i) * 24 * time.Hour / perDay).Add(time.Duration(random.IntN(40)-20) * time.Minute)
		events = append(events, reveal(at, "card", item))
		if i%50 == 0 {
			for range 20 {
				ended := reveal(noon, "card")
				events = append(events, ended)
			}
		}
	}
	log := &madeLog{Store: k.store, n: uint64(len(events)), body: func(n uint64) []byte { return events[n-1].Body() }}
	k.finder.Store = log
	for range 60 {
		since := noon.Add(time.Duration(random.IntN(days*24*60)) * time.Minute)
		until := since.Add(time.Duration(1+random.IntN(300)) * time.Minute)
		want := uint64(0)
		for _, e := range events {
			if len(e.Items) > 0 && !e.Time.Before(since) && e.Time.Before(until) {
				want++
			}
		}
		log.read = 0
		r, _, _ := k.report(Query{Since: since, Until: until}, 100)
		if r.Accesses != want || r.Evidence.Events != want {
			t.Errorf("%v to %v: %d accesses, want %d", since, until, r.Accesses, want)
		}
		if log.read > log.n {
			t.Errorf("%v to %v: %d events were read of %d", since, until, log.read, log.n)
		}
	}
}

// madeLog is a store with a log that is made as it is read.
type madeLog struct {
	tokenizer.Store
	n    uint64
	body func(uint64) []byte
	read uint64
}

func (l *madeLog) Entries(_ context.Context, after uint64, limit int) (entries []tokenizer.Entry, err error) {
	for n := after + 1; n <= l.n && len(entries) < limit; n++ {
		entries = append(entries, tokenizer.Entry{Sequence: n, Body: l.body(n)})
		l.read++
	}
	return entries, nil
}

// A report of ten million events about a million people takes little memory, and each
// person is in it as often as is known.
func TestIncidentSize(t *testing.T) {
	people, events := 2_000, uint64(20_000)
	if os.Getenv("COATCHECK_SOAK") != "" {
		people, events = 1_000_000, 10_000_000
	}
	k := newKit(t)
	type owned struct{ token, subject string }
	all := make([]owned, 0, people)
	for begin := 0; begin < people; begin += 1000 {
		var names []string
		for i := range min(1000, people-begin) {
			names = append(names, fmt.Sprintf("customer-%07d", begin+i))
		}
		for i, token := range k.tokens("card", names...) {
			item := k.item("card", token, names[i])
			all = append(all, owned{item.Token, item.Subject})
		}
	}
	event := reveal(noon, "card", audit.Item{})
	k.finder.Store = &madeLog{Store: k.store, n: events, body: func(n uint64) []byte {
		who := all[(n*2654435761)%uint64(people)]
		event.Time, event.Items[0].Token, event.Items[0].Subject = noon.Add(time.Duration(n)*time.Millisecond), who.token, who.subject
		return event.Body()
	}}
	peak := watchMemory(t)
	begin := time.Now()
	found, err := k.finder.Find(t.Context(), Query{Since: noon})
	if err != nil {
		t.Fatal(err)
	}
	defer found.Close()
	r, err := k.finder.Write(t.Context(), discard{}, found, Asked{At: time.Now(), Names: true}, testSigner{make([]byte, 64)})
	if err != nil {
		t.Fatal(err)
	}
	if r.Accesses != events || r.Evidence.Events != events || r.Subjects == 0 || r.Subjects > uint64(people) || r.Records != r.Subjects {
		t.Errorf("%+v", r)
	}
	t.Logf("%d events, %d people in %v; the heap was %d MiB larger at most", events, r.Subjects, time.Since(begin), peak()>>20)
	if over := peak(); over > 256<<20 {
		t.Errorf("it took %d MiB", over>>20)
	}
}

// watchMemory returns what says how much more than now was on the heap at most.
func watchMemory(t *testing.T) func() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	base, most := m.HeapInuse, m.HeapInuse
	tick := time.NewTicker(50 * time.Millisecond)
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-tick.C:
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				most = max(most, m.HeapInuse)
			case <-done:
				return
			}
		}
	}()
	stop := func() {
		tick.Stop()
		select {
		case <-done:
		default:
			close(done)
		}
		<-stopped
	}
	t.Cleanup(stop)
	return func() uint64 {
		stop()
		return most - base
	}
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }

// What is in temporary files is digests and numbers.
func TestRowsHoldNoNames(t *testing.T) {
	r, ok := digestRef(kindSubject, "a12:00112233445566778899aabbccddeeff")
	if !ok || r.digest() != "a12:00112233445566778899aabbccddeeff" || hex.EncodeToString(r[6:]) != "00112233445566778899aabbccddeeff" {
		t.Errorf("%x, %v", r, ok)
	}
	if r, ok := digestRef(kindToken, "7:00112233445566778899aabbccddeeff"); !ok || r.digest() != "7:00112233445566778899aabbccddeeff" {
		t.Errorf("%x, %v", r, ok)
	}
	for _, bad := range []string{"", "a", "a1:", "a1:0011", "b1:00112233445566778899aabbccddeeff", "a1:zz112233445566778899aabbccddeeff", "a4294967296:00112233445566778899aabbccddeeff"} {
		if _, ok := digestRef(kindToken, bad); ok {
			t.Errorf("%q is taken for a digest", bad)
		}
	}
}
