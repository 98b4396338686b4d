package tokenizer

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/coatcheck/coatcheck/tokenizer/format"
)

// ErrFull says that the format of a profile has no token left for a value.
var ErrFull = errors.New("tokenizer: no token left in the format")

// Bounds of the search for a token that is not taken.
const (
	// maxDraws is how many are drawn at random for a value: nine of ten being
	// taken, one in 800 needs more.
	maxDraws = 64

	// maxWalk is how many are then looked at one after the other, for all values
	// of a unit that can have the same tokens.
	maxWalk = 1 << 17

	// maxWalks is how many are for all values of a unit.
	maxWalks = 4 * maxWalk

	walkStep = 1 << 10 // in one read
)

// drawing finds tokens for the items of a unit whose formats are no sealed ids: at
// random, since a counter would make the same tokens again after the restore of a
// backup.
type drawing struct {
	*tokenizing
	hunts  map[string]*hunt
	taken  map[string]bool // contents of tokens that are not free: true of those that items of the unit have
	walked int
}

// hunt is the search of all items of a unit that can have the same tokens.
type hunt struct {
	key    string
	drawn  int    // tokens in this round,
	free   int    // of which so many were not taken
	missed int    // drawn since the last that was not
	walks  bool   // drawing is given up
	last   []byte // how far it was walked, nil if it wasn't
	walked int
	full   bool
}

// draws says whether any item needs a token that is drawn.
func (b *tokenizing) draws() bool {
	for i := range b.items {
		if b.items[i].draws() {
			return true
		}
	}
	return false
}

// draws says whether an item needs a token that is drawn.
func (it *item) draws() bool { return it.open() && it.profile.shape != nil && it.req.Import == "" }

// draw finds a token for each item that needs one.
func (b *tokenizing) draw(ctx context.Context) error {
	d := &drawing{tokenizing: b, hunts: make(map[string]*hunt), taken: make(map[string]bool)}
	for range maxDraws {
		if more, err := d.round(ctx); err != nil {
			return err
		} else if !more {
			break
		}
	}
	for i := range b.items {
		it := &b.items[i]
		if !it.draws() || it.token.held() == nil {
			continue
		}
		err := d.walk(ctx, it)
		if err != nil && !errors.Is(err, ErrFull) {
			return err
		}
		it.settle(err)
	}
	return nil
}

// round draws a token for each item that has none that is free, and says whether
// it did for any.
func (d *drawing) round(ctx context.Context) (more bool, err error) {
	var items []*item
	var probes []*probe
	for i := range d.items {
		it := &d.items[i]
		if !it.draws() || it.token != nil && (it.token.held() == nil || it.hunt.walks) {
			continue
		}
		drawn, err := d.one(it)
		switch {
		case errors.Is(err, ErrInvalidValue):
			it.settle(err)
		case err != nil:
			return false, err
		case drawn:
			items, probes = append(items, it), append(probes, it.token)
		}
	}
	if len(probes) == 0 {
		return false, nil
	}
	if err := d.look(ctx, probes...); err != nil {
		return false, err
	}
	for _, it := range items {
		h := it.hunt
		if h.drawn++; it.token.held() == nil {
			h.free++
		} else {
			d.taken[string(it.token.content)] = false
		}
	}
	for _, h := range d.hunts {
		if h.missed += h.drawn; h.free > 0 {
			h.missed = 0
		}
		h.walks = h.walks || h.missed >= maxDraws
		h.drawn, h.free = 0, 0
	}
	return true, nil
}

// one draws a token that no other item of the unit has and that is not the value.
// If that takes too long, since nearly all are taken, it is left to walk.
func (d *drawing) one(it *item) (drawn bool, err error) {
	frame, err := it.profile.shape.Frame(it.value)
	if err != nil {
		return false, invalidValue(err)
	}
	var token []byte
	for range maxDraws {
		if token, err = frame.Draw(token[:0], rand.Reader); err != nil {
			return false, fmt.Errorf("tokenizer: draw a token: %w", err)
		}
		if drawn = d.fits(it, token); drawn {
			break
		}
	}
	if it.hunt == nil {
		it.hunt = d.huntOf(it, frame, len(token))
	}
	it.result.Token = Token(token)
	if !drawn {
		it.token, it.hunt.walks = &probe{values: [][]byte{present}}, true
		return false, nil
	}
	if it.token, err = d.probe(it, token); err == nil {
		d.taken[string(it.token.content)] = true
	}
	return true, err
}

// huntOf returns the hunt of an item.
func (d *drawing) huntOf(it *item, frame format.Frame, length int) *hunt {
	front, back := frame.Kept()
	key := appendField(appendField(appendField(nil, it.profile.Name), front), back)
	key = binary.AppendUvarint(key, uint64(length))
	h := d.hunts[string(key)]
	if h == nil {
		h = &hunt{key: string(key)}
		h.full = d.t.full.has(d.ring.Namespace(), h.key)
		h.walks = h.full
		d.hunts[h.key] = h
	}
	return h
}

// fits says whether a token can be that of an item, as far as is known without
// the store.
func (d *drawing) fits(it *item, token []byte) bool {
	_, taken := d.taken[string(tokenContent(it.profile.Name, string(token)))]
	return !taken && string(token) != string(it.value)
}

// probe returns the probe of a token of an item's profile.
func (d *drawing) probe(it *item, token []byte) (*probe, error) {
	return newProbe(d.ring, tokenClaim, tokenContent(it.profile.Name, string(token)))
}

// walk looks at the tokens that follow the one which was drawn last, or those
// behind where the hunt has come to.
func (d *drawing) walk(ctx context.Context, it *item) error {
	frame, err := it.profile.shape.Frame(it.value)
	if err != nil {
		return invalidValue(err)
	}
	h := it.hunt
	if h.last == nil {
		h.last = []byte(it.result.Token)
	}
	first := string(h.last)
	stays := true // what is full now
	for !h.full && h.walked < maxWalk && d.walked < maxWalks {
		var probes []*probe
		var tokens []Token
		for range walkStep {
			h.walked++
			d.walked++
			if !frame.Next(h.last) {
				return fmt.Errorf("%w: a token that is none of its frame", ErrDamaged)
			}
			p, err := d.probe(it, h.last)
			if err != nil {
				return err
			}
			if ours, taken := d.taken[string(p.content)]; !taken {
				probes, tokens = append(probes, p), append(tokens, Token(h.last))
			} else if ours {
				stays = false // the unit may be refused
			}
			if h.full = string(h.last) == first; h.full {
				break
			}
		}
		if err := d.look(ctx, probes...); err != nil {
			return err
		}
		for i, p := range probes {
			switch {
			case p.held() != nil:
			case string(tokens[i]) == string(it.value):
				stays = false // it can be that of another value
			default:
				it.token, it.result.Token = p, tokens[i]
				d.taken[string(p.content)] = true
				// The next goes on behind it, all the way round.
				h.last, h.full, h.walked = []byte(tokens[i]), false, 0
				return nil
			}
		}
	}
	if h.full && stays {
		d.t.full.add(d.ring.Namespace(), h.key)
	}
	return ErrFull
}

// fullFrames remembers of what no token is left, which stays so: tokens that are
// gone are not made again. It is safe for concurrent use.
type fullFrames struct {
	mu   sync.Mutex
	seen map[string]bool
}

// maxFullFrames bounds how many are remembered.
const maxFullFrames = 10_000

func (f *fullFrames) add(namespace, key string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.seen == nil {
		f.seen = make(map[string]bool)
	}
	if len(f.seen) < maxFullFrames {
		f.seen[namespace+"/"+key] = true
	}
}

func (f *fullFrames) has(namespace, key string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.seen[namespace+"/"+key]
}
