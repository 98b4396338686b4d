package exposure

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/coatcheck/coatcheck/tokenizer"
)

// attribute finds out what was accessed and whose it is, and hands the accesses on by
// whose they are. Events name tokens and people by several digests, as keys are rotated;
// those of reveals from before they named people name the tokens alone.
func (g *gathering) attribute(ctx context.Context, found *Found, size int) error {
	if err := g.lookUpTokens(ctx, found); err != nil {
		return err
	}
	people := newSorter(g.Scratch, size)
	defer people.close()
	if err := g.byPerson(people); err != nil {
		return err
	}
	g.rows.close()
	if err := g.lookUpPeople(ctx, found, people); err != nil {
		return err
	}
	return g.byOwner(people, found.rows)
}

// lookUpTokens adds rows that say which records tokens are, where that isn't clear.
func (g *gathering) lookUpTokens(ctx context.Context, found *Found) error {
	for _, profile := range slices.Sorted(maps.Keys(g.unknown)) {
		damaged, err := g.Tokenizer.AuditedTokens(ctx, g.Namespace, profile, func(a tokenizer.Audited) error {
			return addKnown(g.rows, kindToken, a.Digests, recordRef(a.Record, a.Subject))
		})
		if err != nil && !errors.Is(err, tokenizer.ErrUnknownProfile) { // that was declared once
			return err
		}
		found.damaged += damaged
	}
	return nil
}

// byPerson hands accesses on by whom their events name, or else whose the records are.
func (g *gathering) byPerson(people *sorter) error {
	var token, record ref
	return g.rows.each(func(r *row) error {
		if at := r.by(); at != token {
			token, record = at, at
		}
		if r.mark() == markKnown {
			record = r.other()
			return nil
		}
		person := r.other()
		switch {
		case person != ref{}:
		case record[0] == kindRecord:
			person = record.owner()
		default:
			person = ref{kindUnknown}
		}
		return people.add(newRow(person, markAccess, record, r.facet(), r.event(), r.time()))
	})
}

// lookUpPeople adds rows that say who the digests of people are.
func (g *gathering) lookUpPeople(ctx context.Context, found *Found, people *sorter) error {
	if !g.subjects && len(g.wanted) == 0 {
		return nil
	}
	damaged, err := g.Tokenizer.AuditedSubjects(ctx, g.Namespace, func(a tokenizer.Audited) error {
		if r, ok := digestRef(kindSubject, a.Digests[0]); ok && slices.Contains(g.wanted, r) {
			g.person = a.Subject
		}
		return addKnown(people, kindSubject, a.Digests, personRef(a.Subject))
	})
	found.damaged += damaged
	return err
}

// byOwner hands accesses on by whose they are, if that is who was asked for.
func (g *gathering) byOwner(people, owners *sorter) error {
	var person, owner ref
	return people.each(func(r *row) error {
		if at := r.by(); at != person {
			person, owner = at, at
		}
		if r.mark() == markKnown {
			owner = r.other()
			return nil
		}
		if len(g.wanted) > 0 && !g.isWanted(person, owner) {
			return nil
		}
		return owners.add(newRow(owner, markAccess, r.other(), r.facet(), r.event(), r.time()))
	})
}

// isWanted says whether an access is to the person asked for, or may be: of those of whom
// nothing is known any more, it isn't known that they are somebody else.
func (g *gathering) isWanted(person, owner ref) bool {
	return slices.Contains(g.wanted, person) || owner[0] == kindUnknown || g.person != 0 && owner == personRef(g.person)
}

// addKnown adds the rows that say what digests stand for.
func addKnown(rows *sorter, kind byte, digests []string, is ref) error {
	for _, d := range digests {
		if r, ok := digestRef(kind, d); ok {
			if err := rows.add(newRow(r, markKnown, is, 0, 0, epoch)); err != nil {
				return err
			}
		}
	}
	return nil
}
