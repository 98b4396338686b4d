// Package metrics shows what a service measures of itself in the format of
// Prometheus. Labels have few values, all of them ours: never a token, a value
// or anything that a caller chose.
package metrics

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/coatcheck/coatcheck/keystore"
	"github.com/coatcheck/coatcheck/server/alert"
	"github.com/coatcheck/coatcheck/server/audit"
	"github.com/coatcheck/coatcheck/server/crl"
	"github.com/coatcheck/coatcheck/server/limit"
	"github.com/coatcheck/coatcheck/server/sink"
	"github.com/coatcheck/coatcheck/server/upkeep"
	"github.com/coatcheck/coatcheck/tokenizer"
)

// Sources are what is measured. All are required but where a field says otherwise.
type Sources struct {
	Namespace string
	Keystore  *keystore.Keystore
	Upkeep    *upkeep.Upkeep
	Store     tokenizer.Store
	Profiles  []tokenizer.Profile

	// PolicyRefused says whether the policy file is not the policy that is at work,
	// since it was refused.
	PolicyRefused func() bool

	// Shadow tells of the shadow policy; nil if there is none.
	Shadow *Shadow

	// Notary returns how far the audit log is signed.
	Notary func() audit.NotaryStatus

	// Alerts returns what has been counted of alerts.
	Alerts func() alert.Counts

	// TLSRefused and CRLRefused say the same of the server's certificate, key and client
	// authorities, and of the revocation lists.
	TLSRefused, CRLRefused func() bool

	// Revoked returns what revocation lists say; it may be nil.
	Revoked func() *crl.Set

	// Sinks returns what has been counted of the ways out of the audit log; nil if there
	// are none.
	Sinks func() []sink.Counts

	// Limited returns how many items have been refused for a limit of a rule.
	Limited func() []limit.Count
}

// Handler returns the page with the metrics of the sources, of the Go runtime
// and of the process. It is safe for concurrent use.
func Handler(s Sources) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		keys(s), tokens(s), alerts(s), checkpoints(s), limited(s), sinks(s),
		refused("policy_refused", "1 while the policy file is refused, so that an earlier policy is at work.", s.PolicyRefused),
		refused("tls_refused", "1 while the server's certificate, key or client authorities are refused, so that earlier ones are at work.", s.TLSRefused),
		refused("crl_refused", "1 while a revocation list is refused, so that earlier ones are at work.", s.CRLRefused),
		listsExpire(s), revoked(s),
	)
	if s.Shadow != nil {
		registry.MustRegister(s.Shadow)
	}
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
}

// refused shows whether a file that is followed is refused.
func refused(name, help string, is func() bool) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "coatcheck", Name: name, Help: help}, func() float64 { return one(is()) })
}

// listsExpire shows when client certificates will be refused because nobody knows what
// has been revoked.
func listsExpire(s Sources) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "coatcheck", Name: "crl_expires_timestamp_seconds",
		Help: "When the first revocation list is out of date, in Unix seconds; 0 without lists.",
	}, func() float64 {
		at, _ := s.Revoked().Expires()
		return seconds(at)
	})
}

// revoked shows how many certificates are revoked.
func revoked(s Sources) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "coatcheck", Name: "crl_revoked_certificates", Help: "Certificates that are revoked by the revocation lists.",
	}, func() float64 { return float64(s.Revoked().Len()) })
}

// keys collects what there is to tell of keys, when it is asked for.
type keys Sources

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("coatcheck_"+name, help, labels, nil)
}

var (
	stateDesc     = describe("keystore_state", "1 for the state that the keystore is in, 0 for the others.", "state")
	confirmedDesc = describe("keystore_confirmed_timestamp_seconds", "When the root key's guard last confirmed the keys, in Unix seconds; 0 if it has not.")
	sealsDesc     = describe("keystore_seals_timestamp_seconds", "When the keys will be sealed if the root key's guard stays away, in Unix seconds; 0 unless it is away.")
	memoryDesc    = describe("keystore_keys_in_memory", "Keys in memory, those in use by calls included.")
	recordsDesc   = describe("keys_records", "The census: what is under a version of a key, records or entries of the index.", "namespace", "class", "version")
	usesDesc      = describe("keys_uses", "How often a version of a data key has sealed; at most 2^32.", "namespace", "version")
	createdDesc   = describe("keys_created_timestamp_seconds", "When a key version was made, in Unix seconds.", "namespace", "class", "version")
	rootDesc      = describe("keys_root_version", "The version of the root key that a key version is wrapped under.", "namespace", "class", "version")
	runningDesc   = describe("reseal_running", "1 while records are being moved to the active data key.", "namespace")
	remainingDesc = describe("reseal_remaining_records", "Records that are not under the active data key.", "namespace")
	movedDesc     = describe("reseal_moved_records_total", "Records moved to the active data key.", "namespace")
	failedDesc    = describe("reseal_failed_records", "Records that could not be opened in the latest pass.", "namespace")
)

// Describe implements prometheus.Collector.
func (keys) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		stateDesc, confirmedDesc, sealsDesc, memoryDesc, recordsDesc, usesDesc, createdDesc, rootDesc,
		runningDesc, remainingDesc, movedDesc, failedDesc,
	} {
		descs <- d
	}
}

// collectTimeout is how long the store is waited for.
const collectTimeout = 3 * time.Second

// Collect implements prometheus.Collector.
func (k keys) Collect(metrics chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	status := k.Keystore.Status()
	for _, state := range []keystore.State{keystore.Ready, keystore.Offline, keystore.Sealed} {
		gauge(stateDesc, one(state == status.State), state.String())
	}
	gauge(confirmedDesc, seconds(status.Confirmed))
	gauge(sealsDesc, seconds(status.Until))
	gauge(memoryDesc, float64(status.Keys))
	progress := k.Upkeep.Progress()
	gauge(runningDesc, one(progress.Running), k.Namespace)
	gauge(failedDesc, float64(progress.Failed), k.Namespace)
	metrics <- prometheus.MustNewConstMetric(movedDesc, prometheus.CounterValue, float64(progress.Total), k.Namespace)

	ctx, cancel := context.WithTimeout(context.Background(), collectTimeout)
	defer cancel()
	shelved, err := k.Keystore.Keys(ctx, k.Namespace)
	if err != nil {
		return // the store is away; health says so
	}
	gauge(remainingDesc, float64(upkeep.Remaining(shelved)), k.Namespace)
	var ring *keystore.Keyring
	if k.Keystore.Usable(ctx) == nil {
		ring, _ = k.Keystore.Keyring(ctx, k.Namespace)
	}
	for _, key := range shelved {
		class, version := key.Class.String(), strconv.FormatUint(uint64(key.Version), 10)
		gauge(createdDesc, seconds(key.Created), k.Namespace, class, version)
		gauge(rootDesc, float64(key.RootVersion), k.Namespace, class, version)
		if !key.Class.Permanent() {
			gauge(recordsDesc, float64(key.Count.Records), k.Namespace, class, version)
		}
		if key.Class == keystore.Data {
			uses := key.Count.Sealed
			if ring != nil { // it knows of those that are not stored yet
				uses = max(uses, ring.Uses(key.Version))
			}
			gauge(usesDesc, float64(uses), k.Namespace, version)
		}
	}
}

func one(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

// seconds returns a time in Unix seconds, 0 for none.
func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}
