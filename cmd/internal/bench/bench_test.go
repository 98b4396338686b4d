package bench

import (
	"sync/atomic"
	"testing"
)

// Subjects are about evenly spread over ten thousand, in a batch too.
func TestSubjects(t *testing.T) {
	l := &load{Options: Options{Subject: true}, next: new(atomic.Uint64)}
	subjects := make(map[string]int)
	for range 1000 {
		subjects[l.tokenizeRequest(l.newValue()).GetSubject()]++
	}
	if len(subjects) != 1000 {
		t.Errorf("a thousand values have %d subjects", len(subjects))
	}
	for range 99_000 {
		subjects[l.tokenizeRequest(l.newValue()).GetSubject()]++
	}
	if len(subjects) != 10_000 {
		t.Errorf("a hundred thousand values have %d subjects", len(subjects))
	}
}
