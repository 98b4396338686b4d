package format

// minShown is the length of the shortest value of which the last four bytes
// may be shown: at least as much stays hidden as is seen.
const minShown = 8

// lastFour returns the last four bytes of a value, or none of a value that is
// too short to show them.
func lastFour(value []byte) []byte {
	if len(value) < minShown {
		return nil
	}
	return value[len(value)-4:]
}

// maskToLastFour appends an asterisk for each byte of the value but the last
// four, which it keeps. A value of seven bytes or fewer is covered whole.
//
// PCI DSS 4.0.1, 3.4.1 allows as much as the BIN and the last four digits to
// be shown; a mask has no need of the BIN.
func maskToLastFour(dst, value []byte) []byte {
	shown := lastFour(value)
	return append(appendStars(dst, len(value)-len(shown)), shown...)
}

// maskWhole appends eight asterisks, whatever the value and its length.
func maskWhole(dst, _ []byte) []byte { return append(dst, "********"...) }

// appendStars appends n asterisks.
func appendStars(dst []byte, n int) []byte {
	for range n {
		dst = append(dst, '*')
	}
	return dst
}
