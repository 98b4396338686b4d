package server

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/coatcheck/coatcheck/tokenizer"
)

// callerDigest stands for a caller in keys of states, which have no room for the longest
// names.
func callerDigest(caller string) string {
	sum := sha256.Sum256([]byte(caller))
	return hex.EncodeToString(sum[:])
}

// encodeRow returns what is kept of v in a state.
func encodeRow(v any) []byte {
	row, err := json.Marshal(v)
	if err != nil {
		panic(err) // a defect: there is nothing in these that JSON doesn't have
	}
	return row
}

// parseRow reads what encodeRow has made of what kind names, such as "a grant".
//
// Errors: tokenizer.ErrDamaged.
func parseRow[T any](kind string, row []byte) (v T, err error) {
	if err = json.Unmarshal(row, &v); err != nil {
		err = fmt.Errorf("%w: %s doesn't parse", tokenizer.ErrDamaged, kind)
	}
	return v, err
}
