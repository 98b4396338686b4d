package alert

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coatcheck/coatcheck/server/audit"
)

const secret = "a secret of 32 bytes, or a few more"

// write writes a file and returns where it is.
func write(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// receive starts an HTTPS server, and returns a Webhook that trusts it.
func receive(t *testing.T, handler http.HandlerFunc) Webhook {
	t.Helper()
	srv := httptest.NewTLSServer(handler)
	t.Cleanup(srv.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	return Webhook{URL: srv.URL + "/alerts?team=1", CAFile: write(t, string(ca)), SecretFile: write(t, secret+"\n")}
}

func TestWebhook(t *testing.T) {
	a := newAlert(logID, 3, event(audit.AlertBurst))
	var calls atomic.Int64
	w := receive(t, func(_ http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		body, err := io.ReadAll(r.Body)
		if err != nil || string(body) != string(a.Payload) {
			t.Errorf("body %q, %v", body, err)
		}
		if r.Method != "POST" || r.RequestURI != "/alerts?team=1" || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %s, %v", r.Method, r.RequestURI, r.Header)
		}
		if got, want := r.Header.Get("Authorization"), []string{"", "Bearer one", "Bearer two"}[calls.Load()-1]; got != want {
			t.Errorf("authorization %q, want %q", got, want)
		}
		// As the documentation says it is to be checked.
		at, mac, _ := strings.Cut(strings.TrimPrefix(r.Header.Get("Coatcheck-Signature"), "t="), ",v1=")
		h := hmac.New(sha256.New, []byte(secret))
		h.Write([]byte(at + "." + string(body)))
		if got := hex.EncodeToString(h.Sum(nil)); got != mac {
			t.Errorf("signature %q, not %q", mac, got)
		}
	})
	if err := w.Check(); err != nil {
		t.Fatal(err)
	}
	if err := w.Deliver(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	w.TokenFile = write(t, "one\n")
	if err := w.Deliver(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(w.TokenFile, []byte("two"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := w.Deliver(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if calls.Load() != 3 {
		t.Errorf("%d requests", calls.Load())
	}
}

// The signature of known input, computed elsewhere:
//
//	printf '1764000000.{"seq":1}' | openssl dgst -sha256 -hmac 'a secret of 32 bytes, or a few more'
func TestSignature(t *testing.T) {
	got := signature([]byte(secret), time.Unix(1_764_000_000, 999), []byte(`{"seq":1}`))
	if want := "t=1764000000,v1=a512b7dda8ef67f7e28d70907a5535d703299fed5b834819ea11ca49cd0130fb"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestWebhookAnswers(t *testing.T) {
	for code, want := range map[int]struct{ works, refused bool }{
		200: {works: true}, 202: {works: true}, 204: {works: true},
		301: {refused: true}, 307: {refused: true}, 400: {refused: true}, 401: {refused: true}, 404: {refused: true}, 413: {refused: true},
		408: {}, 429: {}, 500: {}, 503: {},
	} {
		var elsewhere atomic.Bool
		w := receive(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/elsewhere" {
				elsewhere.Store(true)
			}
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(code)
		})
		err := w.Deliver(t.Context(), newAlert(logID, 1, event(audit.AlertBurst)))
		if (err == nil) != want.works || errors.Is(err, ErrRefused) != want.refused {
			t.Errorf("%d: %v", code, err)
		}
		if elsewhere.Load() {
			t.Errorf("%d: a redirect is followed", code)
		}
	}
}

func TestWebhookFaults(t *testing.T) {
	ok := func(http.ResponseWriter, *http.Request) {}
	for name, row := range map[string]struct {
		spoil func(*Webhook)
		check bool // whether Check finds it
	}{
		"an authority that is not trusted": {func(w *Webhook) { w.CAFile = "" }, false},
		"nobody there":                     {func(w *Webhook) { w.URL = "https://127.0.0.1:1/hidden" }, false},
		"no certificate in the CA file":    {func(w *Webhook) { w.CAFile = write(t, "x") }, true},
		"no CA file":                       {func(w *Webhook) { w.CAFile = "/none" }, true},
		"no secret file":                   {func(w *Webhook) { w.SecretFile = "/none" }, true},
		"a short secret":                   {func(w *Webhook) { w.SecretFile = write(t, "fifteen bytes..\n") }, true},
		"an empty token":                   {func(w *Webhook) { w.TokenFile = write(t, "\n") }, true},
		"a token of two lines":             {func(w *Webhook) { w.TokenFile = write(t, "hidden\nhidden") }, true},
		"a directory for a token":          {func(w *Webhook) { w.TokenFile = t.TempDir() }, true},
		"a device for a secret":            {func(w *Webhook) { w.SecretFile = "/dev/zero" }, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := receive(t, ok)
			row.spoil(&w)
			err := w.Check()
			if (err != nil) != row.check {
				t.Errorf("Check: %v", err)
			}
			failed := w.Deliver(t.Context(), newAlert(logID, 1, event(audit.AlertBurst)))
			if failed == nil || errors.Is(failed, ErrRefused) {
				t.Errorf("Deliver: %v", failed)
			}
			for _, err := range []error{err, failed} {
				if err != nil && strings.Contains(err.Error(), "hidden") {
					t.Errorf("the error tells a secret: %v", err)
				}
			}
		})
	}
}

func TestWebhookTimeout(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	w := receive(t, func(http.ResponseWriter, *http.Request) { <-release })
	w.Timeout = 50 * time.Millisecond
	err := w.Deliver(t.Context(), newAlert(logID, 1, event(audit.AlertBurst)))
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

func TestCheckURL(t *testing.T) {
	for address, good := range map[string]bool{
		"https://pager.example/hook/1?a=b": true,
		"https://10.0.0.1:8443":            true,
		"http://127.0.0.1:8080/x":          true,
		"http://[::1]:8080/x":              true,
		"http://localhost/x":               true,
		"http://pager.example/hook":        false,
		"http://10.0.0.1/":                 false,
		"http://localhost.example/":        false,
		"https://user:hidden@pager/":       false,
		"https://pager.example/#x":         false,
		"https:///x":                       false,
		"ftp://pager.example":              false,
		"pager.example":                    false,
		"https://hidden\x7f/":              false,
		"":                                 false,
	} {
		err := CheckURL(address)
		if (err == nil) != good {
			t.Errorf("%q: %v", address, err)
		}
		if err != nil && strings.Contains(err.Error(), "hidden") {
			t.Errorf("the error tells a secret: %v", err)
		}
	}
}
