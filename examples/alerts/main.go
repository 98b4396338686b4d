// Command alerts receives alerts of Coatcheck over HTTPS and prints those whose
// signature is good, a line each.
//
//	go run ./examples/alerts --certificate server.crt --key server.key --secret-file secret
package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// maxAge is how old a request may be, and how far the clocks may be apart.
const maxAge = 5 * time.Minute

// maxBody is more than any event has.
const maxBody = 1<<24 + 1024

func main() {
	listen := flag.String("listen", "127.0.0.1:8443", "the address to listen on")
	certificate := flag.String("certificate", "server.crt", "PEM: the certificate and its chain")
	key := flag.String("key", "server.key", "PEM: its key")
	secretFile := flag.String("secret-file", "secret", "the file with the secret of the signatures")
	flag.Parse()
	secret, err := os.ReadFile(*secretFile)
	if err != nil {
		log.Fatal(err)
	}
	srv := &http.Server{Addr: *listen, Handler: receiver{bytes.TrimSpace(secret), os.Stdout}, ReadTimeout: 10 * time.Second}
	log.Fatal(srv.ListenAndServeTLS(*certificate, *key))
}

// receiver answers with 204 what it has printed. The same alert may come more than
// once; its log and seq say so.
type receiver struct {
	secret []byte
	out    io.Writer
}

// ServeHTTP implements http.Handler.
func (r receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxBody))
	if err != nil {
		http.Error(w, "can't be read", http.StatusBadRequest)
		return
	}
	if !r.signed(req.Header.Get("Coatcheck-Signature"), body, time.Now()) {
		http.Error(w, "the signature is not good", http.StatusUnauthorized)
		return
	}
	var alert struct {
		Log   string
		Seq   uint64
		Event struct {
			Time, Caller, Action string
			Alerts               []string
		}
	}
	if err := json.Unmarshal(body, &alert); err != nil {
		http.Error(w, "not an alert", http.StatusBadRequest)
		return
	}
	e := alert.Event
	if _, err := fmt.Fprintf(r.out, "%s %q %s by %s, event %d of log %s\n", e.Time, e.Alerts, e.Action, e.Caller, alert.Seq, alert.Log); err != nil {
		http.Error(w, "not printed", http.StatusInternalServerError) // it will come again
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// signed says whether a signature is that of the body, and not old:
// t=<Unix seconds>,v1=<HMAC-SHA-256 of "<t>.<body>" in hexadecimal>.
func (r receiver) signed(signature string, body []byte, now time.Time) bool {
	t, v1, _ := strings.Cut(strings.TrimPrefix(signature, "t="), ",v1=")
	seconds, err := strconv.ParseInt(t, 10, 64)
	if err != nil || now.Sub(time.Unix(seconds, 0)).Abs() > maxAge {
		return false
	}
	mac := hmac.New(sha256.New, r.secret)
	mac.Write([]byte(t + "."))
	mac.Write(body)
	got, err := hex.DecodeString(v1)
	return err == nil && hmac.Equal(got, mac.Sum(nil))
}
