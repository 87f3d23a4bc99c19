package pd

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	windows prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		windows: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "cairn_pd_timestamp_window_seconds", Help: "Durable writes of the window of timestamps.",
			Buckets: prometheus.ExponentialBuckets(100e-6, 2.5, 12)}),
	}
	if reg != nil {
		reg.MustRegister(m.windows)
	}
	return m
}
