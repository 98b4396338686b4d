package format

import "testing"

func TestITIN(t *testing.T) {
	typ := mustLookup(t, "itin")
	for _, c := range []normalizeCase{
		{"digits", "900700000", "900700000", nil},
		{"dashes", "912-90-3456", "912903456", nil},
		{"spaces", "999 99 9999", "999999999", nil},
		{"group 50", "900-50-0000", "900500000", nil},
		{"group 65", "900-65-0000", "900650000", nil},
		{"group 88", "900-88-0000", "900880000", nil},
		{"group 92", "900-92-0000", "900920000", nil},
		{"group 94", "900-94-0000", "900940000", nil},
		{"group 00", "900-00-0000", "", errITINGroup},
		{"group 49", "900-49-0000", "", errITINGroup},
		{"group 66", "900-66-0000", "", errITINGroup},
		{"group 69", "900-69-0000", "", errITINGroup},
		{"group 89", "900-89-0000", "", errITINGroup},
		{"ATIN", "900-93-0000", "", errITINGroup},
		{"SSN", "536-90-4399", "", errITINArea},
		{"dash and space", "912-90 3456", "", errSSNForm},
		{"8 digits", "91290345", "", errSSNForm},
		{"letter O", "912-90-345O", "", errSSNForm},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, typ) })
	}
}
