package sink

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// message5424 is a syslog message as RFC 5424 has it.
type message5424 struct {
	facility, severity       int
	at                       time.Time
	host, app, procID, msgID string
	structured               map[string]map[string]string
	msg                      []byte
	size                     int
}

// header5424 is the HEADER of the grammar in section 6, without NILVALUE where we always
// have something: each field with its largest size and its characters.
var header5424 = regexp.MustCompile(`^<(0|[1-9][0-9]{0,2})>1 ` +
	`([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?(?:Z|[+-][0-9]{2}:[0-9]{2})) ` +
	`([!-~]{1,255}) ([!-~]{1,48}) ([!-~]{1,128}) ([!-~]{1,32}) `)

var (
	sdID    = regexp.MustCompile(`^\[([!#-<>-\\^-~]{1,32})`)
	sdParam = regexp.MustCompile(`^ ([!#-<>-\\^-~]{1,32})="((?:[^"\\\]]|\\["\\\]])*)"`)
)

// parse5424 reads a message, strictly.
func parse5424(text []byte) (m message5424, err error) {
	m.size = len(text)
	found := header5424.FindSubmatch(text)
	if found == nil {
		return m, fmt.Errorf("not a header: %.100q", text)
	}
	pri, _ := strconv.Atoi(string(found[1]))
	if pri > 191 {
		return m, fmt.Errorf("priority %d", pri)
	}
	m.facility, m.severity = pri/8, pri%8
	if m.at, err = time.Parse(time.RFC3339Nano, string(found[2])); err != nil {
		return m, err
	}
	m.host, m.app, m.procID, m.msgID = string(found[3]), string(found[4]), string(found[5]), string(found[6])
	rest := text[len(found[0]):]
	m.structured = make(map[string]map[string]string)
	if bytes.HasPrefix(rest, []byte("-")) {
		rest = rest[1:]
	} else if len(rest) == 0 || rest[0] != '[' {
		return m, errors.New("no structured data")
	}
	for len(rest) > 0 && rest[0] == '[' {
		id := sdID.FindSubmatch(rest)
		if id == nil {
			return m, fmt.Errorf("not an SD-ID: %.100q", rest)
		}
		rest = rest[len(id[0]):]
		params := make(map[string]string)
		for len(rest) > 0 && rest[0] == ' ' {
			param := sdParam.FindSubmatch(rest)
			if param == nil {
				return m, fmt.Errorf("not an SD-PARAM: %.100q", rest)
			}
			params[string(param[1])] = string(param[2])
			rest = rest[len(param[0]):]
		}
		if len(rest) == 0 || rest[0] != ']' || m.structured[string(id[1])] != nil {
			return m, errors.New("an SD-ELEMENT without end, or twice")
		}
		m.structured[string(id[1])] = params
		rest = rest[1:]
	}
	if len(rest) > 0 && rest[0] != ' ' {
		return m, fmt.Errorf("no space before MSG: %.100q", rest)
	}
	if len(rest) > 0 {
		m.msg = rest[1:]
	}
	return m, nil
}

// readFrame reads SYSLOG-FRAME of RFC 5425: MSG-LEN SP SYSLOG-MSG. io.EOF is an end between
// two.
func readFrame(r *bufio.Reader) ([]byte, error) {
	digits, err := r.ReadString(' ')
	if err == io.EOF && digits != "" {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, err
	}
	digits = strings.TrimSuffix(digits, " ")
	n, err := strconv.Atoi(digits)
	if err != nil || n < 1 || n > MaxMessage || digits != strconv.Itoa(n) {
		return nil, fmt.Errorf("not a length: %q", digits)
	}
	text := make([]byte, n)
	_, err = io.ReadFull(r, text)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return text, err
}

// The examples of RFC 5424, section 6.5, and what isn't of its grammar.
func TestParse5424(t *testing.T) {
	for text, good := range map[string]bool{
		"<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - \xef\xbb\xbf'su root' failed": true,
		"<165>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 myproc 8710 - - %% It's time":                true,
		`<165>1 2003-10-11T22:14:15.003Z h e - ID47 [a@32473 iut="3" s="A\"p"][b@32473 class="high"]`:   true,
		`<192>1 2003-10-11T22:14:15.003Z h e - ID47 -`:                                                  false,
		`<34>1 2003-10-11T22:14:15.0031234Z h e - ID47 -`:                                               false, // 7 digits
		`<34>1 2003-10-11T22:14:15.003Z h e - ID47 [a@32473 x="]"]`:                                     false,
		`<34>1 2003-10-11T22:14:15.003Z h e - ID47 [a@32473 x="1"]text`:                                 false,
		`<34>2 2003-10-11T22:14:15.003Z h e - ID47 -`:                                                   false,
	} {
		if _, err := parse5424([]byte(text)); (err == nil) != good {
			t.Errorf("%s: %v", text, err)
		}
	}
}
