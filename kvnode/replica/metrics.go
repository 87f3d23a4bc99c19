package replica

import "github.com/prometheus/client_golang/prometheus"

// Metrics counts what all replicas of a store do.
type Metrics struct {
	proposals      prometheus.Counter
	proposalBytes  prometheus.Counter
	perMessage     prometheus.Histogram
	rejected       *prometheus.CounterVec
	commit         prometheus.Histogram
	apply          prometheus.Histogram
	appliedEntries prometheus.Counter
	readIndexes    prometheus.Counter
	leaderChanges  prometheus.Counter
	splits         prometheus.Counter
	merges         prometheus.Counter
	changes        prometheus.Counter
	destroyed      prometheus.Counter
	// Garbage collected by this store's replicas, followers too.
	garbageSteps, garbageVersions prometheus.Counter
	snapshots                     *prometheus.CounterVec
}

// NewMetrics registers the metrics. A nil registerer is allowed.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "cairn", Subsystem: "replica", Name: name, Help: help})
	}
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "cairn", Subsystem: "replica", Name: name, Help: help, Buckets: buckets,
		})
	}
	latency := prometheus.ExponentialBuckets(25e-6, 2, 18)
	m := &Metrics{
		proposals:     counter("proposals_total", "Proposals given to Raft."),
		proposalBytes: counter("proposal_bytes_total", "Bytes of proposals given to Raft."),
		perMessage:    histogram("proposals_per_message", "Proposals packed into one Raft message.", prometheus.ExponentialBuckets(1, 2, 10)),
		rejected: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "cairn", Subsystem: "replica", Name: "proposals_rejected_total", Help: "Proposals that were not applied, by where they were stopped.",
		}, []string{"at"}),
		commit:          histogram("propose_seconds", "Time from a proposal until it was applied and answered.", latency),
		apply:           histogram("apply_seconds", "Time to apply one group of committed entries.", latency),
		appliedEntries:  counter("applied_entries_total", "Entries applied."),
		readIndexes:     counter("read_index_total", "Reads that had to ask the quorum."),
		leaderChanges:   counter("leader_changes_total", "Times a replica became or ceased to be leader."),
		splits:          counter("splits_total", "Splits applied."),
		merges:          counter("merges_total", "Merges applied to their target."),
		changes:         counter("membership_changes_total", "Changes of membership applied."),
		destroyed:       counter("ranges_destroyed_total", "Ranges of dropped data removed."),
		garbageSteps:    counter("garbage_steps_total", "Steps of garbage collection applied."),
		garbageVersions: counter("garbage_versions_total", "Versions of keys that garbage collection removed."),
		snapshots: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "cairn", Subsystem: "replica", Name: "snapshots_total", Help: "Snapshots that began to be sent, or were installed.",
		}, []string{"what"}),
	}
	if reg != nil {
		reg.MustRegister(m.all()...)
	}
	return m
}

func (m *Metrics) all() []prometheus.Collector {
	return []prometheus.Collector{
		m.proposals, m.proposalBytes, m.perMessage, m.rejected, m.commit, m.apply,
		m.appliedEntries, m.readIndexes, m.leaderChanges, m.splits, m.merges, m.changes, m.destroyed, m.snapshots, m.garbageSteps, m.garbageVersions,
	}
}

// Unregister undoes NewMetrics.
func (m *Metrics) Unregister(reg prometheus.Registerer) {
	if reg == nil {
		return
	}
	for _, c := range m.all() {
		reg.Unregister(c)
	}
}
