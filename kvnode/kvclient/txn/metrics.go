package txn

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	phase     *prometheus.HistogramVec
	prewrite  prometheus.Observer
	commit    prometheus.Observer
	onePCTime prometheus.Observer
	onePC     prometheus.Counter
	async     prometheus.Counter
	fallback  prometheus.Counter
	recovered prometheus.Counter
	conflicts prometheus.Counter
	resolved  prometheus.Counter
	undeterm  prometheus.Counter
	tsoWait   prometheus.Histogram

	lockTimeouts, lockConflicts prometheus.Counter

	flush     prometheus.Observer
	flushed   prometheus.Counter
	pipelined prometheus.Counter

	validate     prometheus.Observer
	readsChanged prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		phase: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "cairn_sql_txn_phase_seconds",
			Help:    "Duration of the phases of a commit.",
			Buckets: prometheus.ExponentialBuckets(50e-6, 2, 18),
		}, []string{"phase"}),
		onePC: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cairn_sql_txn_one_pc_total",
			Help: "Transactions committed in one phase.",
		}),
		async: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cairn_sql_txn_async_commits_total",
			Help: "Transactions of several regions committed by their prewrites.",
		}),
		fallback: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cairn_sql_txn_async_fallbacks_total",
			Help: "Transactions that asked for async commit and got two phases.",
		}),
		recovered: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cairn_sql_txn_async_recovered_total",
			Help: "Async commits of silent clients decided by their locks.",
		}),
		conflicts: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cairn_sql_txn_conflicts_total",
			Help: "Transactions that failed with a write conflict.",
		}),
		resolved: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cairn_sql_txn_resolved_locks_total",
			Help: "Locks of other transactions settled.",
		}),
		undeterm: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cairn_sql_txn_undetermined_total",
			Help: "Commits whose result is unknown.",
		}),
		lockTimeouts: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cairn_sql_txn_lock_timeouts_total",
			Help: "Waits for a lock that lasted too long.",
		}),
		lockConflicts: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cairn_sql_txn_lock_conflicts_total",
			Help: "Locks refused because the key had changed since the statement read it.",
		}),
		tsoWait: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "cairn_sql_txn_tso_wait_seconds",
			Help:    "Time spent waiting for a timestamp.",
			Buckets: prometheus.ExponentialBuckets(1e-6, 4, 12),
		}),
	}
	m.readsChanged = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "cairn_sql_txn_reads_changed_total",
		Help: "Serializable transactions that failed because what they had read was changed.",
	})
	m.pipelined = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "cairn_sql_txn_pipelined_total",
		Help: "Transactions committed that had locked keys while they ran.",
	})
	m.flushed = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "cairn_sql_txn_flushed_bytes_total",
		Help: "Bytes of keys and values locked by transactions while they ran.",
	})
	m.flush = m.phase.WithLabelValues("flush")
	m.validate = m.phase.WithLabelValues("validate")
	m.prewrite = m.phase.WithLabelValues("prewrite")
	m.commit = m.phase.WithLabelValues("commit")
	m.onePCTime = m.phase.WithLabelValues("one_pc")
	if reg != nil {
		reg.MustRegister(m.phase, m.onePC, m.async, m.fallback, m.recovered, m.conflicts, m.resolved, m.undeterm, m.tsoWait, m.readsChanged, m.flushed, m.pipelined)
	}
	return m
}
