package audit

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
)

// readEvent reads a body as any JSON reader would, and refuses fields that
// Event doesn't have.
func readEvent(t testing.TB, body []byte) Event {
	t.Helper()
	var e struct {
		V int `json:"v"`
		Event
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&e); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	if e.V != Version {
		t.Fatalf("version %d", e.V)
	}
	return e.Event
}

// Every field of the struct has to be written, and under the name of its tag.
func TestBodyHasEveryField(t *testing.T) {
	var e Event
	v := reflect.ValueOf(&e).Elem()
	for i := range v.NumField() {
		switch f := v.Field(i); f.Kind() {
		case reflect.String:
			f.SetString("field " + v.Type().Field(i).Name)
		case reflect.Bool:
			f.SetBool(true)
		case reflect.Uint64:
			f.SetUint(1<<64 - 1)
		}
	}
	e.Time = time.Unix(1_800_000_000, 7).UTC()
	e.Keys = []string{"data/1", "token/\"2"}
	e.Alerts = []string{AlertNotify, AlertBurst}
	e.Items = []Item{{Token: "a"}, {}, {Reused: true}, {
		"token", "subject", "profile", "purpose", "reveal", "decision", "rule", "code", "reason", "stated", "shadow", "alert", "approval", true,
	}}
	body := e.Body()
	if got := readEvent(t, body); !reflect.DeepEqual(got, e) {
		t.Errorf("read %+v, want %+v", got, e)
	}
	at := -1
	for i := range v.NumField() {
		name := v.Type().Field(i).Tag.Get("json")
		next := bytes.Index(body, []byte(`"`+name+`":`))
		if next <= at {
			t.Errorf("%s is out of order", name)
		}
		at = next
	}
}

func TestBodyOfAnEmptyEvent(t *testing.T) {
	if got, want := string(new(Event).Body()), `{"v":1,"time":"0001-01-01T00:00:00.000000000Z"}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestBodyTimeIsUTC(t *testing.T) {
	e := Event{Time: time.Date(2026, 11, 24, 1, 2, 3, 400, time.FixedZone("", -3600))}
	if want := `"time":"2026-11-24T02:02:03.000000400Z"`; !strings.Contains(string(e.Body()), want) {
		t.Errorf("got %s, want %s", e.Body(), want)
	}
}

// FuzzBody looks for fields that break a line or are read back differently.
func FuzzBody(f *testing.F) {
	f.Add("cn:Köln", "line\nbreak\r\u2028\u2029\u0085")
	f.Add("\xff\xfe", "\xed\xa0\x80\\\"")
	f.Add("\U0001f9e5", "\x00\x1b[2J\x7f")
	f.Fuzz(func(t *testing.T, a, b string) {
		e := Event{Caller: a, Reason: b, Items: []Item{{Token: a}, {Token: b}}}
		body := e.Body()
		if !validBody(body) {
			t.Fatalf("not a body: %q", body)
		}
		got := readEvent(t, body)
		// Each byte that is not UTF-8 becomes U+FFFD, as conversion to runes has it.
		a, b = string([]rune(a)), string([]rune(b))
		if want := (Event{Caller: a, Reason: b, Items: []Item{{Token: a}, {Token: b}}}); !reflect.DeepEqual(got, want) {
			t.Fatalf("read %+v, want %+v", got, want)
		}
	})
}

func BenchmarkBody(b *testing.B) {
	e := goldenEvents[1]
	b.ReportAllocs()
	for b.Loop() {
		e.Body()
	}
}
