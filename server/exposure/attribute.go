package exposure

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/coatcheck/coatcheck/tokenizer"
)

// attribute finds whose the digests are, and hands the accesses on by whose they are.
// Events name people by several digests, as keys are rotated; events of reveals from
// before they named people only name the tokens.
func (g *gathering) attribute(ctx context.Context, found *Found) error {
	if err := g.known(ctx, found); err != nil {
		return err
	}
	var owner, person ref
	return g.rows.each(func(r *row) error {
		if at := r.owner(); at != owner {
			owner, person = at, at
			if at[0] == kindToken {
				person = ref{kindUnknown}
			}
		}
		if r.mark() == markKnown {
			person = r.record()
			return nil
		}
		if len(g.wanted) > 0 && !g.isWanted(owner, person) {
			return nil
		}
		return found.rows.add(newRow(person, markAccess, r.record(), r.facet(), r.event(), r.time()))
	})
}

// isWanted says whether an access is to the person asked for, or may be: of those of whom
// nothing is known any more, it isn't known that they are somebody else.
func (g *gathering) isWanted(owner, person ref) bool {
	return slices.Contains(g.wanted, owner) || person[0] == kindUnknown || g.person != 0 && person == personRef(g.person)
}

// known adds rows that say whose the digests are of all that is stored.
func (g *gathering) known(ctx context.Context, found *Found) error {
	if g.subjects || len(g.unnamed) > 0 && len(g.wanted) > 0 {
		damaged, err := g.Tokenizer.AuditedSubjects(ctx, g.Namespace, func(a tokenizer.Audited) error {
			return g.knownAs(kindSubject, a)
		})
		if err != nil {
			return err
		}
		found.damaged += damaged
	}
	for _, profile := range slices.Sorted(maps.Keys(g.unnamed)) {
		damaged, err := g.Tokenizer.AuditedTokens(ctx, g.Namespace, profile, func(a tokenizer.Audited) error {
			return g.knownAs(kindToken, a)
		})
		if err != nil && !errors.Is(err, tokenizer.ErrUnknownProfile) { // that was declared once
			return err
		}
		found.damaged += damaged
	}
	return nil
}

// knownAs adds the rows of something that is stored.
func (g *gathering) knownAs(kind byte, a tokenizer.Audited) error {
	who := ref{kindNobody}
	if a.Subject != 0 {
		who = personRef(a.Subject)
	}
	for _, d := range a.Digests {
		r, ok := digestRef(kind, d)
		if !ok {
			continue
		}
		if kind == kindSubject && slices.Contains(g.wanted, r) {
			g.person = a.Subject
		}
		if err := g.rows.add(newRow(r, markKnown, who, 0, 0, epoch)); err != nil {
			return err
		}
	}
	return nil
}
