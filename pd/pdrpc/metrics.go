package pdrpc

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	timestamps, exhausted, storeBeats, regionBeats, regionBeatsRefused prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	beats := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "cairn_pd_region_heartbeats_total", Help: "Reports of region leaders by outcome."}, []string{"outcome"})
	m := &metrics{
		timestamps: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cairn_pd_timestamps_total", Help: "Timestamps handed out."}),
		exhausted: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cairn_pd_timestamp_waits_total", Help: "Times that a request found the timestamp window used up."}),
		storeBeats: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cairn_pd_store_heartbeats_total", Help: "Heartbeats of stores."}),
		regionBeats:        beats.WithLabelValues("accepted"),
		regionBeatsRefused: beats.WithLabelValues("refused"),
	}
	if reg != nil {
		reg.MustRegister(m.timestamps, m.exhausted, m.storeBeats, beats)
	}
	return m
}
