package limit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/coatcheck/coatcheck/server/policy"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// Meter measures one call, or a group of a stream after the other. It is not safe for
// concurrent use.
//
//	Next     begins a group; a new Meter has begun one
//	Restart  if it is done again, from the first item on
//	Pay      for each item that is allowed
//	Draw     for each value that is revealed
//	Settle   adds what is drawn to the unit, once
//	Done     once that is committed, or isn't
type Meter struct {
	limiter           *Limiter
	namespace, caller string

	now     time.Time // in whose windows budgets are; zero until one is drawn on
	paid    []*payment
	budgets []*budget
	of      []*policy.Limits // whose budgets those are
	refused map[Name]uint64
	told    []state
}

// state is what is told of a limit.
type state struct {
	name  Name
	left  uint64
	until time.Time // when there is all of it again
}

// Meter returns a Meter of a caller.
func (l *Limiter) Meter(namespace, caller string) *Meter {
	return &Meter{limiter: l, namespace: namespace, caller: caller}
}

// Next begins a group of other items.
func (m *Meter) Next() {
	m.Restart()
	m.paid = nil
}

// Restart forgets what has been drawn and refused. What has been paid is good for the
// same items again. The budgets are read anew, in the windows of now.
func (m *Meter) Restart() {
	for _, p := range m.paid {
		p.used = 0
	}
	m.now, m.budgets, m.of, m.refused = time.Time{}, nil, nil, nil
}

// Undo forgets what has been drawn and refused for values, and nothing else.
func (m *Meter) Undo() {
	for _, b := range m.budgets {
		b.undo()
	}
	m.refused = nil
}

// Pay counts an item that is allowed within limits.
//
// Errors: an Error, which is an ErrRate; nothing is counted then.
func (m *Meter) Pay(limits []*policy.Limits) error {
	var keys [8]bucketKey
	var at [8]*payment
	payments := at[:0]
	for _, key := range appendRates(keys[:0], limits, m.caller) {
		payments = append(payments, m.payment(key))
	}
	if len(payments) == 0 {
		return nil
	}
	return m.refuse(m.limiter.rates.pay(payments, m.limiter.now()))
}

// payment returns what has been paid to a bucket.
func (m *Meter) payment(key bucketKey) *payment {
	for _, p := range m.paid {
		if p.key == key {
			return p
		}
	}
	p := &payment{key: key}
	m.paid = append(m.paid, p)
	return p
}

// Draw counts a value that is revealed within limits. subject is the id of the record of
// the person whom it is about, 0 for nobody.
//
// Errors: an Error, which is a tokenizer.ErrBudgetSpent, and those of
// tokenizer.Store.Spent; nothing is counted then.
func (m *Meter) Draw(ctx context.Context, limits []*policy.Limits, subject uint64) error {
	if err := m.read(ctx, limits); err != nil {
		return err
	}
	var worst *Error
	for i, b := range m.budgets {
		if !m.drawnBy(limits, i) {
			continue
		}
		ok, err := b.hasRoom(ctx, m.limiter.store, subject)
		if err != nil {
			return err
		}
		if !ok {
			worst = longer(worst, &Error{b.Name, tokenizer.ErrBudgetSpent, b.id.Expires.Sub(m.now)})
		}
	}
	if worst != nil {
		return m.refuse(worst)
	}
	for i, b := range m.budgets {
		if m.drawnBy(limits, i) {
			b.draw(subject)
		}
	}
	return nil
}

// drawnBy says whether a budget is one of the limits.
func (m *Meter) drawnBy(limits []*policy.Limits, budget int) bool {
	return slices.Contains(limits, m.of[budget])
}

// read reads those budgets of limits that have not been read.
func (m *Meter) read(ctx context.Context, limits []*policy.Limits) error {
	if m.now.IsZero() {
		m.now = m.limiter.now()
	}
	begun := len(m.budgets)
	budgets := m.budgets
	of := m.of
	for _, l := range limits {
		if slices.Contains(of, l) {
			continue
		}
		budgets = appendBudgets(budgets, l, m.namespace, m.caller, m.now)
		for len(of) < len(budgets) {
			of = append(of, l)
		}
	}
	if len(budgets) == begun {
		return nil
	}
	ids := make([]tokenizer.Budget, 0, len(budgets)-begun)
	for _, b := range budgets[begun:] {
		ids = append(ids, b.id)
	}
	spent, err := m.limiter.store.Spent(ctx, ids...)
	if err != nil {
		return err
	}
	for i, b := range budgets[begun:] {
		b.spent = spent[i]
	}
	m.budgets, m.of = budgets, of
	return nil
}

// refuse counts a refusal.
func (m *Meter) refuse(err error) error {
	var beyond *Error
	if !errors.As(err, &beyond) {
		return err
	}
	if m.refused == nil {
		m.refused = make(map[Name]uint64)
	}
	m.refused[beyond.Name]++
	return err
}

// Settle adds to a unit what is drawn on budgets. It is called once for a unit.
//
// Errors: those of tokenizer.Store.Counted.
func (m *Meter) Settle(ctx context.Context, unit *tokenizer.Unit) error {
	for _, b := range m.budgets {
		if err := b.ask(ctx, m.limiter.store); err != nil {
			return err
		}
		if s, ok := b.spend(); ok {
			unit.Spends = append(unit.Spends, s)
			unit.ExpireBudgets = m.now.Add(-tokenizer.BudgetSlack)
		}
	}
	return nil
}

// Done ends the group; committed says whether the unit is.
func (m *Meter) Done(committed bool) {
	for _, b := range m.budgets {
		if !committed {
			b.undo()
		}
		m.tell(state{b.Name, b.left(), b.id.Expires})
	}
	now := m.limiter.now()
	for _, p := range m.paid {
		left, full := m.limiter.rates.left(p.key, now)
		m.tell(state{p.key.Name, left, now.Add(full)})
	}
	m.limiter.count(m.refused)
	m.Next()
}

// tell notes the newest state of a limit.
func (m *Meter) tell(s state) {
	if i := slices.IndexFunc(m.told, func(t state) bool { return t.name == s.name }); i >= 0 {
		m.told[i] = s
	} else {
		m.told = append(m.told, s)
	}
}

// maxLeft is of how many limits Left tells, so that it fits the header block that any
// client takes.
const maxLeft = 32

// Left tells what is left of each of the limits, those of which least is left first, in
// the form of an item of the header field RateLimit:
//
//	"support-sees-ssn/values_per_hour";r=37;t=1234
//
// r is how much is left, and t in how many seconds there is all of it again.
func (m *Meter) Left() []string {
	now := m.limiter.now()
	slices.SortStableFunc(m.told, func(a, b state) int { return cmp.Compare(a.left, b.left) })
	var text []string
	for _, s := range m.told[:min(len(m.told), maxLeft)] {
		seconds := math.Ceil(max(s.until.Sub(now), 0).Seconds())
		text = append(text, fmt.Sprintf("\"%s/%s\";r=%d;t=%.0f", s.name.Rule, s.name.Limit, s.left, seconds))
	}
	return text
}
