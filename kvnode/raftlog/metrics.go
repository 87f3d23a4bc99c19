package raftlog

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	fsyncs          prometheus.Counter
	writes          prometheus.Counter
	entries         prometheus.Counter
	entriesPerFsync prometheus.Histogram
	regionsPerFsync prometheus.Histogram
	write           prometheus.Histogram
	appendWait      prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) *metrics {
	opts := func(name, help string) prometheus.Opts {
		return prometheus.Opts{Namespace: "cairn", Subsystem: "raftlog", Name: name, Help: help}
	}
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		o := opts(name, help)
		return prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: o.Namespace, Subsystem: o.Subsystem, Name: o.Name, Help: o.Help, Buckets: buckets,
		})
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts(opts(name, help)))
	}
	latency := prometheus.ExponentialBuckets(25e-6, 2, 18)
	m := &metrics{
		fsyncs:          counter("fsyncs_total", "Log writes that waited for the disk."),
		writes:          counter("writes_total", "Log writes."),
		entries:         counter("entries_total", "Entries written."),
		entriesPerFsync: histogram("entries_per_fsync", "Entries one fsync made durable.", prometheus.ExponentialBuckets(1, 2, 12)),
		regionsPerFsync: histogram("appends_per_fsync", "Appends, each of one region, one fsync made durable.", prometheus.ExponentialBuckets(1, 2, 12)),
		write:           histogram("write_seconds", "Time of one log write, fsync included.", latency),
		appendWait:      histogram("append_seconds", "Time from the submission of an append until it was durable.", latency),
	}
	if reg != nil {
		reg.MustRegister(m.all()...)
	}
	return m
}

func (m *metrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.fsyncs, m.writes, m.entries, m.entriesPerFsync, m.regionsPerFsync, m.write, m.appendWait}
}

func (m *metrics) unregister(reg prometheus.Registerer) {
	for _, c := range m.all() {
		reg.Unregister(c)
	}
}
