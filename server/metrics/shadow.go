package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/coatcheck/coatcheck/server"
)

// Shadow is what there is to tell of a shadow policy.
type Shadow struct {
	// Differences returns how often it would have decided otherwise.
	Differences func() map[server.Difference]uint64

	// Refused says whether its file is refused.
	Refused func() bool
}

var (
	differencesDesc   = describe("shadow_differences_total", "Decisions that the shadow policy would have made otherwise, by what the two say.", "action", "live", "shadow")
	shadowRefusedDesc = describe("shadow_policy_refused", "1 while the file of the shadow policy is refused, so that an earlier one is asked, or none.")
)

// Describe implements prometheus.Collector.
func (Shadow) Describe(descs chan<- *prometheus.Desc) {
	descs <- differencesDesc
	descs <- shadowRefusedDesc
}

// Collect implements prometheus.Collector.
func (s Shadow) Collect(metrics chan<- prometheus.Metric) {
	for d, n := range s.Differences() {
		metrics <- prometheus.MustNewConstMetric(differencesDesc, prometheus.CounterValue, float64(n), d.Action, d.Live, d.Shadow)
	}
	metrics <- prometheus.MustNewConstMetric(shadowRefusedDesc, prometheus.GaugeValue, one(s.Refused()))
}
