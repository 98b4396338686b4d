package boltstore

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/coatcheck/coatcheck/tokenizer"
)

// A budget has a row for what it has come to, and one for each member that it has
// counted:
//
//	expires(8) budget(16) → spent(8) checksum(4)
//	expires(8) budget(16) member(16) → 1
//
// expires is in seconds since 1970, big endian as spent is, so what has expired comes
// before all else, and is removed from there on. The checksum is like that of the
// census: a bit that flips in a count must not open a budget that is spent. Rows are
// not encrypted, since there is nothing in them but hashes, counts and times.

const budgetKeySize = 8 + 16

// maxExpired is how many rows of expired budgets a frame removes beside as many as it
// writes.
const maxExpired = 256

// counted is what a member's row holds.
var counted = []byte{1}

// budgetKey appends the key of a budget.
func budgetKey(dst []byte, b tokenizer.Budget) []byte {
	return append(binary.BigEndian.AppendUint64(dst, uint64(b.Expires.Unix())), b.ID[:]...)
}

// validateSpends refuses what nobody can spend.
func validateSpends(unit *tokenizer.Unit) error {
	spends, first := unit.Spends, int64(1)
	if !unit.ExpireBudgets.IsZero() {
		first = max(first, unit.ExpireBudgets.Unix())
	}
	for i := range spends {
		s := &spends[i]
		switch {
		case s.Budget.Expires.Unix() < first:
			return fmt.Errorf("%w: a spend on a budget that has expired", tokenizer.ErrBadUnit)
		case (s.Amount == 0) == (len(s.Members) == 0):
			return fmt.Errorf("%w: a spend has either an amount or members", tokenizer.ErrBadUnit)
		}
	}
	return distinct(len(spends), "two spends on one budget", func(i int) [budgetKeySize]byte {
		return [budgetKeySize]byte(budgetKey(nil, spends[i].Budget))
	})
}

// distinct refuses a unit two of whose n parts have one key.
func distinct[K comparable](n int, what string, key func(i int) K) error {
	if n < 2 {
		return nil
	}
	seen := make(map[K]struct{}, n)
	for i := range n {
		seen[key(i)] = struct{}{}
	}
	if len(seen) < n {
		return fmt.Errorf("%w: %s", tokenizer.ErrBadUnit, what)
	}
	return nil
}

// checkSpends plans the spends of a unit. It refuses them all if one doesn't fit.
func (g *txGroup) checkSpends(spends []tokenizer.Spend, p *plan) error {
	if len(spends) == 0 {
		return nil
	}
	budgets := g.budgetRows()
	for i := range spends {
		s := &spends[i]
		key := budgetKey(make([]byte, 0, budgetKeySize), s.Budget)
		spent, err := parseSpent(key, budgets.Get(key))
		if err != nil {
			return err
		}
		amount := s.Amount
		if len(s.Members) > 0 {
			before := len(p.budgets)
			p.budgets = appendUncounted(p.budgets, budgets, key, s.Members)
			amount = uint64(len(p.budgets) - before)
		}
		switch {
		case amount == 0:
		case spent > s.Limit || amount > s.Limit-spent:
			return &tokenizer.BudgetError{Spend: i, Spent: spent}
		default:
			p.budgets = append(p.budgets, change{budgetsID, string(key), countForm(key, spent+amount)})
		}
	}
	return nil
}

// appendUncounted appends rows for those members that a budget hasn't counted.
func appendUncounted(rows []change, budgets *txBucket, budget []byte, members [][16]byte) []change {
	var seen map[[16]byte]struct{}
	if len(members) > 1 {
		seen = make(map[[16]byte]struct{}, len(members))
	}
	key := make([]byte, 0, budgetKeySize+16)
	for _, m := range members {
		if _, again := seen[m]; again {
			continue
		}
		if seen != nil {
			seen[m] = struct{}{}
		}
		if key = append(append(key[:0], budget...), m[:]...); budgets.Get(key) == nil {
			rows = append(rows, change{budgetsID, string(key), counted})
		}
	}
	return rows
}

// budgetRows are the budgets as the units before have left them.
func (g *txGroup) budgetRows() *txBucket {
	if g.budgets == nil {
		g.budgets = newTxBucket(g.view, budgetsID)
	}
	return g.budgets
}

// removeExpired removes rows of budgets that expired before the time that units have
// named, and notes up to where there are none any more. The next look begins there, and
// is left out if nothing can have expired: what has been removed stays in the way until
// it is gone from the file.
func (g *txGroup) removeExpired() {
	if g.expired > 0 {
		g.removeBefore(string(idKey(g.expired)))
	}
	if g.budgets == nil {
		return
	}
	for key, value := range g.budgets.changed {
		if value != nil && key < g.firstBudget {
			g.firstBudget = key
		}
	}
}

// removeBefore removes rows from the first budget on, up to a key.
func (g *txGroup) removeBefore(end string) {
	from := g.firstBudget
	if end <= from {
		return
	}
	budgets := g.budgetRows()
	left := maxExpired + len(budgets.changed)
	g.firstBudget = end
	budgets.ascend([]byte(from), func(key, _ []byte) bool {
		if string(key) >= end {
			return false
		}
		if left == 0 {
			g.firstBudget = string(key)
			return false
		}
		left--
		budgets.set(key, nil)
		return true
	})
}

// parseSpent reads what a budget has come to.
func parseSpent(key, stored []byte) (spent uint64, err error) {
	if stored == nil {
		return 0, nil
	}
	spent, ok := parseCount(key, stored)
	if !ok {
		return 0, fmt.Errorf("%w: what a budget has come to", tokenizer.ErrDamaged)
	}
	return spent, nil
}

// Spent reads what budgets have come to.
func (s *Store) Spent(ctx context.Context, budgets ...tokenizer.Budget) ([]uint64, error) {
	spent := make([]uint64, len(budgets))
	var key []byte
	keyOf := func(i int) []byte {
		key = budgetKey(key[:0], budgets[i])
		return key
	}
	err := s.lookUp(ctx, budgetsID, len(budgets), keyOf, func(i int, stored []byte) (err error) {
		spent[i], err = parseSpent(keyOf(i), stored)
		return err
	})
	if err != nil {
		return nil, err
	}
	return spent, nil
}

// Counted looks for members of a budget.
func (s *Store) Counted(ctx context.Context, budget tokenizer.Budget, members ...[16]byte) ([]bool, error) {
	is := make([]bool, len(members))
	key := budgetKey(nil, budget)
	err := s.lookUp(ctx, budgetsID, len(members), func(i int) []byte {
		key = append(key[:budgetKeySize], members[i][:]...)
		return key
	}, func(i int, stored []byte) error {
		is[i] = stored != nil
		return nil
	})
	if err != nil {
		return nil, err
	}
	return is, nil
}
