package metrics

import "github.com/prometheus/client_golang/prometheus"

// limited collects what was refused for limits of rules. The labels are names that the
// policy file gives.
type limited Sources

var limitedDesc = describe("limited_total", "Items refused for a limit of a rule.", "rule", "limit")

// Describe implements prometheus.Collector.
func (limited) Describe(descs chan<- *prometheus.Desc) { descs <- limitedDesc }

// Collect implements prometheus.Collector.
func (l limited) Collect(metrics chan<- prometheus.Metric) {
	for _, c := range l.Limited() {
		metrics <- prometheus.MustNewConstMetric(limitedDesc, prometheus.CounterValue, float64(c.Refused), c.Rule, c.Limit)
	}
}
