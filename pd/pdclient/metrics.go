package pdclient

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	tsWait, tsBatch            prometheus.Histogram
	streamBreaks, beatsDropped prometheus.Counter
	leaderFound                prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		tsWait: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "cairn_pdclient_timestamp_wait_seconds", Help: "From asking for a timestamp to having it.",
			Buckets: prometheus.ExponentialBuckets(20e-6, 2.5, 14)}),
		tsBatch: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "cairn_pdclient_timestamp_batch", Help: "Timestamps asked for in one request.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 12)}),
		leaderFound: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cairn_pdclient_leader_found_total", Help: "Times the leader was looked for and found."}),
		streamBreaks: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cairn_pdclient_timestamp_stream_breaks_total", Help: "Times the timestamp stream broke."}),
		beatsDropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cairn_pdclient_region_heartbeats_dropped_total", Help: "Region reports dropped because too many were queued."}),
	}
	if reg != nil {
		reg.MustRegister(m.tsWait, m.tsBatch, m.streamBreaks, m.beatsDropped, m.leaderFound)
	}
	return m
}
