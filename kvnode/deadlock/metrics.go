package deadlock

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	found   prometheus.Counter
	refuted prometheus.Counter
	breaks  prometheus.Counter
	seconds prometheus.Histogram
	gauges  []prometheus.Collector
}

func newMetrics(d *Detector) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "cairn", Subsystem: "kv_deadlock", Name: name, Help: help})
	}
	gauge := func(name, help string, f func() int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "cairn", Subsystem: "kv_deadlock", Name: name, Help: help},
			func() float64 {
				d.mu.Lock()
				defer d.mu.Unlock()
				return float64(f())
			})
	}
	m := &metrics{
		found:   counter("found_total", "Deadlocks that ended a wait on this store."),
		refuted: counter("refuted_total", "Cycles that were gone before the stores of their waits had answered, counted by the detector."),
		breaks:  counter("stream_breaks_total", "Streams to the detector that broke or could not be opened."),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "cairn", Subsystem: "kv_deadlock", Name: "found_seconds",
			Help: "Time from the beginning of a wait until it was found to be a deadlock.", Buckets: prometheus.ExponentialBuckets(1e-5, 4, 10),
		}),
	}
	m.gauges = []prometheus.Collector{
		gauge("waits", "Waits for locks on this store.", func() int { return len(d.waits) }),
		gauge("graph_waits", "Waits in the graph of all stores; 0 if this store is not the detector.", func() int {
			if d.finder == nil {
				return 0
			}
			return len(d.finder.graph.edges)
		}),
		gauge("detector", "1 while this store is the detector.", func() int {
			if d.finder == nil {
				return 0
			}
			return 1
		}),
		gauge("connected", "1 while this store is the detector or connected to it.", func() int {
			if d.finder == nil && d.link == nil {
				return 0
			}
			return 1
		}),
	}
	if d.o.Registerer != nil {
		d.o.Registerer.MustRegister(m.all()...)
	}
	return m
}

func (m *metrics) all() []prometheus.Collector {
	return append([]prometheus.Collector{m.found, m.refuted, m.breaks, m.seconds}, m.gauges...)
}

func (m *metrics) unregister(reg prometheus.Registerer) {
	if reg == nil {
		return
	}
	for _, c := range m.all() {
		reg.Unregister(c)
	}
}
