package audit

import (
	"errors"
	"strings"
	"testing"

	"github.com/coatcheck/coatcheck/tokenizer"
)

// An event that no line could hold is refused before anything is written: once it
// were in the store, no segment could follow it.
func TestEventsFitALine(t *testing.T) {
	event := Event{Items: make([]Item, 1000)}
	for i := range event.Items {
		event.Items[i].StatedReason = strings.Repeat("x", maxLine/1000)
	}
	if _, err := NewLog(nil, nil).Commit(t.Context(), tokenizer.Unit{}, &event); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("error %v, want ErrTooLarge", err)
	}
}
