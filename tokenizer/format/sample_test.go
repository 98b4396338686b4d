package format

import "testing"

// TestSample: samples are good values, and vary in what tokens keep of them.
func TestSample(t *testing.T) {
	patterned := TypeOptions{Pattern: `[A-Z]{2}\d{6}`}
	for _, row := range []struct {
		name    string
		options TypeOptions
		kinds   int // of kept parts that there are at least, in many samples
		kept    func(value string) string
	}{
		{"card-number", TypeOptions{}, 500, endOf},
		{"card-number", TypeOptions{}, 500, func(v string) string { return v[:6] }},
		{"card-verification", TypeOptions{}, 300, func(v string) string { return v }},
		{"ein", TypeOptions{}, 500, endOf},
		{"itin", TypeOptions{}, 500, endOf},
		{"ssn", TypeOptions{}, 500, endOf},
		{"passport", patterned, 500, endOf},
		{"driver-licence", patterned, 500, endOf},
		{"email", TypeOptions{}, len(sampleDomains), func(v string) string { return v[len("someone"):] }},
		{"phone", TypeOptions{}, 500, endOf},
		{"phone", TypeOptions{Region: "DE"}, 500, endOf},
		{"phone", TypeOptions{Region: "DE"}, 1, func(v string) string { return v[:3] }},
		{"text", TypeOptions{}, 1, func(v string) string { return v }},
	} {
		typ, err := NewType(row.name, row.options)
		if err != nil {
			t.Fatal(err)
		}
		seen := make(map[string]bool)
		for range 1000 {
			value, err := typ.Normalize(nil, typ.Sample())
			if err != nil {
				t.Fatalf("%s: a sample is no good: %v", row.name, err)
			}
			seen[row.kept(string(value))] = true
		}
		if len(seen) < row.kinds {
			t.Errorf("%s %v: only %d kinds in 1000 samples, want %d", row.name, row.options, len(seen), row.kinds)
		}
	}
	for _, name := range Names() {
		if typ, ok := Lookup(name); ok {
			if _, err := typ.Normalize(nil, typ.Sample()); err != nil {
				t.Errorf("%s: a sample is no good: %v", name, err)
			}
		}
	}
}

func endOf(value string) string { return value[len(value)-4:] }
