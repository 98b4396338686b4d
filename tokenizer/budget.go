package tokenizer

import (
	"errors"
	"fmt"
	"time"
)

// ErrBudgetSpent says that a unit draws more on a budget than is left of it. The
// error is a BudgetError then.
var ErrBudgetSpent = errors.New("tokenizer: budget spent")

// Budget names a budget. What a Store keeps of it is not encrypted, so it has to be
// nothing that tells of a value.
type Budget struct {
	// ID says whose budget it is, by what rule, and for which window: a hash of
	// all that, cut to size.
	ID [16]byte

	// Expires is when nobody needs to know any more what the budget has come to, at
	// the end of its window or later; to the second, after 1970. It is a part of the
	// name: with another, it is another budget.
	Expires time.Time
}

// BudgetSlack is for how long budgets are kept beyond their end, longer than a call takes
// and than clocks differ: nobody draws any more on what Unit.ExpireBudgets removes.
const BudgetSlack = 24 * time.Hour

// Spend draws on a budget. Spends don't conflict: any number of units may draw on
// one budget at once, and all are settled as long as it lasts.
type Spend struct {
	Budget Budget

	// Limit is what the budget may come to with this spend. It isn't kept: a later
	// spend may have another.
	Limit uint64

	// Amount is what is drawn, at least 1, if there are no Members.
	Amount uint64

	// Members are things of which each counts 1, and only once in the life of the
	// budget: keyed digests of subjects, say. If all have been counted, nothing is
	// drawn, which is always possible.
	Members [][16]byte
}

// BudgetError says which spend of a unit doesn't fit. It is an ErrBudgetSpent.
type BudgetError struct {
	Spend int    // which of the unit's Spends, from 0
	Spent uint64 // what the budget has come to without it
}

func (e *BudgetError) Error() string {
	return fmt.Sprintf("%v: spend %d, %d before it", ErrBudgetSpent, e.Spend, e.Spent)
}

// Unwrap returns ErrBudgetSpent.
func (e *BudgetError) Unwrap() error { return ErrBudgetSpent }
