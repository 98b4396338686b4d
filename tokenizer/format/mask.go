package format

// maskToLastFour appends an asterisk for each byte of the value but the last
// four, which it keeps. A value of four bytes or fewer is covered whole.
//
// PCI DSS 4.0.1, 3.4.1 allows as much as the BIN and the last four digits to
// be shown; a mask has no need of the BIN.
func maskToLastFour(dst, value []byte) []byte {
	hidden := len(value) - 4
	if hidden <= 0 {
		hidden = len(value)
	}
	for range hidden {
		dst = append(dst, '*')
	}
	return append(dst, value[hidden:]...)
}

// maskWhole appends eight asterisks, whatever the value and its length.
func maskWhole(dst, _ []byte) []byte { return append(dst, "********"...) }
