//go:build !race

package keystore_test

import "testing"

// The race detector makes pools forget at random, so this runs without it.
func TestHotPathAllocatesNothing(t *testing.T) {
	for name, f := range hotPath(t) {
		if n := testing.AllocsPerRun(1000, f); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}
