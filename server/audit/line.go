package audit

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"

	"github.com/coatcheck/coatcheck/tokenizer"
)

// Sentinels of what stands in a segment.
var (
	// ErrTorn says that a log ends in an unfinished line, which is what a crash
	// leaves of the last write. Everything before it is whole.
	ErrTorn = errors.New("audit: the last line is unfinished")

	// ErrBroken says that what stands in a segment is not what was written
	// there: a line was changed, removed, added or moved.
	ErrBroken = errors.New("audit: the log is broken")

	// errForm says that a line doesn't look like one. It is always ErrBroken
	// too.
	errForm = fmt.Errorf("%w: not a line of an audit log", ErrBroken)
)

// maxLine bounds the length of a line, so that a file without line feeds
// can't take all memory. An event of 250,000 items fits.
const maxLine = 1 << 24

// maxBody bounds the body of an event, so that its line isn't longer than one may
// be.
const maxBody = maxLine - 512

// What stands between the fields of a line.
const (
	lineLog   = `{"log":"`
	lineSeq   = `","seq":`
	linePrev  = `,"prev":"`
	lineHash  = `","hash":"`
	lineEvent = `","event":`
	lineEnd   = "}\n"
)

// AppendLine appends the line of an entry of a log, with its line feed. The
// body must be an event: one JSON object in printable ASCII.
func AppendLine(dst []byte, log tokenizer.LogID, e tokenizer.Entry) []byte {
	return appendLine(dst, log, e, e.Hash())
}

func appendLine(dst []byte, log tokenizer.LogID, e tokenizer.Entry, hash tokenizer.Hash) []byte {
	dst = append(dst, lineLog...)
	dst = hex.AppendEncode(dst, log[:])
	dst = append(dst, lineSeq...)
	dst = strconv.AppendUint(dst, e.Sequence, 10)
	dst = append(dst, linePrev...)
	dst = hex.AppendEncode(dst, e.Prev[:])
	dst = append(dst, lineHash...)
	dst = hex.AppendEncode(dst, hash[:])
	dst = append(dst, lineEvent...)
	dst = append(dst, e.Body...)
	return append(dst, lineEnd...)
}

// ParseLine reads a line with its line feed. It takes no other than what
// AppendLine makes, byte for byte, and checks that the hash is that of the
// entry; what the entry is chained to is for the caller to check. The body is
// a part of line, not a copy.
//
// Errors: ErrTorn if the line feed is missing, else ErrBroken.
func ParseLine(line []byte) (tokenizer.LogID, tokenizer.Entry, error) {
	l, err := parseLine(line)
	if err != nil {
		return tokenizer.LogID{}, tokenizer.Entry{}, err
	}
	return l.Log, l.Entry, nil
}

// parseLine is ParseLine that returns the hash of the entry too.
func parseLine(line []byte) (Line, error) {
	l, err := parseForm(line)
	if err == nil && !validBody(l.Body) {
		err = errForm
	}
	if err == nil && l.Entry.Hash() != l.Hash {
		err = fmt.Errorf("%w: event %d doesn't have the hash that its line says", ErrBroken, l.Sequence)
	}
	if err != nil {
		return Line{}, err
	}
	return l, nil
}

// parseForm is ParseLine without a look at the hash, and at the body no more than that it
// is where it should be.
func parseForm(line []byte) (Line, error) {
	var l Line
	if len(line) == 0 || line[len(line)-1] != '\n' {
		return Line{}, ErrTorn
	}
	rest, ok := cutHex(l.Log[:], line, lineLog)
	if ok {
		l.Sequence, rest, ok = cutNumber(rest, lineSeq)
	}
	if ok {
		rest, ok = cutHex(l.Prev[:], rest, linePrev)
	}
	if ok {
		rest, ok = cutHex(l.Hash[:], rest, lineHash)
	}
	if ok {
		rest, ok = bytes.CutPrefix(rest, []byte(lineEvent))
	}
	if ok {
		l.Body, ok = bytes.CutSuffix(rest, []byte(lineEnd))
	}
	if !ok {
		return Line{}, errForm
	}
	return l, nil
}

// cutHex fills dst from the lower-case hexadecimal digits that follow the
// prefix.
func cutHex(dst, line []byte, prefix string) (rest []byte, ok bool) {
	rest, ok = bytes.CutPrefix(line, []byte(prefix))
	if !ok || len(rest) < 2*len(dst) {
		return nil, false
	}
	digits := rest[:2*len(dst)]
	if _, err := hex.Decode(dst, digits); err != nil || bytes.ContainsAny(digits, "ABCDEF") {
		return nil, false
	}
	return rest[len(digits):], true
}

// cutNumber reads the number that follows the prefix: at least 1, without
// leading zeros.
func cutNumber(line []byte, prefix string) (n uint64, rest []byte, ok bool) {
	rest, ok = bytes.CutPrefix(line, []byte(prefix))
	if !ok || len(rest) == 0 || rest[0] == '0' {
		return 0, nil, false
	}
	for len(rest) > 0 && '0' <= rest[0] && rest[0] <= '9' {
		digit := uint64(rest[0] - '0')
		if n > (math.MaxUint64-digit)/10 {
			return 0, nil, false
		}
		n, rest = 10*n+digit, rest[1:]
	}
	return n, rest, n > 0
}

// validBody says whether a body can stand in a line: whether it is a JSON object in
// printable ASCII and not too long.
func validBody(body []byte) bool { return fitsLine(body) && json.Valid(body) }

// fitsLine says whether a body, if it is JSON, can stand in a line.
func fitsLine(body []byte) bool {
	if len(body) == 0 || body[0] != '{' || len(body) > maxBody {
		return false
	}
	for _, c := range body {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return true
}
