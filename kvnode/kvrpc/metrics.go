package kvrpc

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	requests [commandCount]commandMetrics
	splits   prometheus.Counter
	streams  prometheus.Gauge
	batch    prometheus.Histogram
}

// commandMetrics are the children of one command, looked up once.
type commandMetrics struct {
	executed, expired, unsupported, panics prometheus.Counter
	seconds                                prometheus.Observer
}

func newMetrics(reg prometheus.Registerer) *metrics {
	requests := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "cairn_kv_requests_total", Help: "Requests by command and by what became of them.",
	}, []string{"command", "outcome"})
	seconds := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "cairn_kv_request_seconds", Help: "Time to execute a command; point reads are not measured.",
		Buckets: prometheus.ExponentialBuckets(20e-6, 2.5, 14),
	}, []string{"command"})
	m := &metrics{
		splits: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cairn_kv_split_requests_total", Help: "Requests to split a region."}),
		streams: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "cairn_kv_streams", Help: "Open BatchCommands streams."}),
		batch: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "cairn_kv_batch_requests", Help: "Requests in a BatchCommands frame received.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 10)}),
	}
	for c := range m.requests {
		name := commandNames[c]
		m.requests[c] = commandMetrics{
			executed:    requests.WithLabelValues(name, "executed"),
			expired:     requests.WithLabelValues(name, "expired"),
			unsupported: requests.WithLabelValues(name, "unsupported"),
			panics:      requests.WithLabelValues(name, "panic"),
			seconds:     seconds.WithLabelValues(name),
		}
	}
	if reg != nil {
		reg.MustRegister(requests, seconds, m.splits, m.streams, m.batch)
	}
	return m
}
