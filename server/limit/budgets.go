package limit

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"time"

	"github.com/coatcheck/coatcheck/server/policy"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// member is a subject, as a budget counts it.
type member = [16]byte

// budget is what a rule lets a caller have in a window, and what the call at hand draws
// on it.
type budget struct {
	Name
	most  uint64
	id    tokenizer.Budget // expires when the window ends
	spent uint64           // when it was read

	drawn uint64 // values

	// Of a budget of subjects: those that the call reveals something of. They are taken
	// for new to the budget until the store is asked, which is done when it matters.
	subjects bool
	fresh    map[member]struct{}
	unasked  []member            // of those
	counted  map[member]struct{} // that are not new
	absent   map[member]struct{} // that are, by the store, and for whom there was no room
}

// appendBudgets appends the budgets that limits demand, for the windows of a time.
func appendBudgets(to []*budget, l *policy.Limits, namespace, caller string, now time.Time) []*budget {
	for _, b := range [...]struct {
		limit    string
		most     uint64
		window   time.Duration
		subjects bool
	}{
		{"values_per_hour", l.ValuesPerHour, time.Hour, false},
		{"values_per_day", l.ValuesPerDay, 24 * time.Hour, false},
		{"subjects_per_hour", l.SubjectsPerHour, time.Hour, true},
		{"subjects_per_day", l.SubjectsPerDay, 24 * time.Hour, true},
	} {
		if b.most == 0 {
			continue
		}
		begins := now.UTC().Truncate(b.window)
		to = append(to, &budget{Name: Name{l.Rule, b.limit}, most: b.most, subjects: b.subjects, id: tokenizer.Budget{
			ID: budgetID(l.Rule, b.limit, namespace, caller, begins), Expires: begins.Add(b.window),
		}})
	}
	return to
}

// budgetID returns the id of a budget: the first 16 bytes of the SHA-256 hash of
//
//	"coatcheck budget v1\n" (length(4) bytes) of each of the names, begin in Unix seconds(8)
//
// Integers are big endian.
func budgetID(rule, limit, namespace, caller string, begins time.Time) [16]byte {
	text := []byte("coatcheck budget v1\n")
	for _, name := range [...]string{rule, limit, namespace, caller} {
		text = binary.BigEndian.AppendUint32(text, uint32(len(name)))
		text = append(text, name...)
	}
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(text, uint64(begins.Unix())))
	return [16]byte(sum[:16])
}

// memberOf returns the member that stands for a subject, which is told by the id of its
// record: the first 16 bytes of the SHA-256 hash of
//
//	"coatcheck budget subject v1\n" id(8)
func memberOf(subject uint64) member {
	sum := sha256.Sum256(binary.BigEndian.AppendUint64([]byte("coatcheck budget subject v1\n"), subject))
	return member(sum[:16])
}

// left returns how much is left beside what the call draws.
func (b *budget) left() uint64 {
	took := b.spent + b.drawn + uint64(len(b.fresh))
	return b.most - min(took, b.most)
}

// hasRoom says whether there is room for a value more. subject is 0 for nobody.
func (b *budget) hasRoom(ctx context.Context, store tokenizer.Store, subject uint64) (bool, error) {
	if !b.subjects {
		return b.left() > 0, nil
	}
	if subject == 0 {
		return true, nil
	}
	m := memberOf(subject)
	if b.has(m) || b.left() > 0 {
		return true, nil
	}
	var unknown []member
	if _, absent := b.absent[m]; !absent {
		unknown = []member{m}
	}
	if err := b.ask(ctx, store, unknown...); err != nil {
		return false, err
	}
	if b.has(m) || b.left() > 0 {
		return true, nil
	}
	if b.absent == nil {
		b.absent = make(map[member]struct{})
	}
	b.absent[m] = struct{}{}
	return false, nil
}

// has says whether a subject would not count any more.
func (b *budget) has(m member) bool {
	_, fresh := b.fresh[m]
	_, counted := b.counted[m]
	return fresh || counted
}

// ask asks the store of subjects, and of those that are taken for new.
func (b *budget) ask(ctx context.Context, store tokenizer.Store, members ...member) error {
	members = append(members, b.unasked...)
	if len(members) == 0 {
		return nil
	}
	counted, err := store.Counted(ctx, b.id, members...)
	if err != nil {
		return err
	}
	b.unasked = nil
	for i, m := range members {
		if !counted[i] {
			continue
		}
		delete(b.fresh, m)
		if b.counted == nil {
			b.counted = make(map[member]struct{})
		}
		b.counted[m] = struct{}{}
	}
	return nil
}

// draw draws for a value. subject is 0 for nobody.
func (b *budget) draw(subject uint64) {
	if !b.subjects {
		b.drawn++
		return
	}
	m := memberOf(subject)
	if subject == 0 || b.has(m) {
		return
	}
	if b.fresh == nil {
		b.fresh = make(map[member]struct{})
	}
	b.fresh[m] = struct{}{}
	b.unasked = append(b.unasked, m)
}

// undo takes back what was drawn.
func (b *budget) undo() {
	b.drawn, b.fresh, b.unasked, b.counted, b.absent = 0, nil, nil, nil, nil
}

// spend returns what the call draws, if it draws anything.
func (b *budget) spend() (s tokenizer.Spend, ok bool) {
	s = tokenizer.Spend{Budget: b.id, Limit: b.most, Amount: b.drawn}
	for m := range b.fresh {
		s.Members = append(s.Members, m)
	}
	return s, s.Amount > 0 || len(s.Members) > 0
}
