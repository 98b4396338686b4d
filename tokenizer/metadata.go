package tokenizer

import (
	"fmt"
	"regexp"
	"slices"
	"unicode/utf8"
)

// Bounds of the labels of a token.
const (
	MaxLabels       = 32
	MaxLabelValue   = 256  // bytes
	MaxMetadataSize = 4096 // bytes, keys and values together
)

var labelKey = regexp.MustCompile(`^[a-z][a-z0-9._-]{0,62}$`)

// appendMetadata appends the labels in a form that doesn't depend on the order
// of the map: key and value by turns, each behind its length, keys ascending.
// The error is an *InputError and names no label.
func appendMetadata(dst []byte, labels map[string]string) ([]byte, error) {
	if len(labels) == 0 {
		return dst, nil
	}
	bad := func(why string) ([]byte, error) {
		return dst, &InputError{ErrInvalidMetadata, why}
	}
	if len(labels) > MaxLabels {
		return bad(fmt.Sprintf("has more than %d labels", MaxLabels))
	}
	keys := make([]string, 0, len(labels))
	size := 0
	for key, value := range labels {
		if size += len(key) + len(value); size > MaxMetadataSize {
			return bad(fmt.Sprintf("is larger than %d bytes", MaxMetadataSize))
		}
		if !labelKey.MatchString(key) {
			return bad("has a key that is not of the form [a-z][a-z0-9._-]{0,62}")
		}
		if len(value) > MaxLabelValue {
			return bad(fmt.Sprintf("has a value longer than %d bytes", MaxLabelValue))
		}
		if !utf8.ValidString(value) {
			return bad("has a value that is not valid UTF-8")
		}
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		dst = appendField(dst, key)
		dst = appendField(dst, labels[key])
	}
	return dst, nil
}
