package audit

import (
	"strconv"
	"time"
	"unicode/utf16"
	"unicode/utf8"
)

// timeForm is RFC 3339 with nine digits of a second, for times in UTC.
const timeForm = "2006-01-02T15:04:05.000000000Z"

// FormatTime returns a time as it is written in events.
func FormatTime(t time.Time) string { return t.UTC().Format(timeForm) }

// Body returns the event as JSON: one object, without a line break, in
// printable ASCII whatever the fields hold. Bytes that are not UTF-8 become
// U+FFFD. Equal events have equal bodies.
func (e *Event) Body() []byte {
	b := make([]byte, 0, 768+64*len(e.Items))
	b = append(b, `{"v":1,"time":"`...)
	b = e.Time.UTC().AppendFormat(b, timeForm)
	b = append(b, '"')
	for _, f := range [...]field{
		{"request_id", e.RequestID},
		{"trace_id", e.TraceID},
		{"caller", e.Caller},
		{"certificate", e.Certificate},
		{"peer", e.Peer},
		{"method", e.Method},
		{"action", e.Action},
		{"namespace", e.Namespace},
		{"profile", e.Profile},
		{"purpose", e.Purpose},
		{"reveal", e.Reveal},
		{"decision", string(e.Decision)},
		{"rule", e.Rule},
		{"policy", e.Policy},
		{"code", e.Code},
		{"reason", e.Reason},
	} {
		if f.value != "" {
			b = append(append(append(b, `,"`...), f.name...), `":`...)
			b = appendString(b, f.value)
		}
	}
	b = appendStrings(b, `,"keys":[`, e.Keys)
	if e.ValidateOnly {
		b = append(b, `,"validate_only":true`...)
	}
	if e.Records > 0 {
		b = append(b, `,"records":`...)
		b = strconv.AppendUint(b, e.Records, 10)
	}
	for _, f := range [...]field{
		{"stated_reason", e.StatedReason}, {"recipient", e.Recipient},
		{"previous_policy", e.PreviousPolicy}, {"refused_policy", e.RefusedPolicy},
		{"files", e.Files}, {"previous_files", e.PreviousFiles}, {"refused_files", e.RefusedFiles},
		{"about_caller", e.AboutCaller}, {"about_certificate", e.AboutCertificate}, {"since", e.Since}, {"until", e.Until},
		{"approval", e.Approval}, {"approval_rule", e.ApprovalRule}, {"approval_action", e.ApprovalAction}, {"approval_ends", e.ApprovalEnds},
		{"shadow", e.Shadow},
	} {
		if f.value != "" {
			b = append(append(append(b, `,"`...), f.name...), `":`...)
			b = appendString(b, f.value)
		}
	}
	if e.PrunedLast > 0 {
		b = append(b, `,"pruned_first":`...)
		b = strconv.AppendUint(b, e.PrunedFirst, 10)
		b = append(b, `,"pruned_last":`...)
		b = strconv.AppendUint(b, e.PrunedLast, 10)
		b = append(b, `,"pruned_hash":`...)
		b = appendString(b, e.PrunedHash)
	}
	b = appendStrings(b, `,"alerts":[`, e.Alerts)
	for i, item := range e.Items {
		if i == 0 {
			b = append(b, `,"items":[`...)
		} else {
			b = append(b, ',')
		}
		b = item.append(b)
	}
	if len(e.Items) > 0 {
		b = append(b, ']')
	}
	return append(b, '}')
}

// appendStrings appends a field that is a list of text, unless it is empty.
func appendStrings(b []byte, begin string, list []string) []byte {
	for i, s := range list {
		if i == 0 {
			b = append(b, begin...)
		} else {
			b = append(b, ',')
		}
		b = appendString(b, s)
	}
	if len(list) > 0 {
		b = append(b, ']')
	}
	return b
}

// appendString appends s as a JSON string in printable ASCII.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	plain := 0 // where what needs no escape begins
	for i := 0; i < len(s); {
		c := s[i]
		if ' ' <= c && c <= '~' && c != '"' && c != '\\' {
			i++
			continue
		}
		b = append(b, s[plain:i]...)
		r, size := utf8.DecodeRuneInString(s[i:])
		if c == '"' || c == '\\' {
			b = append(b, '\\', c)
		} else {
			b = appendEscape(b, r)
		}
		i += size
		plain = i
	}
	return append(append(b, s[plain:]...), '"')
}

// appendEscape appends a character as \uXXXX: as a pair of surrogates if it is
// beyond U+FFFF (RFC 8259, section 7).
func appendEscape(b []byte, r rune) []byte {
	if r > 0xffff {
		high, low := utf16.EncodeRune(r)
		return appendEscape(appendEscape(b, high), low)
	}
	const digits = "0123456789abcdef"
	return append(b, '\\', 'u', digits[r>>12&0xf], digits[r>>8&0xf], digits[r>>4&0xf], digits[r&0xf])
}
