package metrics

import "github.com/prometheus/client_golang/prometheus"

// checkpoints collects how far the audit log is signed.
type checkpoints Sources

var (
	signedDesc    = describe("audit_checkpoint_timestamp_seconds", "When the latest checkpoint of the audit log was signed, in Unix seconds; 0 if none was.")
	coveredDesc   = describe("audit_checkpoint_events", "Events of the audit log that the latest checkpoint covers.")
	uncoveredDesc = describe("audit_uncovered_events", "Events of the audit log that no checkpoint covers yet.")
	unsignedDesc  = describe("audit_checkpoint_failing", "1 while checkpoints of the audit log can't be signed.")
)

// Describe implements prometheus.Collector.
func (checkpoints) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{signedDesc, coveredDesc, uncoveredDesc, unsignedDesc} {
		descs <- d
	}
}

// Collect implements prometheus.Collector.
func (c checkpoints) Collect(metrics chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64) {
		metrics <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value)
	}
	status := c.Notary()
	gauge(signedDesc, seconds(status.Signed))
	gauge(coveredDesc, float64(status.Events))
	gauge(uncoveredDesc, float64(status.Uncovered))
	gauge(unsignedDesc, one(status.Failing))
}
