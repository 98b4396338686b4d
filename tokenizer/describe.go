package tokenizer

import (
	"fmt"
	"math/big"

	"github.com/coatcheck/coatcheck/tokenizer/format"
)

// Description is what can be said of a profile's tokens without a key.
type Description struct {
	Example  string   // a token, or in the mode OneWay a masked form; nobody's
	Capacity *big.Int // how many tokens there are for a usual value, such as a card number of 16 digits; nil in the mode OneWay
	Notes    []string // which limits of which standards it keeps to or is near to
}

// Describe describes the tokens of a profile. The error is a *ProfileError.
func (p Profile) Describe() (Description, error) {
	c, err := p.compile()
	if err != nil {
		return Description{}, err
	}
	switch {
	case c.Mode == OneWay:
		value, err := c.dataType.Normalize(nil, c.dataType.Example())
		return Description{Example: string(c.dataType.Mask(nil, value)), Notes: c.notes(nil)}, err
	case c.shape == nil:
		block := [16]byte([]byte("example, no more"))
		capacity := new(big.Int).Lsh(big.NewInt(1), 64)
		return Description{string(format.AppendOpaque(nil, c.Name, 1, &block)), capacity, c.notes(nil)}, nil
	}
	value, err := c.dataType.Normalize(nil, c.dataType.Example())
	if err != nil {
		return Description{}, err
	}
	capacity := new(big.Int)
	if c.Mode == FPE {
		if frame, err := c.shape.FPEFrame(value); err == nil {
			capacity = frame.Domain()
		}
	} else if frame, err := c.shape.Frame(value); err == nil {
		capacity = frame.Capacity()
	}
	return Description{c.shape.Example(), capacity, c.notes(capacity)}, nil
}

// Limits that profiles are held against.
const (
	fewTokens   = 1_000_000_000
	nearMinimum = 1_000_000_000 // FF1 demands a million (SP 800-38G Rev 1)
)

// notes says what somebody who answers for the profile should know.
func (p *profile) notes(capacity *big.Int) (notes []string) {
	note := func(text string, args ...any) { notes = append(notes, fmt.Sprintf(text, args...)) }
	card := p.dataType.Luhn()
	switch {
	case p.Mode == FPE && capacity.Cmp(big.NewInt(nearMinimum)) < 0:
		note("FF1 over %v values of the usual length; NIST SP 800-38G Rev 1 demands 1000000, and values for which there are fewer are refused", capacity)
	case p.shape != nil && p.Mode != FPE:
		if capacity.Cmp(big.NewInt(fewTokens)) < 0 {
			note("%v tokens for a usual value: FORMAT_FULL when they are used up, deleted ones included", capacity)
		}
		if least := p.shape.Capacity(); least.Sign() == 0 {
			note("values that are too short for what is kept of them are refused")
		} else if least.Cmp(capacity) < 0 && least.Cmp(big.NewInt(fewTokens)) < 0 {
			note("%v tokens for the shortest values", least)
		}
	}
	if shown := p.shown(); card && shown != "" {
		note("tokens show %s of the card number; PCI DSS 3.4.1 allows the BIN, of up to 8 digits where the number has 16, and the last four", shown)
	}
	if card && p.shape != nil && p.Shape.Luhn != "" && p.Shape.Luhn != "never" {
		note("luhn %s: a token may be a live card number (PCI Tokenization Guidelines want them told apart)", p.Shape.Luhn)
	}
	if p.dataType.Ephemeral() && p.Mode != OneWay {
		note("shredded on redemption, or after %v at the latest: PCI DSS 3.3.1", p.Retention)
	}
	return notes
}

// shown says which digits of a value tokens show, "" for none.
func (p *profile) shown() string {
	first, last := p.Shape.KeepFirst, p.Shape.KeepLast
	switch {
	case first > 0 && last > 0:
		return fmt.Sprintf("the first %d and the last %d digits", first, last)
	case first > 0:
		return fmt.Sprintf("the first %d digits", first)
	case last > 0:
		return fmt.Sprintf("the last %d digits", last)
	}
	return ""
}
