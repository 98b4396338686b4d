package format

import (
	"strings"
	"testing"
)

func TestBankAccount(t *testing.T) {
	const account = "110000000/000123456789" // Stripe, for tests
	typ := mustLookup(t, "us-bank-account")
	for _, c := range []normalizeCase{
		{"as it is kept", account, account, nil},
		{"groups", "110000000/0001 2345-6789", account, nil},
		{"shortest", "110000000/0001", "110000000/0001", nil},
		{"longest", "110000000/12345678901234567", "110000000/12345678901234567", nil},
		{"government", "000001232/123456", "000001232/123456", nil},
		{"traveller's cheques", "800001238/123456", "800001238/123456", nil},
		{"no account", "110000000", "", errAccountForm},
		{"colon", "110000000:000123456789", "", errAccountForm},
		{"the other way round", "000123456789/110000000", "", errAccountForm},
		{"8 digits", "11000000/000123456789", "", errAccountForm},
		{"groups of a routing number", "1100 0000 0/000123456789", "", errAccountForm},
		{"letter O", "11O000000/000123456789", "", errAccountForm},
		{"full-width", "１１０/000123456789", "", errAccountForm},
		{"leading space", " 110000000/000123456789", "", errAccountForm},
		{"prefix 13", "130001238/000123456789", "", errRoutingPrefix},
		{"prefix 99", "990001232/000123456789", "", errRoutingPrefix},
		{"all zeros", "000000000/000123456789", "", errRoutingPrefix},
		{"wrong check digit", "110000001/000123456789", "", errRoutingCheck},
		{"two digits swapped", "101000000/000123456789", "", errRoutingCheck},
		{"empty account", "110000000/", "", errAccountNumber},
		{"letters", "110000000/ABC123456", "", errAccountNumber},
		{"two slashes", "110000000//000123456", "", errAccountNumber},
		{"space behind the slash", "110000000/ 000123456", "", errAccountNumber},
		{"two dashes", "110000000/000--123456", "", errAccountNumber},
		{"trailing newline", account + "\n", "", errAccountNumber},
		{"trailing dash", account + "-", "", errAccountNumber},
		{"3 digits", "110000000/123", "", errAccountLength},
		{"18 digits", "110000000/123456789012345678", "", errAccountLength},
		{"1 MiB of digits", "110000000/" + strings.Repeat("1", 1<<20), "", errAccountLength},
		{"account of zeros", "110000000/0000000", "", errAccountNothing},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, typ) })
	}
}

// abaDecisions says what this package does with the values of aba.csv that are
// for each product to decide.
var abaDecisions = decisions{"000000000": {false, "it is no bank"}}

func TestABAVectors(t *testing.T) {
	runVectors(t, "aba.csv", "us-bank-account", abaDecisions, func(routing string) string { return routing + "/000123456789" })
}
