package metrics

import (
	"context"
	"math/big"

	"github.com/prometheus/client_golang/prometheus"
)

// tokens collects what there is to tell of profiles and their tokens.
type tokens Sources

var (
	tokensDesc   = describe("profile_tokens", "Tokens that the store has of a profile, those included that only keep one from being made again.", "namespace", "profile")
	capacityDesc = describe("profile_capacity_tokens", "How many tokens the format of a profile has, for the value that has the fewest.", "namespace", "profile")
)

// Describe implements prometheus.Collector.
func (tokens) Describe(descs chan<- *prometheus.Desc) {
	descs <- tokensDesc
	descs <- capacityDesc
}

// Collect implements prometheus.Collector.
func (t tokens) Collect(metrics chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), collectTimeout)
	defer cancel()
	counts, err := t.Store.Profiles(ctx, t.Namespace)
	for _, p := range t.Profiles {
		if d, err := p.Describe(); err == nil && d.Capacity != nil {
			capacity, _ := new(big.Float).SetInt(d.Capacity).Float64()
			metrics <- prometheus.MustNewConstMetric(capacityDesc, prometheus.GaugeValue, capacity, t.Namespace, p.Name)
		}
		if err == nil { // else the store is away; health says so
			metrics <- prometheus.MustNewConstMetric(tokensDesc, prometheus.GaugeValue, float64(counts[p.Name]), t.Namespace, p.Name)
		}
	}
}
