package command

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	coatcheckv1 "github.com/coatcheck/coatcheck/gen/coatcheck/v1"
)

// What --json prints. Names and meanings are a promise: fields may be added.
type (
	jsonKey struct {
		Class       string    `json:"class"`
		Version     uint32    `json:"version"`
		State       string    `json:"state"` // active or old; retired once it has been
		Created     time.Time `json:"created"`
		RootVersion uint32    `json:"root_version"`
		Records     uint64    `json:"records"`
		Uses        uint64    `json:"uses"`
		Retirable   bool      `json:"retirable"`
	}
	jsonResealing struct {
		Running          bool   `json:"running"`
		Remaining        uint64 `json:"remaining"`
		Moved            uint64 `json:"moved"`
		Failed           uint64 `json:"failed"`
		RecordsPerSecond uint32 `json:"records_per_second"`
	}
	jsonListing struct {
		Keys      []jsonKey     `json:"keys"`
		Keystore  string        `json:"keystore"` // ready, offline or sealed
		Confirmed *time.Time    `json:"confirmed,omitempty"`
		Seals     *time.Time    `json:"seals,omitempty"`
		Resealing jsonResealing `json:"resealing"`
	}
	jsonRewrap struct {
		Rewrapped []jsonKey     `json:"rewrapped"`
		Resealing jsonResealing `json:"resealing"`
	}
)

func keyOf(k *coatcheckv1.Key) jsonKey {
	return jsonKey{
		Class: shortClass(k.GetKeyClass().String()), Version: k.GetVersion(), State: strings.ToLower(strings.TrimPrefix(k.GetState().String(), "KEY_STATE_")), Created: k.GetCreateTime().AsTime(),
		RootVersion: k.GetRootVersion(), Records: k.GetRecords(), Uses: k.GetUses(), Retirable: k.GetRetirable(),
	}
}

func keysOf(keys []*coatcheckv1.Key) []jsonKey {
	list := make([]jsonKey, 0, len(keys)) // not null
	for _, k := range keys {
		list = append(list, keyOf(k))
	}
	return list
}

func resealingOf(r *coatcheckv1.Resealing) jsonResealing {
	return jsonResealing{r.GetRunning(), r.GetRemaining(), r.GetMoved(), r.GetFailed(), r.GetRecordsPerSecond()}
}

func listingOf(resp *coatcheckv1.ListKeysResponse) jsonListing {
	l := jsonListing{Keys: keysOf(resp.GetKeys()), Keystore: shortState(resp.GetKeystoreState()), Resealing: resealingOf(resp.GetResealing())}
	if at := resp.GetConfirmTime(); at != nil {
		t := at.AsTime()
		l.Confirmed = &t
	}
	if at := resp.GetSealTime(); at != nil {
		t := at.AsTime()
		l.Seals = &t
	}
	return l
}

func rewrapOf(keys []*coatcheckv1.Key, r *coatcheckv1.Resealing) jsonRewrap {
	return jsonRewrap{keysOf(keys), resealingOf(r)}
}

func shortState(s coatcheckv1.KeystoreState) string {
	return strings.ToLower(strings.TrimPrefix(s.String(), "KEYSTORE_STATE_"))
}

// printJSON prints one value, indented.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// printKeys prints a table of keys.
func printKeys(w io.Writer, keys ...*coatcheckv1.Key) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "CLASS\tVERSION\tSTATE\tCREATED\tROOT KEY\tRECORDS\tUSES")
	for _, key := range keys {
		k := keyOf(key)
		records, uses := "-", "-"
		if k.Class != "audit" && k.Class != "fpe" { // under which nothing is counted
			records = grouped(k.Records)
		}
		if k.Class == "data" {
			uses = grouped(k.Uses)
		}
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\tv%d\t%s\t%s\n", k.Class, k.Version, k.State, k.Created.Format(time.RFC3339), k.RootVersion, records, uses)
	}
	return t.Flush()
}

// grouped prints a number with its thousands apart.
func grouped(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// stateLine says how the keystore is.
func stateLine(resp *coatcheckv1.ListKeysResponse, now time.Time) string {
	line := "keystore: " + shortState(resp.GetKeystoreState())
	if at := resp.GetConfirmTime(); at != nil {
		line += fmt.Sprintf(", confirmed %s ago", now.Sub(at.AsTime()).Round(time.Second))
	}
	if at := resp.GetSealTime(); at != nil {
		line += fmt.Sprintf(", sealed in %s unless it comes back", at.AsTime().Sub(now).Round(time.Second))
	}
	return line
}

// resealLine says how the records are on their way to the active data key.
func resealLine(r *coatcheckv1.Resealing) string {
	switch {
	case r.GetRemaining() == 0:
		return "records: all under the active data key"
	case r.GetRunning():
		return fmt.Sprintf("records: %s are not under the active data key yet; moving at most %s a second", grouped(r.GetRemaining()), grouped(uint64(r.GetRecordsPerSecond())))
	case r.GetFailed() > 0:
		return fmt.Sprintf("records: %s are not under the active data key; %s can't be opened", grouped(r.GetRemaining()), grouped(r.GetFailed()))
	}
	return fmt.Sprintf("records: %s are not under the active data key; keys rewrap moves them", grouped(r.GetRemaining()))
}

// indexLine says how the index is on its way to the active index and subject keys.
// It moves by itself.
func indexLine(keys []*coatcheckv1.Key) string {
	left := uint64(0)
	for _, key := range keys {
		if k := keyOf(key); k.State == "old" && (k.Class == "index" || k.Class == "subject") {
			left += k.Records
		}
	}
	if left == 0 {
		return "index: all under the active keys"
	}
	return fmt.Sprintf("index: %s still under older keys; idempotency keys go when their time is over, the others move by themselves", entries(left))
}

func entries(n uint64) string {
	if n == 1 {
		return "1 entry"
	}
	return grouped(n) + " entries"
}

// bar shows progress on a terminal, and nothing elsewhere.
type bar struct {
	w       io.Writer // nil: no terminal
	total   uint64
	began   time.Time
	printed bool
}

func newBar(env Env, total uint64) *bar {
	b := &bar{total: total, began: time.Now()}
	if env.Terminal {
		b.w = env.Stderr
	}
	return b
}

// barWidth is that of the bar itself; the line fits into 80 columns.
const barWidth = 24

// show draws the bar anew.
func (b *bar) show(remaining uint64, now time.Time) {
	if b.w == nil {
		return
	}
	b.total = max(b.total, remaining)
	if b.total == 0 {
		return
	}
	done := b.total - remaining
	full := int(done * barWidth / b.total)
	line := fmt.Sprintf("[%s%s] %3d%%  %s of %s", strings.Repeat("#", full), strings.Repeat("-", barWidth-full), done*100/b.total, grouped(done), grouped(b.total))
	if elapsed := now.Sub(b.began); done > 0 && elapsed > time.Second {
		rate := float64(done) / elapsed.Seconds()
		line += fmt.Sprintf("  %s/s", grouped(uint64(rate)))
		if remaining > 0 {
			line += fmt.Sprintf("  %s left", time.Duration(float64(remaining)/rate*float64(time.Second)).Round(time.Second))
		}
	}
	fmt.Fprintf(b.w, "\r\x1b[K%s", line)
	b.printed = true
}

// end leaves the bar as it is.
func (b *bar) end() {
	if b.printed {
		fmt.Fprintln(b.w)
	}
}
