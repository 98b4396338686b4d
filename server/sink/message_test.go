package sink

import (
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/coatcheck/coatcheck/server/audit"
	"github.com/coatcheck/coatcheck/tokenizer"
)

func asEvent(t testing.TB, e audit.Event) *Event {
	t.Helper()
	event, err := newEvent(tokenizer.LogID{1}, tokenizer.Entry{Sequence: 7, Body: e.Body()})
	if err != nil {
		t.Fatal(err)
	}
	return &event
}

// A message is never longer than it may be, always JSON, has as many items as fit and says
// how many don't.
func TestMessageSizes(t *testing.T) {
	for range 300 {
		e := event(rand.IntN(200))
		switch rand.IntN(4) {
		case 0:
			e.Keys = []string{"data/1", "index/2"}
		case 1:
			e.Alerts = []string{audit.AlertBurst}
		case 2:
			e.StatedReason = strings.Repeat("\x00", rand.IntN(2000)) // six bytes each
		}
		whole, most := asEvent(t, e), MinMessage+rand.IntN(16_000)
		text, reduced := whole.message(most)
		if len(text) > most {
			t.Fatalf("%d bytes, more than %d", len(text), most)
		}
		var m struct {
			Log, Prev, Hash string
			Seq             uint64
			Event           struct {
				Time, Action, Code string
				Items              []json.RawMessage
			}
			ItemsLeftOut  *int `json:"items_left_out"`
			FieldsLeftOut bool `json:"fields_left_out"`
		}
		if err := json.Unmarshal(text, &m); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		if m.Seq != 7 || m.Hash != whole.Hash.String() || m.Event.Action != "tokenize" || m.Event.Code != "OK" || m.Event.Time != "2026-11-24T01:46:44.667968258Z" {
			t.Fatalf("%s", text)
		}
		if !reduced {
			if _, _, err := audit.ParseLine(append(text, '\n')); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if m.ItemsLeftOut == nil || len(m.Event.Items)+*m.ItemsLeftOut != len(e.Items) {
			t.Fatalf("%d items, of %d: %s", len(m.Event.Items), len(e.Items), text)
		}
		if _, _, err := audit.ParseLine(append(text, '\n')); err == nil {
			t.Fatalf("a reduced message passes for a line: %s", text)
		}
		if room := most - len(text); !m.FieldsLeftOut && room > 150 {
			t.Errorf("%d bytes are free, and an item has less", room)
		}
	}
}

func TestPlain(t *testing.T) {
	for name, want := range map[string]string{"": "-", "reload-policy": "reload-policy", "a b\"é": "a?b???", strings.Repeat("x", 40): strings.Repeat("x", 32)} {
		if got := plain(name, 32); got != want {
			t.Errorf("%q is %q", name, got)
		}
	}
}
