package vault

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math"
	"strconv"

	"github.com/coatcheck/coatcheck/keystore"
)

// A wrapped key is, in bytes, integers big endian:
//
//	format(1) = 1  root version(4)  length(2)  transit ciphertext(length)
//	nonce(12)  ciphertext(32)  tag(16)
//
// The transit ciphertext is what transit made of the key's own secret, as raw
// bytes: what Vault writes as "vault:v", the version, ":" and their base64. Kept
// as text it would have several spellings, since decoders of base64 are lenient.
// Root version is the version in that text. Nonce, ciphertext and tag are seal's.
//
// Root version and transit ciphertext are not in seal's additional data, so that
// Rewrap can replace them. Transit authenticates both.
const (
	storedFormat   = 1
	storedHeader   = 1 + 4 + 2
	storedSealed   = keystore.KeySize + keystore.Overhead
	maxTransit     = keystore.MaxWrapped - storedHeader - storedSealed
	transitVersion = "vault:v"
)

// stored is a wrapped key in its parts.
type stored struct {
	version uint32 // from 1, below 2³¹
	transit []byte // 1 to maxTransit bytes
	sealed  []byte // storedSealed bytes
}

// parseStored returns the parts of a wrapped key, which share its memory.
//
// Errors: keystore.ErrUnwrap for what build can't have made.
func parseStored(wrapped []byte) (stored, error) {
	foreign := fmt.Errorf("%w: %d bytes, which Vault's keystore has not wrapped", keystore.ErrUnwrap, len(wrapped))
	if len(wrapped) <= storedHeader+storedSealed || len(wrapped) > keystore.MaxWrapped || wrapped[0] != storedFormat {
		return stored{}, foreign
	}
	version, length := binary.BigEndian.Uint32(wrapped[1:]), int(binary.BigEndian.Uint16(wrapped[5:]))
	end := len(wrapped) - storedSealed
	if version == 0 || version > math.MaxInt32 || length != end-storedHeader {
		return stored{}, foreign
	}
	return stored{version: version, transit: wrapped[storedHeader:end], sealed: wrapped[end:]}, nil
}

// build returns the wrapped key that has these parts.
func (s stored) build() []byte {
	wrapped := make([]byte, 0, storedHeader+len(s.transit)+storedSealed)
	wrapped = append(wrapped, storedFormat)
	wrapped = binary.BigEndian.AppendUint32(wrapped, s.version)
	wrapped = binary.BigEndian.AppendUint16(wrapped, uint16(len(s.transit)))
	wrapped = append(wrapped, s.transit...)
	return append(wrapped, s.sealed...)
}

// ciphertext returns the transit ciphertext as Vault writes it.
func (s stored) ciphertext() []byte {
	text := strconv.AppendUint([]byte(transitVersion), uint64(s.version), 10)
	return base64.StdEncoding.AppendEncode(append(text, ':'), s.transit)
}

// parseCiphertext is the inverse of ciphertext: it accepts what that can return
// and nothing else.
func parseCiphertext(text []byte) (s stored, ok bool) {
	rest, ok := bytes.CutPrefix(text, []byte(transitVersion))
	if !ok {
		return stored{}, false
	}
	number, encoded, _ := bytes.Cut(rest, []byte(":"))
	version, err := strconv.ParseUint(string(number), 10, 31)
	if err != nil || version == 0 {
		return stored{}, false
	}
	raw, err := base64.StdEncoding.AppendDecode(nil, encoded)
	if err != nil || len(raw) == 0 || len(raw) > maxTransit {
		return stored{}, false
	}
	s = stored{version: uint32(version), transit: raw}
	return s, bytes.Equal(s.ciphertext(), text)
}
