package local

import (
	"encoding/hex"
	"fmt"
	"strconv"

	"golang.org/x/crypto/argon2"

	"github.com/coatcheck/coatcheck/keystore"
)

// The headers of an encrypted root key that say how the passphrase becomes a
// key.
const (
	headerKDF     = "Kdf"
	headerMemory  = "Kdf-Memory"
	headerSalt    = "Kdf-Salt"
	headerThreads = "Kdf-Threads"
	headerTime    = "Kdf-Time"
)

var kdfHeaders = [...]string{headerKDF, headerMemory, headerSalt, headerThreads, headerTime}

const kdfArgon2id = "argon2id"

// Bounds of what a file may ask for, so that a hostile one can't exhaust the
// host before anything is authenticated. Too weak parameters need no bound:
// whoever lowers them in a file changes the key.
const (
	maxMemory  = 1 << 20 // KiB: 1 GiB
	maxTime    = 16
	maxThreads = 16
)

// kdfParams are the parameters of Argon2id (RFC 9106), version 0x13.
type kdfParams struct {
	salt    [16]byte
	time    uint32 // passes
	memory  uint32 // KiB
	threads uint8
}

// defaultParams is the second recommended option of RFC 9106, section 4, for
// a new file with this salt.
func defaultParams(salt [16]byte) kdfParams {
	return kdfParams{salt: salt, time: 3, memory: 64 << 10, threads: 4}
}

// derive returns the key of keystore.KeySize bytes for a passphrase.
func (p kdfParams) derive(passphrase []byte) []byte {
	return argon2.IDKey(passphrase, p.salt[:], p.time, p.memory, p.threads, keystore.KeySize)
}

// addTo sets the headers.
func (p kdfParams) addTo(headers map[string]string) {
	headers[headerKDF] = kdfArgon2id
	headers[headerSalt] = hex.EncodeToString(p.salt[:])
	headers[headerTime] = strconv.FormatUint(uint64(p.time), 10)
	headers[headerMemory] = strconv.FormatUint(uint64(p.memory), 10)
	headers[headerThreads] = strconv.FormatUint(uint64(p.threads), 10)
}

// parseKDFParams reads the headers; an error is ErrFormat.
func parseKDFParams(headers map[string]string) (kdfParams, error) {
	var p kdfParams
	if headers[headerKDF] != kdfArgon2id {
		return p, fmt.Errorf("%w: header %s is not %q", ErrFormat, headerKDF, kdfArgon2id)
	}
	salt, err := hex.DecodeString(headers[headerSalt])
	if err != nil || len(salt) != len(p.salt) || hex.EncodeToString(salt) != headers[headerSalt] {
		return p, fmt.Errorf("%w: header %s is not %d lower-case hex digits", ErrFormat, headerSalt, 2*len(p.salt))
	}
	copy(p.salt[:], salt)
	if p.time, err = parseNumber(headers, headerTime, 1, maxTime); err != nil {
		return p, err
	}
	threads, err := parseNumber(headers, headerThreads, 1, maxThreads)
	if err != nil {
		return p, err
	}
	p.threads = uint8(threads)
	p.memory, err = parseNumber(headers, headerMemory, 8*threads, maxMemory)
	return p, err
}

// parseNumber reads a header that is a decimal number from low to high, in its
// shortest form.
func parseNumber(headers map[string]string, name string, low, high uint32) (uint32, error) {
	n, err := strconv.ParseUint(headers[name], 10, 32)
	if err != nil || strconv.FormatUint(n, 10) != headers[name] || n < uint64(low) || n > uint64(high) {
		return 0, fmt.Errorf("%w: header %s is not a number from %d to %d", ErrFormat, name, low, high)
	}
	return uint32(n), nil
}
