package store

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	regions    prometheus.GaugeFunc
	leaders    prometheus.GaugeFunc
	heartbeats *prometheus.CounterVec
	others     []prometheus.Collector // of the store's parts
	loadSplits prometheus.Counter
	closed     prometheus.Counter
	splitReady prometheus.Histogram
}

func newMetrics(s *Store) *metrics {
	gauge := func(name, help string, f func() float64) prometheus.GaugeFunc {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "cairn", Subsystem: "store", Name: name, Help: help}, f)
	}
	m := &metrics{
		regions: gauge("regions", "Regions with a replica here.", func() float64 { return float64(len(s.replicas())) }),
		leaders: gauge("leaders", "Regions led here.", func() float64 { _, n := s.count(); return float64(n) }),
		heartbeats: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "cairn", Subsystem: "store", Name: "heartbeats_total", Help: "Reports to PD.",
		}, []string{"kind", "result"}),
		others: append(s.flow.collectors(), s.space.gauge, s.disk.seconds, s.disk.slowNow),
		loadSplits: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: "cairn", Subsystem: "store", Name: "load_splits_total", Help: "Regions cut because they were busy.",
		}),
		closed: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: "cairn", Subsystem: "store", Name: "closed_timestamps_total", Help: "Timestamps closed in regions led here whose replicas are read in the past.",
		}),
		splitReady: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "cairn", Subsystem: "store", Name: "split_ready_seconds",
			Help: "Time from a split of a region led here until the new region serves here.", Buckets: prometheus.ExponentialBuckets(1e-3, 2, 14),
		}),
	}
	if reg := s.o.Registerer; reg != nil {
		reg.MustRegister(m.all()...)
	}
	return m
}

func (m *metrics) all() []prometheus.Collector {
	return append([]prometheus.Collector{m.regions, m.leaders, m.heartbeats, m.loadSplits, m.closed, m.splitReady}, m.others...)
}

func (m *metrics) unregister(reg prometheus.Registerer) {
	if reg == nil {
		return
	}
	for _, c := range m.all() {
		reg.Unregister(c)
	}
}

// count returns how many regions are here and how many are led here.
func (s *Store) count() (regions, leaders int) {
	for _, r := range s.replicas() {
		regions++
		if r.View().Leading() {
			leaders++
		}
	}
	return regions, leaders
}
