package metrics_test

import (
	"crypto/x509"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coatcheck/coatcheck/server"
	"github.com/coatcheck/coatcheck/server/alert"
	"github.com/coatcheck/coatcheck/server/audit"
	"github.com/coatcheck/coatcheck/server/crl"
	"github.com/coatcheck/coatcheck/server/limit"
	"github.com/coatcheck/coatcheck/server/metrics"
	"github.com/coatcheck/coatcheck/server/servertest"
	"github.com/coatcheck/coatcheck/server/sink"
)

func TestKeys(t *testing.T) {
	in := servertest.Start(t, servertest.Options{})
	alerts := alert.NewDispatcher(slog.New(slog.DiscardHandler), alert.Command{})
	alerts.Raise(in.Store.LogID(), 1, &audit.Event{Alerts: []string{audit.AlertBurst}})
	var revoked *crl.Set
	sources := metrics.Sources{
		Namespace: server.DefaultNamespace, Keystore: in.Keystore, Upkeep: in.Upkeep, Store: in.Store, Profiles: servertest.Profiles(),
		PolicyRefused: func() bool { return false }, TLSRefused: func() bool { return false }, CRLRefused: func() bool { return true },
		Revoked: func() *crl.Set { return revoked }, Alerts: alerts.Counts,
		Notary: func() audit.NotaryStatus {
			return audit.NotaryStatus{Signed: time.Unix(1_800_000_000, 0), Events: 40, Uncovered: 2, Failing: true}
		},
		Sinks: func() []sink.Counts {
			return []sink.Counts{{Sink: "syslog", Lag: 1, Delivered: 2, Reduced: 3, Rejected: 4, Skipped: 5, Failed: 6}}
		},
		Limited: func() []limit.Count {
			return []limit.Count{{Name: limit.Name{Rule: "sees", Limit: "values_per_hour"}, Refused: 3}}
		},
	}
	page := func() string {
		recorder := httptest.NewRecorder()
		metrics.Handler(sources).
			ServeHTTP(recorder, httptest.NewRequest("GET", "/metrics", nil))
		if recorder.Code != 200 {
			t.Fatalf("status %d: %s", recorder.Code, recorder.Body)
		}
		return recorder.Body.String()
	}
	text := page()
	for _, want := range []string{
		`coatcheck_policy_refused 0`,
		`coatcheck_audit_checkpoint_timestamp_seconds 1.8e+09`,
		`coatcheck_audit_checkpoint_events 40`,
		`coatcheck_audit_uncovered_events 2`,
		`coatcheck_audit_checkpoint_failing 1`,
		`coatcheck_audit_sink_lag_events{sink="syslog"} 1`,
		`coatcheck_audit_sink_delivered_total{sink="syslog"} 2`,
		`coatcheck_audit_sink_reduced_total{sink="syslog"} 3`,
		`coatcheck_audit_sink_rejected_total{sink="syslog"} 4`,
		`coatcheck_audit_sink_skipped_total{sink="syslog"} 5`,
		`coatcheck_audit_sink_failed_total{sink="syslog"} 6`,
		`coatcheck_tls_refused 0`,
		`coatcheck_crl_refused 1`,
		`coatcheck_crl_expires_timestamp_seconds 0`,
		`coatcheck_crl_revoked_certificates 0`,
		`coatcheck_keystore_state{state="ready"} 1`,
		`coatcheck_limited_total{limit="values_per_hour",rule="sees"} 3`,
		`coatcheck_keystore_state{state="offline"} 0`,
		`coatcheck_keystore_state{state="sealed"} 0`,
		`coatcheck_keystore_keys_in_memory 6`,
		`coatcheck_keystore_seals_timestamp_seconds 0`,
		`coatcheck_keys_records{class="data",namespace="default",version="1"} 0`,
		`coatcheck_keys_records{class="token",namespace="default",version="1"} 0`,
		`coatcheck_keys_root_version{class="audit",namespace="default",version="1"} 1`,
		`coatcheck_keys_records{class="index",namespace="default",version="1"} 0`,
		`coatcheck_profile_tokens{namespace="default",profile="note"} 0`,
		`coatcheck_profile_capacity_tokens{namespace="default",profile="card"} 1.8446744073709552e+19`,
		`coatcheck_keys_uses{namespace="default",version="1"} 0`,
		`coatcheck_reseal_running{namespace="default"} 0`,
		`coatcheck_reseal_remaining_records{namespace="default"} 0`,
		`coatcheck_reseal_moved_records_total{namespace="default"} 0`,
		`coatcheck_alerts_total{kind="BURST"} 1`,
		`coatcheck_alerts_total{kind="HONEYTOKEN"} 0`,
		`coatcheck_alert_deliveries_total{result="delivered",sink="log"} 0`,
		`coatcheck_alert_deliveries_total{result="dropped",sink="command"} 0`,
		`go_goroutines `,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the page lacks %s", want)
		}
	}
	made := time.Unix(1_800_000_000, 0)
	var err error
	if revoked, err = crl.Parse([]crl.File{{Data: in.Authority.Revoke(t, made, in.Authority.Certificate())}}, []*x509.Certificate{in.Authority.Certificate()}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`coatcheck_crl_expires_timestamp_seconds 1.8000036e+09`, `coatcheck_crl_revoked_certificates 1`} {
		if text := page(); !strings.Contains(text, want) {
			t.Errorf("the page lacks %s", want)
		}
	}
	if strings.Contains(text, `coatcheck_keys_records{class="audit"`) {
		t.Error("something is counted under an audit key")
	}
}
