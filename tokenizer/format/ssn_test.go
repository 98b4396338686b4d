package format

import "testing"

func TestSSN(t *testing.T) {
	typ := mustLookup(t, "ssn")
	for _, c := range []normalizeCase{
		{"digits", "536904399", "536904399", nil},
		{"dashes", "536-90-4399", "536904399", nil},
		{"spaces", "536 90 4399", "536904399", nil},
		{"lowest", "001-01-0001", "001010001", nil},
		{"before 666", "665-99-9999", "665999999", nil},
		{"after 666", "667-01-0001", "667010001", nil},
		{"highest", "899-99-9999", "899999999", nil},
		{"area 000", "000-12-3456", "", errSSNArea},
		{"area 666", "666123456", "", errSSNArea},
		{"area 900", "900-12-3456", "", errSSNArea},
		{"area 999", "999 99 9999", "", errSSNArea},
		{"ITIN", "912-90-3456", "", errSSNArea},
		{"group 00", "123-00-4567", "", errSSNGroup},
		{"serial 0000", "123-45-0000", "", errSSNSerial},
		{"wallet card", "078-05-1120", "", errSSNPublic},
		{"pamphlet", "219099999", "", errSSNPublic},
		{"advertisement", "457 55 5462", "", errSSNPublic},
		{"dash and space", "536-90 4399", "", errSSNForm},
		{"space and dash", "536 90-4399", "", errSSNForm},
		{"dots", "536.90.4399", "", errSSNForm},
		{"one dash", "536-904399", "", errSSNForm},
		{"dashes elsewhere", "53-690-4399", "", errSSNForm},
		{"dash for a digit", "536--0-4399", "", errSSNForm},
		{"8 digits", "53690439", "", errSSNForm},
		{"10 digits", "5369043990", "", errSSNForm},
		{"11 digits", "53690439900", "", errSSNForm},
		{"letter O", "536-90-439O", "", errSSNForm},
		{"masked", "*****4399", "", errSSNForm},
		{"full-width digits", "５３６", "", errSSNForm},
		{"leading space", " 536-90-4399", "", errSSNForm},
		{"leading space, 9 bytes", " 53690439", "", errSSNForm},
		{"trailing newline", "536904399\n", "", errSSNForm},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, typ) })
	}
}

// ssnDecisions says what this package does with the values of ssn.csv that are
// for each product to decide.
var ssnDecisions = decisions{
	"123-45-6789":   {true, "may be a person's; there is no list of placeholders to which more couldn't be added"},
	"111-11-1111":   {true, "likewise"},
	"333-33-3333":   {true, "likewise"},
	"123 45 6789":   {true, "as good a spelling as dashes"},
	" 536-90-4399":  {false, "what stands around a number is for the caller to remove"},
	"536-90-4399\n": {false, "likewise"},
}

func TestSSNVectors(t *testing.T) { runVectors(t, "ssn.csv", "ssn", ssnDecisions, nil) }

func FuzzSSN(f *testing.F) {
	for _, raw := range []string{"", "536904399", "536-90-4399", "536 90 4399", "000000000", "666-12-3456", "900123456", "123-00-4567", "123450000", "078-05-1120", "５３６"} {
		f.Add(raw)
	}
	typ := mustLookup(f, "ssn")
	f.Fuzz(func(t *testing.T, raw string) { fuzzDigits(t, typ, raw) })
}
