package vault

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// What was sent, or wasn't after all, is gone from memory.
func TestBodyIsWiped(t *testing.T) {
	const text = "plaintext"
	rows := map[string]func(body io.ReadCloser) error{
		"read": func(body io.ReadCloser) error {
			got, err := io.ReadAll(body)
			if string(got) != text {
				t.Errorf("read %q", got)
			}
			return err
		},
		"closed": func(body io.ReadCloser) error { return body.Close() },
		"read in part and closed": func(body io.ReadCloser) error {
			if _, err := body.Read(make([]byte, 4)); err != nil {
				return err
			}
			return body.Close()
		},
	}
	for name, use := range rows {
		t.Run(name, func(t *testing.T) {
			req, err := http.NewRequest(http.MethodPut, anyAddress, strings.NewReader(text))
			if err != nil {
				t.Fatal(err)
			}
			body, err := readBody(req)
			if err != nil || string(body) != text {
				t.Fatalf("read %q, error %v", body, err)
			}
			setBody(req, body)
			sent := req.Body.(*onceBody).rest
			if err := use(req.Body); err != nil {
				t.Error(err)
			}
			if !bytes.Equal(sent, make([]byte, len(text))) {
				t.Errorf("%q is left", sent)
			}
			if n, err := req.Body.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				t.Errorf("read %d bytes more, error %v", n, err)
			}
			again, err := req.GetBody()
			if err != nil {
				t.Fatal(err)
			}
			if got, _ := io.ReadAll(again); string(got) != text {
				t.Errorf("sent again: %q", got)
			}
		})
	}
}

func TestPace(t *testing.T) {
	var p pace
	good, bad := printOf("good"), printOf("bad")
	now := time.Unix(1_000_000, 0)
	refuse := func(want time.Duration) {
		t.Helper()
		if err := p.wait(bad, now); err != nil {
			t.Fatalf("refused before it was tried: %v", err)
		}
		p.refused(bad, now, lockout, io.ErrUnexpectedEOF)
		if want > 0 && p.wait(bad, now.Add(want-1)) != io.ErrUnexpectedEOF {
			t.Errorf("no pause of %v", want)
		}
		if err := p.wait(bad, now.Add(want)); err != nil {
			t.Errorf("a pause of more than %v", want)
		}
		if err := p.wait(good, now); err != nil {
			t.Errorf("other credentials are kept waiting: %v", err)
		}
		now = now.Add(want)
	}
	// Until it has been refused, nothing is kept waiting.
	if err := p.wait(fingerprint{}, now); err != nil {
		t.Errorf("no credentials are kept waiting: %v", err)
	}
	for _, seconds := range []int{0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 960, 960} {
		refuse(time.Duration(seconds) * time.Second)
	}
}
