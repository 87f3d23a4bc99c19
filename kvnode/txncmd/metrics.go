package txncmd

import "github.com/prometheus/client_golang/prometheus"

// metrics of an Executor. Reads count only; timing them would cost more than
// a twentieth of what they do.
type metrics struct {
	commands  *prometheus.CounterVec
	get       prometheus.Counter
	batchGet  prometheus.Counter
	scan      prometheus.Counter
	readIndex prometheus.Counter
	prewrite  prometheus.Counter
	onePC     prometheus.Counter
	followed  prometheus.Counter
	commit    prometheus.Counter
	conflicts prometheus.Counter
	locked    prometheus.Counter
	latchWait prometheus.Counter
	pendWait  prometheus.Counter
	tooOld    prometheus.Counter

	async, asyncFallback prometheus.Counter

	pessimisticLock prometheus.Counter

	keptInMemory, keptPipelined, keptReplicated prometheus.Counter

	lockWaits, deadlocks         prometheus.Counter
	lockWait                     prometheus.Histogram
	locksLost, locksAmended      prometheus.Counter
	promisesKept, promisesBroken prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		commands: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "cairn_kv_txn_commands_total",
			Help: "Transaction commands executed, by kind.",
		}, []string{"cmd"}),
		onePC: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cairn_kv_txn_one_pc_total",
			Help: "Transactions committed in one phase.",
		}),
		followed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cairn_kv_txn_commits_followed_total",
			Help: "Commits proposed while one whose locks they were promised was in flight.",
		}),
		conflicts: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cairn_kv_txn_write_conflicts_total",
			Help: "Prewrites and pessimistic locks refused because of a newer version.",
		}),
		locked: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cairn_kv_txn_locked_total",
			Help: "Reads and writes that met another transaction's lock.",
		}),
		latchWait: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cairn_kv_txn_latch_waits_total",
			Help: "Commands that waited for another command on the same key.",
		}),
		pendWait: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cairn_kv_txn_pending_waits_total",
			Help: "Reads that waited for a one-phase or async commit in flight.",
		}),
		tooOld: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cairn_kv_txn_too_old_total",
			Help: "Reads and writes refused because they began before the safe point of garbage collection.",
		}),
		async: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cairn_kv_txn_async_prewrites_total",
			Help: "Prewrites that locked with async commit.",
		}),
		asyncFallback: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cairn_kv_txn_async_fallbacks_total",
			Help: "Prewrites asked for async commit that locked for two phases.",
		}),
		lockWaits: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cairn_kv_lock_waits_total",
			Help: "Requests that waited for a pessimistic lock.",
		}),
		deadlocks: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cairn_kv_lock_deadlocks_total",
			Help: "Requests whose wait for a pessimistic lock would have closed a cycle.",
		}),
		lockWait: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "cairn_kv_lock_wait_seconds",
			Help:    "How long a request waited for pessimistic locks; a client may ask again.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 8),
		}),
		locksLost: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cairn_kv_pessimistic_locks_lost_total",
			Help: "Prewrites refused because their pessimistic lock was lost, and the key was written or the lock only promised.",
		}),
		locksAmended: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cairn_kv_pessimistic_locks_amended_total",
			Help: "Keys prewritten although their pessimistic lock was lost.",
		}),
	}
	kept := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "cairn_kv_pessimistic_locks_total",
		Help: "Pessimistic locks taken, by where they were kept when that was answered: in the leader's memory, on their way through Raft, or applied.",
	}, []string{"kept"})
	m.keptInMemory, m.keptPipelined, m.keptReplicated = kept.WithLabelValues("memory"), kept.WithLabelValues("pipelined"), kept.WithLabelValues("replicated")
	promised := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "cairn_kv_pessimistic_locks_promised_total",
		Help: "Pessimistic locks promised by a commit under way to who waited for them, by whether it came to be.",
	}, []string{"outcome"})
	m.promisesKept, m.promisesBroken = promised.WithLabelValues("kept"), promised.WithLabelValues("broken")
	m.pessimisticLock = m.commands.WithLabelValues("pessimistic_lock")
	m.get = m.commands.WithLabelValues("get")
	m.batchGet = m.commands.WithLabelValues("batch_get")
	m.scan = m.commands.WithLabelValues("scan")
	m.readIndex = m.commands.WithLabelValues("read_index")
	m.prewrite = m.commands.WithLabelValues("prewrite")
	m.commit = m.commands.WithLabelValues("commit")
	if reg != nil {
		reg.MustRegister(m.commands, m.onePC, m.followed, m.conflicts, m.locked, m.latchWait, m.pendWait, m.tooOld, m.async, m.asyncFallback,
			m.lockWaits, m.deadlocks, m.lockWait, m.locksLost, m.locksAmended, kept, promised)
	}
	return m
}
