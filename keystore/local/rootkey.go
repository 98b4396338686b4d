package local

import (
	"bytes"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"

	"github.com/coatcheck/coatcheck/keystore"
)

// A root key file is one PEM block (RFC 7468 in spirit, with headers as in RFC
// 1421) and, before it, lines for humans, which are ignored. A plain one:
//
//	-----BEGIN COATCHECK ROOT KEY-----
//	Key-Id: <the key's id, 16 hex digits>
//
//	<the 32 bytes>
//	-----END COATCHECK ROOT KEY-----
//
// An encrypted one:
//
//	-----BEGIN COATCHECK ENCRYPTED ROOT KEY-----
//	Kdf: argon2id
//	Kdf-Memory: <KiB>
//	Kdf-Salt: <16 bytes, in hex>
//	Kdf-Threads: <number>
//	Kdf-Time: <passes>
//	Key-Id: <as above>
//
//	<nonce(12) ciphertext(32) tag(16)>
//	-----END COATCHECK ENCRYPTED ROOT KEY-----
//
// It is sealed with AES-256-GCM under the key that Argon2id derives; the
// additional data is the type of the block and a line "Name: value" for each
// header in the order shown, all lines ended with "\n". There are no other
// headers, and each value has one form only.
const (
	plainType     = "COATCHECK ROOT KEY"
	encryptedType = "COATCHECK ENCRYPTED ROOT KEY"
	headerKeyID   = "Key-Id"
)

const (
	plainNote = `# The root key of Coatcheck, not encrypted. Whoever reads this file can open
# every value; without it, every value is lost. Keep it secret, keep its mode
# 0600, and keep a copy away from this host and from the backups of the data.
`
	encryptedNote = `# The root key of Coatcheck, encrypted under a passphrase. Without this file
# and its passphrase every value is lost: keep a copy of each, away from this
# host, from each other and from the backups of the data.
`
)

// maxFile bounds a root key file in bytes, with room for remarks.
const maxFile = 64 << 10

// encodeRootKey returns the file for a root key: plain if passphrase is nil,
// else encrypted.
func encodeRootKey(root, passphrase []byte, params kdfParams) ([]byte, error) {
	block := &pem.Block{
		Type:    plainType,
		Headers: map[string]string{headerKeyID: rootKeyID(root).String()},
		Bytes:   root,
	}
	note := plainNote
	if passphrase != nil {
		note = encryptedNote
		block.Type = encryptedType
		params.addTo(block.Headers)
		aead, err := newAEAD(params.derive(passphrase))
		if err != nil {
			return nil, err
		}
		block.Bytes = aead.Seal(nil, nil, root, additionalData(block))
	}
	return append([]byte(note), pem.EncodeToMemory(block)...), nil
}

// decodeRootKey returns the root key in a file. The errors are those of Open.
func decodeRootKey(file, passphrase []byte) ([]byte, error) {
	block, err := decodeBlock(file)
	if err != nil {
		return nil, err
	}
	id := block.Headers[headerKeyID]
	if raw, err := hex.DecodeString(id); err != nil || len(raw) != len(keyID{}) || hex.EncodeToString(raw) != id {
		return nil, fmt.Errorf("%w: header %s is not 16 lower-case hex digits", ErrFormat, headerKeyID)
	}
	var root []byte
	if block.Type == encryptedType {
		root, err = decrypt(block, passphrase)
	} else {
		root, err = plain(block, passphrase)
	}
	if err != nil {
		return nil, err
	}
	if rootKeyID(root).String() != id {
		clear(root)
		return nil, fmt.Errorf("%w: the key is not the one that header %s names", ErrFormat, headerKeyID)
	}
	return root, nil
}

// decodeBlock finds the one block in a file, which may have remarks before it
// and white space after it.
func decodeBlock(file []byte) (*pem.Block, error) {
	if n := bytes.Count(file, []byte("-----BEGIN")); n != 1 {
		return nil, fmt.Errorf("%w: %d PEM blocks where there should be one", ErrFormat, n)
	}
	block, rest := pem.Decode(file)
	if block == nil {
		return nil, fmt.Errorf("%w: the PEM block is damaged", ErrFormat)
	}
	if len(bytes.TrimSpace(rest)) != 0 {
		return nil, fmt.Errorf("%w: something stands behind the PEM block", ErrFormat)
	}
	if block.Type != plainType && block.Type != encryptedType {
		return nil, fmt.Errorf("%w: a PEM block of another type than %q", ErrFormat, plainType)
	}
	return block, nil
}

// plain returns the root key of a plain block.
func plain(block *pem.Block, passphrase []byte) ([]byte, error) {
	if len(block.Headers) != 1 || len(block.Bytes) != keystore.KeySize {
		return nil, fmt.Errorf("%w: a plain root key has one header and %d bytes", ErrFormat, keystore.KeySize)
	}
	if passphrase != nil {
		clear(block.Bytes)
		return nil, ErrNotEncrypted
	}
	return block.Bytes, nil
}

// decrypt returns the root key of an encrypted block.
func decrypt(block *pem.Block, passphrase []byte) ([]byte, error) {
	params, err := parseKDFParams(block.Headers)
	if err != nil {
		return nil, err
	}
	if len(block.Headers) != len(kdfHeaders)+1 || len(block.Bytes) != keystore.KeySize+keystore.Overhead {
		return nil, fmt.Errorf("%w: an encrypted root key has %d headers and %d bytes",
			ErrFormat, len(kdfHeaders)+1, keystore.KeySize+keystore.Overhead)
	}
	if len(passphrase) == 0 {
		return nil, ErrPassphraseRequired
	}
	aead, err := newAEAD(params.derive(passphrase))
	if err != nil {
		return nil, err
	}
	root, err := aead.Open(nil, nil, block.Bytes, additionalData(block))
	if err != nil {
		return nil, ErrPassphrase
	}
	return root, nil
}

// additionalData is what an encrypted root key is bound to: all of its block
// but the bytes.
func additionalData(block *pem.Block) []byte {
	names := make([]string, 0, len(block.Headers))
	for name := range block.Headers {
		names = append(names, name)
	}
	slices.Sort(names)
	var b strings.Builder
	b.WriteString(block.Type + "\n")
	for _, name := range names {
		b.WriteString(name + ": " + block.Headers[name] + "\n")
	}
	return []byte(b.String())
}
