package format

import (
	"errors"
	"hash/crc32"
	"math"
	"strings"
)

// Sizes of an opaque token's parts, in bytes.
const (
	opaquePrefix     = "cc_"
	maxProfile       = 31
	maxVersionDigits = 6 // 62⁵ < 2³² < 62⁶
	crcDigits        = 6

	minOpaqueLen = len(opaquePrefix) + 1 + 1 + 1 + blockDigits + crcDigits
)

// MaxOpaqueLen is the length of the longest opaque token: 69 bytes.
const MaxOpaqueLen = len(opaquePrefix) + maxProfile + 1 + maxVersionDigits + blockDigits + crcDigits

// OpaquePattern is a regular expression, in the syntax that RE2 and PCRE share,
// that finds opaque tokens in a text. It has no groups. About what it finds
// ParseOpaque has the last word.
const OpaquePattern = `\bcc_[a-z][a-z0-9-]{0,30}_[1-9A-Za-z][0-9A-Za-z]{28,33}\b`

// ErrToken is what every error of ParseOpaque is, by errors.Is.
var ErrToken = errors.New("format: invalid token")

// tokenError is a class of failure; it names the part that is wrong.
type tokenError string

func (e tokenError) Error() string        { return "format: invalid token: bad " + string(e) }
func (e tokenError) Is(target error) bool { return target == ErrToken }

// Classes of failure, in the order in which they are looked for.
const (
	errTokenLength   tokenError = "length"
	errTokenPrefix   tokenError = "prefix"
	errTokenProfile  tokenError = "profile"
	errTokenChecksum tokenError = "checksum"
	errTokenVersion  tokenError = "version"
	errTokenBlock    tokenError = "block"
)

// ValidProfile says whether a name is fit for a profile: [a-z][a-z0-9-]{0,30}.
func ValidProfile(name string) bool {
	if name == "" || len(name) > maxProfile || name[0] < 'a' || name[0] > 'z' {
		return false
	}
	for i := range len(name) {
		if c := name[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// AppendOpaque appends the opaque token of a profile for a block that was made
// under a version of the token key. It appends at most MaxOpaqueLen bytes and
// allocates only to grow dst.
//
// It panics if the profile is not a ValidProfile or the version is zero: both
// are checked long before, and a token that can't be read again must not leave.
func AppendOpaque(dst []byte, profile string, version uint32, block *[16]byte) []byte {
	if !ValidProfile(profile) || version == 0 {
		panic("format: opaque token without a valid profile and version")
	}
	start := len(dst)
	dst = append(dst, opaquePrefix...)
	dst = append(dst, profile...)
	dst = append(dst, '_')
	dst = appendBase62(dst, uint64(version), widthBase62(uint64(version)))
	dst = appendBlock(dst, block)
	return appendBase62(dst, uint64(checksum(dst[start:])), crcDigits)
}

// ParseOpaque takes an opaque token apart. The profile is a part of the token's
// own memory. It allocates nothing.
//
// The error is ErrToken and says which part is wrong, but not what it holds;
// the other results are then zero. A token without an error is well formed. It
// says nothing about whether it was ever issued: that takes the key.
func ParseOpaque(token string) (profile string, version uint32, block [16]byte, err error) {
	fail := func(class tokenError) (string, uint32, [16]byte, error) {
		return "", 0, [16]byte{}, class
	}
	if len(token) < minOpaqueLen || len(token) > MaxOpaqueLen {
		return fail(errTokenLength)
	}
	rest, ok := strings.CutPrefix(token, opaquePrefix)
	if !ok {
		return fail(errTokenPrefix)
	}
	profile, rest, ok = strings.Cut(rest, "_")
	if !ok || !ValidProfile(profile) {
		return fail(errTokenProfile)
	}
	versionDigits := len(rest) - blockDigits - crcDigits
	if versionDigits < 1 || versionDigits > maxVersionDigits {
		return fail(errTokenLength)
	}
	crcStart := len(token) - crcDigits
	crc, ok := parseBase62(token[crcStart:])
	if !ok || crc != uint64(checksum(token[:crcStart])) {
		return fail(errTokenChecksum)
	}
	v, ok := parseBase62(rest[:versionDigits])
	if !ok || rest[0] == '0' || v > math.MaxUint32 {
		return fail(errTokenVersion)
	}
	block, ok = parseBlock(rest[versionDigits : versionDigits+blockDigits])
	if !ok {
		return fail(errTokenBlock)
	}
	return profile, uint32(v), block, nil
}

// checksum is crc32.ChecksumIEEE, which takes no string and lets its argument
// escape to the heap. Over the 30 to 40 bytes of a usual token this loop takes no
// longer than that does with its allocation, and callers keep their stack buffers.
func checksum[T string | []byte](s T) uint32 {
	crc := ^uint32(0)
	for i := range len(s) {
		crc = crc32.IEEETable[byte(crc)^s[i]] ^ crc>>8
	}
	return ^crc
}
