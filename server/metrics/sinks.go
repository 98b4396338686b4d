package metrics

import "github.com/prometheus/client_golang/prometheus"

// sinks collects what there is to tell of the ways out of the audit log.
type sinks Sources

var (
	sinkLagDesc       = describe("audit_sink_lag_events", "Events that are committed, but not confirmed by the receiver yet.", "sink")
	sinkDeliveredDesc = describe("audit_sink_delivered_total", "Events that the receiver has confirmed.", "sink")
	sinkReducedDesc   = describe("audit_sink_reduced_total", "Events of these without some of their items, since they are too large.", "sink")
	sinkRejectedDesc  = describe("audit_sink_rejected_total", "Events of these that the receiver has refused to keep.", "sink")
	sinkSkippedDesc   = describe("audit_sink_skipped_total", "Events that were pruned before they were delivered.", "sink")
	sinkFailedDesc    = describe("audit_sink_failed_total", "Attempts to deliver that failed; what they had is sent again.", "sink")
)

// Describe implements prometheus.Collector.
func (sinks) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{sinkLagDesc, sinkDeliveredDesc, sinkReducedDesc, sinkRejectedDesc, sinkSkippedDesc, sinkFailedDesc} {
		descs <- d
	}
}

// Collect implements prometheus.Collector.
func (s sinks) Collect(metrics chan<- prometheus.Metric) {
	if s.Sinks == nil {
		return
	}
	for _, c := range s.Sinks() {
		metrics <- prometheus.MustNewConstMetric(sinkLagDesc, prometheus.GaugeValue, float64(c.Lag), c.Sink)
		for desc, n := range map[*prometheus.Desc]uint64{
			sinkDeliveredDesc: c.Delivered, sinkReducedDesc: c.Reduced, sinkRejectedDesc: c.Rejected, sinkSkippedDesc: c.Skipped, sinkFailedDesc: c.Failed,
		} {
			metrics <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(n), c.Sink)
		}
	}
}
