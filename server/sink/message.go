package sink

import (
	"encoding/hex"
	"fmt"
	"os"
	"strconv"

	"github.com/coatcheck/coatcheck/server/audit"
)

// itemsBegin is what stands before the items of an event, which are the last of its
// fields.
const itemsBegin = `,"items":[`

// What a message may be bounded to, in bytes. What remains of an event without most of its
// fields fits into the least.
const (
	MinMessage = 2048
	MaxMessage = 1 << 20
)

// message returns the event as its line in a segment says it, without the line feed, in
// at most a number of bytes. If it is larger, items at its end are left out, which are
// counted in a member of the line behind the event:
//
//	{"log":"…","seq":1,"prev":"…","hash":"…","event":{…},"items_left_out":9000}
//
// If it doesn't fit without any of them, all is left out but a few fields, and there is
// "fields_left_out":true too. The hash is always that of the whole event. reduced says
// whether anything was left out.
func (e *Event) message(most int) (text []byte, reduced bool) {
	line := audit.AppendLine(make([]byte, 0, len(e.Body)+256), e.Log, e.Entry)
	line = line[:len(line)-1]
	if len(line) <= most {
		return line, false
	}
	head := line[:len(line)-len(e.Body)-1]
	begin, ends := itemEnds(e.Body)
	kept := append(make([]byte, 0, most), head...)
	room := most - len(head) - len(`]},"items_left_out":`) - 20 - len(`}`)
	n := 0
	for n < len(ends) && ends[n] <= room {
		n++
	}
	if begin > room {
		return e.stub(kept, len(ends)), true
	}
	if n > 0 {
		kept = append(append(kept, e.Body[:ends[n-1]]...), "]}"...)
	} else {
		kept = append(append(kept, e.Body[:begin]...), '}')
	}
	return append(strconv.AppendInt(append(kept, `,"items_left_out":`...), int64(len(ends)-n), 10), '}'), true
}

// stub appends the fields that always fit, and the end of the message.
func (e *Event) stub(dst []byte, items int) []byte {
	return fmt.Appendf(dst, `{"v":1,"time":%q,"request_id":%q,"action":%q,"code":%q},"items_left_out":%d,"fields_left_out":true}`,
		e.Time.UTC().Format("2006-01-02T15:04:05.000000000Z"), plain(e.RequestID, 64), plain(e.Action, 64), plain(e.Code, 64), items)
}

// itemEnds returns where the items of a body begin, with what stands before them, and
// where each ends. Without items they begin at the last brace.
func itemEnds(body []byte) (begin int, ends []int) {
	begin = len(body) - 1
	depth, quoted := 0, false
	for i := 0; i < len(body); i++ {
		switch c := body[i]; {
		case c == '\\': // only in strings
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{':
			depth++
		case c == '}':
			if depth--; depth == 1 {
				ends = append(ends, i+1)
			}
		case c == '[' && len(ends) == 0 && i+1 < len(body) && body[i+1] == '{':
			begin = i + 1 - len(itemsBegin)
		}
	}
	return begin, ends
}

// plain returns a name with whatever isn't printable ASCII, a space, a quotation mark or
// a backslash replaced by "?", in at most a number of bytes; "-" if it is empty.
func plain(name string, most int) string {
	if name == "" {
		return "-"
	}
	b := []byte(name[:min(len(name), most)])
	for i, c := range b {
		if c <= ' ' || c > '~' || c == '"' || c == '\\' {
			b[i] = '?'
		}
	}
	return string(b)
}

// syslogTime is the form of a time in RFC 5424, which has microseconds.
const syslogTime = "2006-01-02T15:04:05.000000Z"

// appendSyslog appends the header and structured data of RFC 5424, and the message.
func (s *Syslog) appendSyslog(dst []byte, e *Event) (text []byte, reduced bool) {
	dst = fmt.Appendf(dst, "<%d>1 %s %s coatcheck %d %s ", s.facility()*8+int(e.Severity), e.Time.UTC().Format(syslogTime),
		s.host(), os.Getpid(), plain(e.Action, 32))
	dst = fmt.Appendf(dst, `[coatcheck@%d log="%s" seq="%d" hash="%s"`, s.enterprise(), e.Log, e.Sequence, hex.EncodeToString(e.Hash[:]))
	const cut = ` reduced="true"`
	msg, reduced := e.message(s.maxSize() - len(dst) - len(cut) - len("] "))
	if reduced {
		dst = append(dst, cut...)
	}
	return append(append(dst, "] "...), msg...), reduced
}
