package format

import "testing"

func TestEIN(t *testing.T) {
	typ := mustLookup(t, "ein")
	for _, c := range []normalizeCase{
		{"digits", "123456789", "123456789", nil},
		{"dash", "12-3456789", "123456789", nil},
		{"space", "12 3456789", "123456789", nil},
		{"lowest", "01-0000000", "010000000", nil},
		{"highest", "99-9999999", "999999999", nil},
		{"prefix 00", "00-3456789", "", errEINPrefix},
		{"prefix 07", "073456789", "", errEINPrefix},
		{"prefix 97", "97 3456789", "", errEINPrefix},
		{"dot", "12.3456789", "", errEINForm},
		{"dash elsewhere", "1-23456789", "", errEINForm},
		{"two dashes", "12-345-789", "", errEINForm},
		{"like an SSN", "123-45-6789", "", errEINForm},
		{"8 digits", "12-345678", "", errEINForm},
		{"letter O", "12-345678O", "", errEINForm},
		{"leading space", " 123456789", "", errEINForm},
		{"full-width", "１２３", "", errEINForm},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, typ) })
	}
	if len(einPrefixes) != 100 {
		t.Errorf("%d prefixes", len(einPrefixes))
	}
}

// einDecisions says what this package does with the values of ein.csv that are
// for each product to decide.
var einDecisions = decisions{
	"12 3456789":   {true, "as good a spelling as a dash"},
	"12-3456789\n": {false, "what stands around a number is for the caller to remove"},
}

func TestEINVectors(t *testing.T) { runVectors(t, "ein.csv", "ein", einDecisions, nil) }
