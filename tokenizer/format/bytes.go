package format

// MaxBytes is the length of the longest value of the type "bytes".
const MaxBytes = 1 << 20

// errBytesLength says why a value is not of the type "bytes".
var errBytesLength = &ValueError{"is longer than 1 MiB"}

// normalizeBytes appends 1 to MaxBytes bytes as they are. Any will do.
func normalizeBytes(dst []byte, raw string) ([]byte, error) {
	if len(raw) > MaxBytes {
		return dst, errBytesLength
	}
	return append(dst, raw...), nil
}
