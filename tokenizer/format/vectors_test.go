package format

import (
	"encoding/csv"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// vectorDir stands beside the repository.
const vectorDir = "../../../shared/vectors"

// decisions says of values whose validity is for each product to decide whether
// this package takes them, and why.
type decisions map[string]struct {
	accept bool
	why    string
}

// runVectors checks a type against a file of vectors. Each of the decisions must
// be about a row, and each row that is to be decided must have one. Unless it is
// nil, wrap makes a raw value of the type of a vector.
func runVectors(t *testing.T, file, typeName string, decided decisions, wrap func(string) string) {
	t.Helper()
	f, err := os.Open(filepath.Join(vectorDir, file))
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("%s does not stand beside the repository", file)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	typ := mustLookup(t, typeName)
	seen := 0
	for _, row := range rows[1:] {
		raw, valid, why := row[0], row[1], row[2]
		accept := valid == "true"
		if valid == "depends" {
			decision, ok := decided[raw]
			if !ok {
				t.Errorf("%q is not decided: %s", raw, why)
				continue
			}
			accept = decision.accept
			seen++
		}
		if wrap != nil {
			raw = wrap(raw)
		}
		_, err := typ.Normalize(nil, raw)
		if accept != (err == nil) || (err != nil && !errors.Is(err, ErrValue)) {
			t.Errorf("%q is %s (%s), got error %v", raw, valid, why, err)
		}
	}
	if seen != len(decided) {
		t.Errorf("%d of %d decisions are about a row", seen, len(decided))
	}
}
