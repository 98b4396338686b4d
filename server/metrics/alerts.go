package metrics

import "github.com/prometheus/client_golang/prometheus"

// alerts collects what there is to tell of alerts, when it is asked for.
type alerts Sources

var (
	alertsDesc     = describe("alerts_total", "Alerts that committed events carry, by kind.", "kind")
	deliveriesDesc = describe("alert_deliveries_total", "How deliveries of alerts ended: delivered, failed, or dropped.", "sink", "result")
)

// Describe implements prometheus.Collector.
func (alerts) Describe(descs chan<- *prometheus.Desc) {
	descs <- alertsDesc
	descs <- deliveriesDesc
}

// Collect implements prometheus.Collector.
func (a alerts) Collect(metrics chan<- prometheus.Metric) {
	counts := a.Alerts()
	for kind, n := range counts.Raised {
		metrics <- prometheus.MustNewConstMetric(alertsDesc, prometheus.CounterValue, float64(n), kind)
	}
	for d, n := range counts.Deliveries {
		metrics <- prometheus.MustNewConstMetric(deliveriesDesc, prometheus.CounterValue, float64(n), d.Sink, string(d.Result))
	}
}
