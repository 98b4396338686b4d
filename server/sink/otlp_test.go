package sink

import (
	"compress/gzip"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	common "go.opentelemetry.io/proto/otlp/common/v1"
	logs "go.opentelemetry.io/proto/otlp/logs/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/coatcheck/coatcheck/server/audit"
	"github.com/coatcheck/coatcheck/server/servertest"
)

// collector takes logs by OTLP/HTTP, from clients with a certificate.
type collector struct {
	received
	t       testing.TB
	server  *httptest.Server
	sender  *OTLP
	last    atomic.Pointer[logs.ResourceLogs]
	request atomic.Int64

	// answer, if set, answers the request of a number, from 1, before it is looked at, and
	// returns true if that was it.
	answer func(n int64, w http.ResponseWriter, r *http.Request) bool
}

func newCollector(t testing.TB, answer func(n int64, w http.ResponseWriter, r *http.Request) bool) *collector {
	authority, dir := servertest.NewAuthority(t), t.TempDir()
	c := &collector{t: t, answer: answer}
	c.server = httptest.NewUnstartedServer(c)
	c.server.EnableHTTP2 = true
	c.server.TLS = &tls.Config{Certificates: []tls.Certificate{authority.Server(t)}, ClientCAs: authority.Pool(), ClientAuth: tls.RequireAndVerifyClientCert}
	c.server.StartTLS()
	t.Cleanup(c.server.Close)
	var files TLSFiles
	files.CAFile, _ = writePEM(t, dir, "ca", tls.Certificate{Certificate: [][]byte{authority.Certificate().Raw}})
	files.Certificate, files.Key = writePEM(t, dir, "client", authority.Caller(t, "coatcheck"))
	headers := filepath.Join(dir, "headers")
	writeFile(t, headers, []byte("Authorization: Bearer t0ken\n\nX-Scope-OrgID:  audit\n"))
	c.sender = &OTLP{URL: c.server.URL + "/v1/logs", TLS: files, HeadersFile: headers, Host: "vault-1"}
	return c
}

func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n := c.request.Add(1)
	if c.answer != nil && c.answer(n, w, r) {
		return
	}
	if r.Method != http.MethodPost || r.URL.Path != "/v1/logs" || r.Header.Get("Content-Type") != "application/x-protobuf" ||
		r.Header.Get("Authorization") != "Bearer t0ken" || r.Header.Get("X-Scope-OrgID") != "audit" {
		c.t.Errorf("%s %s %v", r.Method, r.URL, r.Header)
	}
	unpacked, err := gzip.NewReader(r.Body)
	if err != nil {
		return // it broke off
	}
	body, err := io.ReadAll(unpacked)
	if err != nil {
		return
	}
	var message logs.LogsData
	if err := proto.Unmarshal(body, &message); err != nil {
		c.t.Error(err)
		return
	}
	c.begin()
	for _, from := range message.ResourceLogs {
		c.last.Store(from)
		for _, scope := range from.ScopeLogs {
			for _, record := range scope.LogRecords {
				c.add(uint64(values(record.Attributes)["coatcheck.seq"].(int64)), record.Body.GetStringValue())
			}
		}
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
}

// values returns attributes as a map.
func values(list []*common.KeyValue) map[string]any {
	all := make(map[string]any)
	for _, a := range list {
		switch v := a.Value.Value.(type) {
		case *common.AnyValue_StringValue:
			all[a.Key] = v.StringValue
		case *common.AnyValue_IntValue:
			all[a.Key] = v.IntValue
		case *common.AnyValue_BoolValue:
			all[a.Key] = v.BoolValue
		case *common.AnyValue_ArrayValue:
			var texts []string
			for _, each := range v.ArrayValue.Values {
				texts = append(texts, each.GetStringValue())
			}
			all[a.Key] = strings.Join(texts, ",")
		}
	}
	return all
}

func TestOTLPMapping(t *testing.T) {
	store, c := openStore(t), newCollector(t, nil)
	e := event(3)
	e.Alerts = []string{audit.AlertBurst, audit.AlertNotify}
	commit(t, store, e)
	follow(t, t.TempDir(), store, c.sender).delivered(t, 1)
	c.check(t, lines(t, store))
	from := c.last.Load()
	if got, want := values(from.Resource.Attributes), (map[string]any{
		"service.name": "coatcheck", "service.instance.id": store.LogID().String(), "host.name": "vault-1",
	}); !maps.Equal(got, want) {
		t.Errorf("resource %v", got)
	}
	record := from.ScopeLogs[0].LogRecords[0]
	if record.TimeUnixNano != uint64(e.Time.UnixNano()) || record.EventName != "coatcheck.audit" || record.SeverityText != "ALERT" ||
		record.SeverityNumber != logs.SeverityNumber_SEVERITY_NUMBER_ERROR3 || time.Since(time.Unix(0, int64(record.ObservedTimeUnixNano))) > time.Minute {
		t.Errorf("%v", record)
	}
	entries, err := store.Entries(t.Context(), 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"coatcheck.log": store.LogID().String(), "coatcheck.seq": int64(1), "coatcheck.hash": entries[0].Hash().String(),
		"coatcheck.request_id": e.RequestID, "coatcheck.caller": e.Caller, "coatcheck.action": "tokenize", "coatcheck.namespace": "default",
		"coatcheck.profile": "card", "coatcheck.decision": "allow", "coatcheck.rule": "in", "coatcheck.code": "OK",
		"coatcheck.alerts": "BURST,NOTIFY", "client.address": "192.0.2.1", "client.port": int64(4711),
		"rpc.system.name": "grpc", "rpc.method": "coatcheck.v1.TokenizationService/Tokenize",
	}
	if got := values(record.Attributes); !maps.Equal(got, want) {
		t.Errorf("attributes %v", got)
	}
}

// A collector that is overloaded, doesn't take requests so large, answers with nonsense or
// breaks off gets every event in the end.
func TestCollectorsThatFail(t *testing.T) {
	store := openStore(t)
	c := newCollector(t, func(n int64, w http.ResponseWriter, r *http.Request) bool {
		if r.ContentLength > 4000 {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
			return true
		}
		switch n % 8 {
		case 1:
			w.WriteHeader(http.StatusServiceUnavailable)
		case 2:
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(http.StatusFound)
		case 3:
			_, _ = w.Write([]byte("<html>"))
		case 4:
			panic(http.ErrAbortHandler)
		case 5:
			w.WriteHeader(http.StatusBadRequest)
		case 6:
			_, _ = io.CopyN(io.Discard, r.Body, 100)
			w.WriteHeader(http.StatusTooManyRequests)
		default:
			return false
		}
		return true
	})
	commit(t, store, many(500)...)
	f := follow(t, t.TempDir(), store, c.sender)
	commit(t, store, many(100)...)
	f.delivered(t, 600)
	c.check(t, lines(t, store))
	if f.Counts().Failed < 6 {
		t.Errorf("%+v", f.Counts())
	}
	if strings.Contains(f.log.String(), c.server.URL) {
		t.Errorf("the URL is logged: %s", f.log)
	}
}

// What a collector says it doesn't keep is told of, and not sent again.
func TestPartialSuccess(t *testing.T) {
	store := openStore(t)
	c := newCollector(t, func(_ int64, w http.ResponseWriter, r *http.Request) bool {
		_, _ = io.Copy(io.Discard, r.Body)
		partial := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 2)
		partial = protowire.AppendString(protowire.AppendTag(partial, 2, protowire.BytesType), "too old")
		_, _ = w.Write(protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), partial))
		return true
	})
	commit(t, store, many(3)...)
	f := follow(t, t.TempDir(), store, c.sender)
	f.delivered(t, 3)
	f.stop()
	if n := f.Counts().Rejected; n != 2 || c.request.Load() != 1 || !strings.Contains(f.log.String(), "too old") {
		t.Errorf("%d rejected in %d requests: %s", n, c.request.Load(), f.log)
	}
}

// A collector that hangs is given up on, and tried again.
func TestCollectorThatHangs(t *testing.T) {
	store := openStore(t)
	c := newCollector(t, func(n int64, _ http.ResponseWriter, r *http.Request) bool {
		if n < 3 {
			_, _ = io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
		}
		return n < 3
	})
	c.sender.Timeout = 50 * time.Millisecond
	if _, err := c.sender.Send(t.Context(), []Event{*asEvent(t, event(0))}); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	c.sender.Timeout = time.Second
	commit(t, store, many(3)...)
	follow(t, t.TempDir(), store, c.sender).delivered(t, 3)
	c.check(t, lines(t, store))
}

func TestOTLPCheck(t *testing.T) {
	c := newCollector(t, nil)
	if err := c.sender.Check(); err != nil {
		t.Error(err)
	}
	headers := filepath.Join(t.TempDir(), "headers")
	for _, text := range []string{"s3cret", "Authorization:", ": s3cret", "Author ization: s3cret", "Authorization: s3\x7fcret", "Authorization: s3cret\r\nX: \x00s3cret"} {
		writeFile(t, headers, []byte(text))
		if err := (&OTLP{URL: c.sender.URL, HeadersFile: headers}).Check(); err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestCheckURL(t *testing.T) {
	for address, good := range map[string]bool{
		"https://collector.example:4318/v1/logs": true, "http://127.0.0.1:4318/v1/logs": true, "https://otlp.example/x?key=1": true,
		"http://collector.example:4318/v1/logs": false, "https://collector.example:4318": false, "https://u:p@collector.example/v1/logs": false,
		"grpc://collector.example:4317/": false, "collector.example:4318": false, "": false, "https://collector.example/v1/logs#a": false,
	} {
		if err := CheckURL(address); (err == nil) != good || err != nil && address != "" && strings.Contains(err.Error(), address) {
			t.Errorf("%s: %v", address, err)
		}
	}
}
