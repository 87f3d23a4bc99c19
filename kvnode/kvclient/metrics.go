package kvclient

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	hits, misses                prometheus.Counter
	ok, failed                  [operationCount]prometheus.Counter
	regionErrors                *prometheus.CounterVec
	sendErrors, streamBreaks    prometheus.Counter
	batch                       prometheus.Histogram
	backoffSeconds, backoffWait [backoffKinds]prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	lookups := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "cairn_kvclient_region_lookups_total", Help: "Lookups in the region cache."}, []string{"outcome"})
	requests := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "cairn_kvclient_requests_total", Help: "Operations by kind and outcome, retries counted once."}, []string{"op", "outcome"})
	seconds := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "cairn_kvclient_backoff_seconds_total", Help: "Time slept in back-off by reason."}, []string{"reason"})
	waits := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "cairn_kvclient_backoffs_total", Help: "Sleeps in back-off by reason."}, []string{"reason"})
	m := &metrics{
		hits: lookups.WithLabelValues("hit"), misses: lookups.WithLabelValues("miss"),
		regionErrors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "cairn_kvclient_region_errors_total", Help: "Region errors by kind."}, []string{"kind"}),
		sendErrors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cairn_kvclient_send_errors_total", Help: "Requests that got no answer."}),
		streamBreaks: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cairn_kvclient_stream_breaks_total", Help: "BatchCommands streams that broke or could not be opened."}),
		batch: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "cairn_kvclient_batch_requests", Help: "Requests in a BatchCommands frame sent.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 8)}),
	}
	for op := range m.ok {
		m.ok[op] = requests.WithLabelValues(operations[op].name, "ok")
		m.failed[op] = requests.WithLabelValues(operations[op].name, "error")
	}
	for k := range m.backoffSeconds {
		m.backoffSeconds[k] = seconds.WithLabelValues(backoffTable[k].name)
		m.backoffWait[k] = waits.WithLabelValues(backoffTable[k].name)
	}
	if reg != nil {
		reg.MustRegister(lookups, requests, seconds, waits, m.regionErrors, m.sendErrors, m.streamBreaks, m.batch)
	}
	return m
}
