package format

import (
	"bytes"
	"strings"
	"testing"
)

func TestBytes(t *testing.T) {
	typ := mustLookup(t, "bytes")
	var every []byte
	for c := range 256 {
		every = append(every, byte(c))
	}
	most := strings.Repeat("\xff", MaxBytes)
	for _, c := range []normalizeCase{
		{"one byte", "\x00", "\x00", nil},
		{"every byte", string(every), string(every), nil},
		{"1 MiB", most, most, nil},
		{"one byte more", most + "\xff", "", errBytesLength},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, typ) })
	}
	if got := typ.Mask(nil, bytes.Repeat(every, 9)); string(got) != "********" {
		t.Errorf("mask %q", got)
	}
}
