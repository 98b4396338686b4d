package server

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coatcheck/coatcheck/server/policy"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// What can't succeed on a profile of a mode is known beforehand.
func TestVainActions(t *testing.T) {
	about := func(p tokenizer.Profile) policy.ProfileVocabulary {
		p.Name = "p"
		return Vocabulary([]tokenizer.Profile{p}).Profiles["p"]
	}
	for name, row := range map[string]struct {
		p    tokenizer.Profile
		want string
	}{
		"stored":   {tokenizer.Profile{Type: "ssn"}, "lookup-token"},
		"look-ups": {tokenizer.Profile{Type: "ssn", Lookup: true}, ""},
		"fpe":      {tokenizer.Profile{Type: "ssn", Mode: tokenizer.FPE}, "create-honeytoken delete-honeytoken delete-token export-tokens get-token import-tokens list-honeytokens list-tokens restore-token revoke-token update-token"},
		"one-way": {tokenizer.Profile{Type: "ssn", Mode: tokenizer.OneWay},
			"create-honeytoken delete-honeytoken delete-token detokenize export-tokens get-token import-tokens list-honeytokens list-tokens lookup-token restore-token revoke-token update-token"},
		"verification values": {tokenizer.Profile{Type: "card-verification", TTL: time.Minute, MaxUses: 1}, "export-tokens import-tokens lookup-token"},
	} {
		if got := strings.Join(slices.Sorted(maps.Keys(about(row.p).Vain)), " "); got != row.want {
			t.Errorf("%s: %s, want %s", name, got, row.want)
		}
	}
}
