package meta

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	changes, renewalsFailed prometheus.Counter
	renewals                prometheus.Histogram
	leading                 prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		changes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cairn_pd_leader_changes_total", Help: "Terms of leadership that this member saw begin, its own among them."}),
		renewals: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "cairn_pd_lease_renewal_seconds", Help: "Renewals of leadership: a durable write on a majority.",
			Buckets: prometheus.ExponentialBuckets(100e-6, 2.5, 12)}),
		renewalsFailed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cairn_pd_lease_renewals_failed_total", Help: "Renewals of leadership that failed or took too long."}),
		leading: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "cairn_pd_leader", Help: "1 while this member leads."}),
	}
	if reg != nil {
		reg.MustRegister(m.changes, m.renewals, m.renewalsFailed, m.leading)
	}
	return m
}
