package server

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/coatcheck/coatcheck/server/audit"
	"github.com/coatcheck/coatcheck/server/policy"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// grant is what somebody has granted to a caller, as JSON in a state for as long as it
// may be in force. What has been used of it is a budget.
type grant struct {
	ID      string    `json:"id"` // of the approval
	Action  string    `json:"action"`
	Profile string    `json:"profile,omitempty"` // "" for any
	Purpose string    `json:"purpose,omitempty"` // likewise
	By      string    `json:"by"`
	Since   time.Time `json:"since"`
	Expires time.Time `json:"expires"` // whole seconds
	Items   uint64    `json:"items"`
}

// grantPrefix is what the keys of the grants of a caller by a rule begin with. When they
// expire comes next, so that those that have are passed over without a look at them.
func grantPrefix(caller, rule string) string {
	return "grant/" + callerDigest(caller) + "/" + rule + "/"
}

// grantKey is the key of what is granted by an approval.
func (a *approval) grantKey() string {
	return grantPrefix(a.Requester, a.Rule) + expiryKey(a.Expires) + a.ID
}

func expiryKey(t time.Time) string { return fmt.Sprintf("%012x/", t.Unix()) }

// budget is where it is counted what has been used. It stays for as long as the
// approval does.
func (g *grant) budget() tokenizer.Budget {
	sum := sha256.Sum256([]byte("coatcheck grant " + g.ID))
	return tokenizer.Budget{ID: [16]byte(sum[:]), Expires: g.Expires.Add(keptTime)}
}

// maxGrants is how many grants to one caller by one rule are looked at: those that
// expire first.
const maxGrants = 1000

// held is a grant that a call can draw on.
type held struct {
	grant
	key   string
	row   []byte
	limit uint64 // items, by the policy of now
	left  uint64 // of them
	drawn uint64 // by the call, and not yet in its unit
}

// grants are those that a part of a call can draw on. None are looked up until one is
// needed.
type grants struct {
	of     *approvals
	call   *call
	now    time.Time // since there are any
	byRule map[string][]*held
	used   []*held // of which something has been drawn
}

// grants returns the grants for a part of a call.
func (a *approvals) grants(c *call) grants { return grants{of: a, call: c} }

// ask returns a grant that has an item for a deed that policy has allowed; nil if it
// needs none.
//
// Errors: those of first.
func (g *grants) ask(ctx context.Context, d *deed) (*held, error) {
	needs := d.duties.Approval()
	if needs == nil {
		return nil, nil
	}
	h, err := g.first(ctx, needs, d.Profile, d.Purpose)
	if unapproved(err) {
		d.Decision = audit.Deny
	}
	return h, err
}

// first returns the first grant with an item left.
//
// Errors: errApprovalRequired, errApprovalUsed, tokenizer.ErrDamaged,
// tokenizer.ErrUnavailable, or that of ctx.
func (g *grants) first(ctx context.Context, needs *policy.Approval, profile, purpose string) (*held, error) {
	if g.byRule == nil {
		g.byRule, g.now = make(map[string][]*held), g.of.now()
	}
	all, known := g.byRule[needs.Rule]
	if !known {
		var err error
		if all, err = g.inForce(ctx, needs); err != nil {
			return nil, err
		}
		g.byRule[needs.Rule] = all
	}
	why := errApprovalRequired
	for _, h := range all {
		switch {
		case h.Profile != "" && h.Profile != profile, h.Purpose != "" && h.Purpose != purpose:
		case h.left == 0:
			why = errApprovalUsed
		default:
			return h, nil
		}
	}
	return nil, why
}

// inForce returns the grants to the caller for the action that are in force by the policy
// of the call, which may be stricter than the one by which they were granted. Those of
// callers who are suspended are not.
func (g *grants) inForce(ctx context.Context, needs *policy.Approval) (all []*held, err error) {
	caller, now := g.call.event.Caller, g.now
	prefix := grantPrefix(caller, needs.Rule)
	rows, err := g.of.store.ListStates(ctx, prefix, prefix+expiryKey(now)+"~", maxGrants)
	if err != nil {
		return nil, err
	}
	var budgets []tokenizer.Budget
	for _, row := range rows {
		h := &held{key: row.Key, row: row.Value}
		if h.grant, err = parseRow[grant]("a grant", row.Value); err != nil {
			return nil, err
		}
		if h.Action != g.call.method.action || !now.Before(h.Expires) || !now.Before(h.Since.Add(needs.For)) ||
			!needs.ApprovedBy(h.By, caller) || !g.mayDecide(h.By) || g.of.suspended.has(h.By) {
			continue
		}
		h.limit = min(h.Items, needs.MaxItems)
		all, budgets = append(all, h), append(budgets, h.budget())
	}
	if len(all) == 0 {
		return nil, nil
	}
	spent, err := g.of.store.Spent(ctx, budgets...)
	if err != nil {
		return nil, err
	}
	for i, h := range all {
		h.left = h.limit - min(h.limit, spent[i])
	}
	return all, nil
}

// mayDecide says whether an approver still has the right to decide, as far as that doesn't
// depend on from where and when it does.
func (g *grants) mayDecide(approver string) bool {
	request := policy.Request{Caller: approver, Action: "decide-approval", Time: g.now}
	switch d := g.call.policy.Decide(request); d.Reason {
	case policy.NoRule, policy.DeniedByRule, policy.TooManyRules:
		return false
	}
	return true
}

// unapproved says whether an error is that of want of approval.
func unapproved(err error) bool {
	return errors.Is(err, errApprovalRequired) || errors.Is(err, errApprovalUsed)
}

// take draws n items of a grant, which has as many.
func (g *grants) take(h *held, n uint64) {
	if h.drawn == 0 {
		g.used = append(g.used, h)
	}
	h.left, h.drawn = h.left-n, h.drawn+n
}

// draw adds to a unit what has been taken: that so much is left still, and
// that the grants have not been ended meanwhile, is settled in the commit.
func (g *grants) draw(unit *tokenizer.Unit) {
	for _, h := range g.used {
		unit.States = append(unit.States, tokenizer.StateChange{Key: h.key, Old: h.row, New: h.row})
		unit.Spends = append(unit.Spends, tokenizer.Spend{Budget: h.budget(), Limit: h.limit, Amount: h.drawn})
		unit.ExpireBudgets = g.now.Add(-tokenizer.BudgetSlack)
	}
	g.used = nil
}
