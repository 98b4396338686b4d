package policy

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
)

// TestSchemaNames compares the names in the schema with those that the parser takes.
func TestSchemaNames(t *testing.T) {
	var root any
	if err := json.Unmarshal([]byte(Schema()), &root); err != nil {
		t.Fatal(err)
	}
	at := func(path string) any {
		t.Helper()
		here := root
		for step := range strings.SplitSeq(path, " ") {
			next, ok := here.(map[string]any)[step]
			if !ok {
				t.Fatalf("the schema has no %s", path)
			}
			here = next
		}
		return here
	}
	limits := make(map[string]bool)
	for _, b := range (&Limits{}).bounds() {
		limits[b.name] = true
	}
	const rule = "$defs rule properties"
	for path, want := range map[string]map[string]bool{
		"properties":                          fileKeys,
		rule:                                  ruleKeys,
		rule + " valid properties":            validKeys,
		rule + " limits properties":           limits,
		rule + " approval properties":         approvalKeys,
		"properties groups patternProperties": {groupForm.String(): true},
	} {
		have := slices.Sorted(maps.Keys(at(path).(map[string]any)))
		if !slices.Equal(have, slices.Sorted(maps.Keys(want))) {
			t.Errorf("%s: the schema has %v, the parser %v", path, have, slices.Sorted(maps.Keys(want)))
		}
	}
	for path, want := range map[string][]string{
		"$defs form enum":           revealNames[Masked:],
		rule + " effect enum":       {string(Allow), string(Deny), string(Oblige)},
		rule + " consent enum":      {string(consentRespect), string(consentRequire), string(consentIgnore)},
		rule + " approval required": {"approvers", "for", "max_items"},
	} {
		var have []string
		for _, name := range at(path).([]any) {
			have = append(have, name.(string))
		}
		if !slices.Equal(have, want) {
			t.Errorf("%s: the schema has %v, not %v", path, have, want)
		}
	}
	for path, want := range map[string]any{
		rule + " name pattern":           ruleForm.String(),
		rule + " purposes items pattern": purposeForm.String(),
		rule + " when maxLength":         float64(maxExpression),
		rule + " reason maxLength":       256.0,
		"$defs count maximum":            float64(maxLimit),
		"properties version const":       1.0,
	} {
		if have := at(path); have != want {
			t.Errorf("%s: the schema has %v, the parser %v", path, have, want)
		}
	}
	for key := range at(rule).(map[string]any) {
		if description, _ := at(rule + " " + key).(map[string]any)["description"].(string); description == "" {
			t.Errorf("%s has no description for editors", key)
		}
	}
}
