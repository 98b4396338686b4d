package main

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coatcheck/coatcheck/server/alert"
	"github.com/coatcheck/coatcheck/server/audit"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// The receiver takes what Coatcheck sends, and nothing that it wouldn't.
func TestReceiver(t *testing.T) {
	const secret = "a secret of 32 bytes, or a few more"
	var out bytes.Buffer
	r := receiver{[]byte(secret), &out}
	srv := httptest.NewTLSServer(r)
	defer srv.Close()
	dir := t.TempDir()
	hook := alert.Webhook{URL: srv.URL, CAFile: filepath.Join(dir, "ca.crt"), SecretFile: filepath.Join(dir, "secret")}
	write := func(path string, data []byte) {
		t.Helper()
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(hook.CAFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}))
	write(hook.SecretFile, []byte(secret+"\n"))

	d := alert.NewDispatcher(slog.New(slog.DiscardHandler), hook)
	ctx, stop := context.WithCancel(t.Context())
	d.Raise(tokenizer.LogID{0xab}, 17, &audit.Event{Caller: "cn:shop", Action: "detokenize", Alerts: []string{audit.AlertBurst}})
	stop()
	d.Run(ctx) // until what waits is delivered
	want := `0001-01-01T00:00:00.000000000Z ["BURST"] detokenize by cn:shop, event 17 of log ab000000000000000000000000000000` + "\n"
	if out.String() != want {
		t.Errorf("printed %q, want %q; %v", &out, want, d.Counts().Deliveries)
	}

	write(hook.SecretFile, []byte("another secret of so many bytes"))
	if err := hook.Deliver(t.Context(), &alert.Alert{Payload: []byte(`{"seq":18}`)}); !errors.Is(err, alert.ErrRefused) {
		t.Errorf("signed with another secret: %v", err)
	}
	if strings.Count(out.String(), "\n") != 1 {
		t.Errorf("printed %q", &out)
	}
}

// The signature was computed elsewhere:
//
//	printf '1764000000.{"seq":1}' | openssl dgst -sha256 -hmac 'a secret of 32 bytes, or a few more'
func TestSigned(t *testing.T) {
	const good = "t=1764000000,v1=a512b7dda8ef67f7e28d70907a5535d703299fed5b834819ea11ca49cd0130fb"
	r := receiver{secret: []byte("a secret of 32 bytes, or a few more")}
	made := time.Unix(1_764_000_000, 0)
	for name, row := range map[string]struct {
		signature, body string
		now             time.Time
		want            bool
	}{
		"good":             {good, `{"seq":1}`, made, true},
		"a little late":    {good, `{"seq":1}`, made.Add(maxAge), true},
		"sent again later": {good, `{"seq":1}`, made.Add(maxAge + time.Second), false},
		"of the future":    {good, `{"seq":1}`, made.Add(-maxAge - time.Second), false},
		"another body":     {good, `{"seq":2}`, made, false},
		"another time":     {strings.Replace(good, "1764000000", "1764000001", 1), `{"seq":1}`, made, false},
		"cut short":        {good[:len(good)-2], `{"seq":1}`, made, false},
		"no signature":     {"", `{"seq":1}`, made, false},
		"no number":        {"t=x,v1=00", `{"seq":1}`, made, false},
	} {
		if got := r.signed(row.signature, []byte(row.body), row.now); got != row.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
