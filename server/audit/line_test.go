package audit

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/coatcheck/coatcheck/tokenizer"
)

// goldenLog and goldenHead are the id of the log in testdata/log-v1.jsonl and
// the hash of its last event. The file was not made by this package, but from
// what the package comment says.
const (
	goldenFile = "testdata/log-v1.jsonl"
	goldenHead = "3ca8964d4530acc650cf4350eb4758b43f0fd390579b96b6bfd817733cf7ef35"
)

var goldenLog = tokenizer.LogID{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}

// goldenEvents are the events of testdata/log-v1.jsonl.
var goldenEvents = []Event{
	{
		Time:   time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC),
		Action: ActionStart, Policy: strings.Repeat("ab", 32), Code: "OK",
	},
	{
		Time:      time.Date(2026, 11, 24, 0, 0, 1, 2, time.UTC),
		RequestID: "0011223344556677", Caller: "spiffe://coatcheck.example/payments",
		Certificate: strings.Repeat("cd", 32), Peer: "192.0.2.7:40123",
		Method: "/coatcheck.v1.TokenizationService/Detokenize", Action: "detokenize",
		Namespace: "default", Profile: "card", Purpose: "charge", Reveal: "FULL",
		Decision: Allow, Rule: "payments-charge", Policy: strings.Repeat("ab", 32), Code: "OK",
		Items: []Item{{Token: "1:00112233445566778899aabbccddeeff"}, {Token: "1:ffeeddccbbaa99887766554433221100"}},
	},
	{
		Time:      time.Date(2026, 11, 24, 23, 59, 59, 999_999_999, time.UTC),
		RequestID: "8899aabbccddeeff", Caller: "cn:Köln \"\\\" \u2028\U0001f9e5\xff\x00\n\x7f", Peer: "[2001:db8::1]:443",
		Method: "/coatcheck.v1.TokenizationService/Tokenize", Action: "tokenize",
		Namespace: "default", Decision: Deny, Policy: strings.Repeat("ab", 32),
		Code: "PERMISSION_DENIED", Reason: "NO_RULE",
	},
}

func golden(t testing.TB) []byte {
	t.Helper()
	data, err := os.ReadFile(goldenFile)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestGoldenLog(t *testing.T) {
	var made []byte
	prev := tokenizer.Genesis(goldenLog)
	for i, event := range goldenEvents {
		e := tokenizer.Entry{Sequence: uint64(i + 1), Prev: prev, Body: event.Body()}
		made, prev = AppendLine(made, goldenLog, e), e.Hash()
	}
	want := golden(t)
	if !bytes.Equal(made, want) {
		t.Errorf("made:\n%s\nwant:\n%s", made, want)
	}
	if prev.String() != goldenHead {
		t.Errorf("head %s, want %s", prev, goldenHead)
	}
	for line := range bytes.Lines(want) {
		log, e, err := ParseLine(line)
		if err != nil || log != goldenLog {
			t.Fatalf("log %s, error %v", log, err)
		}
		if again := AppendLine(nil, log, e); !bytes.Equal(again, line) {
			t.Errorf("made %s of %s", again, line)
		}
	}
}

func TestParseLineRefuses(t *testing.T) {
	good := string(bytes.SplitAfter(golden(t), []byte("\n"))[0])
	replace := func(old, new string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("no %q in the line", old)
		}
		return strings.Replace(good, old, new, 1)
	}
	for _, row := range []struct {
		name, line string
		want       error
	}{
		{"nothing", "", ErrTorn},
		{"no line feed", strings.TrimSuffix(good, "\n"), ErrTorn},
		{"half a line", good[:100], ErrTorn},
		{"only a line feed", "\n", errForm},
		{"NULs", strings.Repeat("\x00", 100) + "\n", errForm},
		{"carriage return", replace("\n", "\r\n"), errForm},
		{"two lines", good + good, errForm},
		{"space at the beginning", " " + good, errForm},
		{"space in the line", replace(`"seq":1`, `"seq": 1`), errForm},
		{"other order", replace(`"log":`, `"lag":`), errForm},
		{"number 0", replace(`"seq":1`, `"seq":0`), errForm},
		{"leading zero", replace(`"seq":1`, `"seq":01`), errForm},
		{"negative number", replace(`"seq":1`, `"seq":-1`), errForm},
		{"no number", replace(`"seq":1`, `"seq":`), errForm},
		{"number too large", replace(`"seq":1`, `"seq":18446744073709551616`), errForm},
		{"largest number", replace(`"seq":1`, `"seq":18446744073709551615`), ErrBroken},
		{"capital digits", replace("0a0b", "0A0b"), errForm},
		{"digits that are none", replace("0a0b", "0g0b"), errForm},
		{"short log id", replace("0a0b", "0a"), errForm},
		{"no event", replace(good[strings.Index(good, `{"v"`):], "}\n"), errForm},
		{"event that is a string", replace(good[strings.Index(good, `{"v"`):], "\"x\"}\n"), errForm},
		{"event that is no JSON", replace(`"OK"`, `"OK`), errForm},
		{"event and more", replace(`"OK"}`, `"OK"},"x":{}`), errForm},
		{"event not in ASCII", replace(`"OK"`, `"ÖK"`), errForm},
		{"changed event", replace(`"OK"`, `"KO"`), ErrBroken},
		{"changed hash", replace(`"hash":"fc`, `"hash":"fd`), ErrBroken},
		{"changed previous hash", replace(`"prev":"0e`, `"prev":"0f`), ErrBroken},
		{"changed number", replace(`"seq":1`, `"seq":2`), ErrBroken},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, e, err := ParseLine([]byte(row.line))
			if !errors.Is(err, row.want) || e.Body != nil {
				t.Errorf("error %v, want %v", err, row.want)
			}
			if errors.Is(err, ErrBroken) == errors.Is(err, ErrTorn) {
				t.Errorf("error %v is both or neither", err)
			}
		})
	}
}

// FuzzParseLine checks that what is taken as a line is exactly what AppendLine
// makes of it.
func FuzzParseLine(f *testing.F) {
	for line := range bytes.Lines(golden(f)) {
		f.Add(line)
	}
	e := tokenizer.Entry{Sequence: 1<<64 - 1, Body: []byte("{}")}
	f.Add(AppendLine(nil, tokenizer.LogID{}, e))
	f.Fuzz(func(t *testing.T, line []byte) {
		log, e, err := ParseLine(line)
		if err != nil {
			return
		}
		if again := AppendLine(nil, log, e); !bytes.Equal(again, line) {
			t.Fatalf("made %q of %q", again, line)
		}
		if bytes.IndexByte(line, '\n') != len(line)-1 {
			t.Fatalf("%q is more than a line", line)
		}
	})
}

func BenchmarkParseLine(b *testing.B) {
	line := bytes.SplitAfter(golden(b), []byte("\n"))[1]
	b.SetBytes(int64(len(line)))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := ParseLine(line); err != nil {
			b.Fatal(err)
		}
	}
}
