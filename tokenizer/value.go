package tokenizer

import (
	"fmt"
	"io"
	"log/slog"
)

// redacted is what stands for a value wherever one is printed.
const redacted = "[redacted]"

// Value is a sensitive plaintext. However it is printed, logged or marshalled
// it shows as "[redacted]"; Reveal is the one way to its content, so that a
// search for it finds every place where a value leaves this type.
//
// The zero Value is empty. A Value is immutable and safe for concurrent use.
type Value struct {
	// A pointer to a pointer: fmt prints unexported fields without asking
	// their methods, follows one pointer, and no more.
	content **string
}

// NewValue returns a Value with the content.
func NewValue(content string) Value {
	p := &content
	return Value{&p}
}

// Reveal returns the plaintext.
func (v Value) Reveal() string {
	if v.content == nil {
		return ""
	}
	return **v.content
}

// String returns "[redacted]".
func (v Value) String() string { return redacted }

// GoString returns "[redacted]".
func (v Value) GoString() string { return redacted }

// Format writes "[redacted]", whatever the verb.
func (v Value) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue returns "[redacted]".
func (v Value) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText returns "[redacted]"; encoding/json and others use it.
func (v Value) MarshalText() ([]byte, error) { return []byte(redacted), nil }
