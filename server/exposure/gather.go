package exposure

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/coatcheck/coatcheck/server/audit"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// facet is what many accesses have in common.
type facet struct {
	profile, reveal, purpose, action, caller, certificate string
}

// Levels beside those of events.
const (
	levelFull    = "FULL"    // of exports too
	levelDetails = "DETAILS" // no value: state, labels, and the customer id
)

// levels says of which actions events tell of data that was shown, and how much. Of
// detokenize the event says it.
var levels = map[string]string{
	"detokenize": "", "export-tokens": levelFull,
	"get-token": levelDetails, "list-tokens": levelDetails, "lookup-token": levelDetails,
	"update-token": levelDetails, "revoke-token": levelDetails, "restore-token": levelDetails,
}

// margin is how far the clocks by which events are timed may have been wrong, or behind
// another: events are looked for that much around the time asked for.
const margin = time.Hour

// pageBytes is how much of the log is read at once, about.
const pageBytes = 4 << 20

// gathering is Find on its way.
type gathering struct {
	*Finder
	query    Query
	wanted   []ref   // the digests of the person asked for
	rows     *sorter // by token
	facets   []facet
	ids      map[facet]uint32
	evidence Evidence
	peers    addresses

	subjects bool               // there are digests of people
	keys     map[string][5]byte // under which the tokens of each profile are digested
	unknown  map[string]bool    // profiles whose tokens have to be looked up
	person   uint64             // the id of the record of the person asked for, 0 if it isn't there
}

// events reads the log, and adds a row for each access.
func (g *gathering) events(ctx context.Context) error {
	after, err := g.begin(ctx)
	if err != nil {
		return err
	}
	told := time.Now()
	g.keys, g.unknown = make(map[string][5]byte), make(map[string]bool)
	g.evidence.Log, g.evidence.ReadFrom, g.evidence.ReadTo = g.Store.LogID().String(), after+1, after
	var last tokenizer.Entry
	defer func() {
		if last.Sequence > 0 {
			hash := last.Hash()
			g.evidence.ReadTo, g.evidence.Hash = last.Sequence, hash.String()
		}
	}()
	for limit := 16; ; {
		entries, err := g.Store.Entries(ctx, after, limit)
		if err != nil || len(entries) == 0 {
			return err
		}
		size := 0
		for _, e := range entries {
			at, isWitness := timeOf(e.Body)
			if isWitness && !g.query.Until.IsZero() && !at.Before(g.query.Until.Add(margin)) {
				return nil
			}
			if err := g.event(e, at); err != nil {
				return err
			}
			last, size = e, size+len(e.Body)
		}
		after = last.Sequence
		limit = min(max(limit*pageBytes/max(size, 1), 1), 4*limit, 1<<13)
		if g.Progress != nil && time.Since(told) >= time.Second {
			told = time.Now()
			g.Progress(after + 1 - g.evidence.ReadFrom)
		}
	}
}

// begin finds behind which event those of the time begin, without reading all.
func (g *gathering) begin(ctx context.Context) (uint64, error) {
	since := g.query.Since.Add(-margin)
	low, high := uint64(0), uint64(1)
	for { // low is before it, high perhaps not
		before, err := g.before(ctx, high, since)
		if err != nil {
			return 0, err
		}
		if !before {
			break
		}
		low, high = high, 2*high
	}
	for high-low > 1 {
		middle := low + (high-low)/2
		before, err := g.before(ctx, middle, since)
		if err != nil {
			return 0, err
		}
		if before {
			low = middle
		} else {
			high = middle
		}
	}
	return low, nil
}

// before says whether the events that follow on one are known to be of before a time.
func (g *gathering) before(ctx context.Context, after uint64, since time.Time) (bool, error) {
	const page, pages = 16, 64
	for range pages {
		entries, err := g.Store.Entries(ctx, after, page)
		if err != nil || len(entries) == 0 {
			return false, err
		}
		for _, e := range entries {
			if at, isWitness := timeOf(e.Body); isWitness {
				return at.Before(since), nil
			}
		}
		after = entries[len(entries)-1].Sequence
	}
	return false, nil
}

// What an event begins with; its time follows, in a form of a fixed length.
const (
	eventTime = `{"v":1,"time":"`
	timeForm  = "2006-01-02T15:04:05.000000000Z"
)

// timeOf returns the time of an event. It is a witness if those around it are of about
// the same: the last event of a stream, which has no items, has the time of its beginning.
func timeOf(body []byte) (at time.Time, isWitness bool) {
	rest, ok := bytes.CutPrefix(body, []byte(eventTime))
	if !ok || len(rest) < len(timeForm) {
		return at, false
	}
	at, err := time.Parse(timeForm, string(rest[:len(timeForm)]))
	return at, err == nil && bytes.Contains(rest, []byte(`,"items":[`))
}

// event adds the rows of an event, if it tells of accesses that are wanted.
func (g *gathering) event(entry tokenizer.Entry, at time.Time) error {
	if at.Before(g.query.Since) || !g.query.Until.IsZero() && !at.Before(g.query.Until) ||
		!bytes.Contains(entry.Body, []byte(`,"items":[`)) || bytes.Contains(entry.Body, []byte(`,"action":"tokenize"`)) {
		return nil
	}
	if c := g.query.Certificate; c != "" && !bytes.Contains(entry.Body, []byte(`,"certificate":"`+c+`"`)) {
		return nil
	}
	var e audit.Event
	if err := json.Unmarshal(entry.Body, &e); err != nil {
		return fmt.Errorf("%w: event %d doesn't parse", tokenizer.ErrDamaged, entry.Sequence)
	}
	level, known := levels[e.Action]
	if !known || e.Namespace != g.Namespace || g.query.Caller != "" && e.Caller != g.query.Caller || g.query.Certificate != "" && e.Certificate != g.query.Certificate {
		return nil
	}
	any := false
	for i := range e.Items {
		added, err := g.item(entry.Sequence, &e, &e.Items[i], level)
		if err != nil {
			return err
		}
		any = any || added
	}
	if any {
		g.evidence.Events++
		g.evidence.FirstEvent = min(g.evidence.FirstEvent-1, entry.Sequence-1) + 1 // 0 is none
		g.evidence.LastEvent = entry.Sequence
		g.peers.add(e.Peer)
	}
	return nil
}

// item adds the row of an item, and says whether there is one.
func (g *gathering) item(sequence uint64, e *audit.Event, i *audit.Item, level string) (bool, error) {
	profile, purpose, reveal, code := orElse(i.Profile, e.Profile), orElse(i.Purpose, e.Purpose), orElse(i.Reveal, e.Reveal), orElse(i.Code, e.Code)
	if reveal == "" {
		reveal = level
	}
	if code != "OK" || reveal == "" || g.query.Profile != "" && profile != g.query.Profile {
		return false, nil
	}
	record, _ := digestRef(kindToken, i.Token) // what has no token is told as one record
	owner, named := digestRef(kindSubject, i.Subject)
	if key, seen := g.keys[profile]; !seen {
		g.keys[profile] = record.key()
	} else if key != record.key() { // the same token may have several names
		g.unknown[profile] = true
	}
	switch {
	case !named:
		owner, g.unknown[profile] = ref{}, true
	case len(g.wanted) > 0 && !slices.Contains(g.wanted, owner):
		return false, nil
	default:
		g.subjects = true
	}
	return true, g.rows.add(newRow(record, markAccess, owner, g.facet(facet{profile, reveal, purpose, e.Action, e.Caller, e.Certificate}), sequence, e.Time))
}

// facet returns the number of a facet.
func (g *gathering) facet(f facet) uint32 {
	id, ok := g.ids[f]
	if !ok {
		id = uint32(len(g.facets))
		g.ids[f] = id
		g.facets = append(g.facets, f)
	}
	return id
}

func orElse(text, other string) string {
	if text == "" {
		return other
	}
	return text
}

// epoch is the time of rows that have none.
var epoch = time.Unix(0, 0)

// addresses are those from which there was access, up to maxAddresses.
type addresses struct {
	known []netip.Addr
	more  bool
}

const maxAddresses = 100

// add adds the address of a peer.
func (a *addresses) add(peer string) {
	at, err := netip.ParseAddrPort(peer)
	if err != nil || slices.Contains(a.known, at.Addr()) {
		return
	}
	if len(a.known) == maxAddresses {
		a.more = true
		return
	}
	a.known = append(a.known, at.Addr())
}
