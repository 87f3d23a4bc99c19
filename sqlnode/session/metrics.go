package session

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/cairndb/cairn/sqlnode/plan"
)

// metrics of all sessions of a node.
type metrics struct {
	connections prometheus.Gauge
	statements  map[string]statementMetrics // by type
	errors      prometheus.Counter
	conflicts   prometheus.Counter
	duplicates  prometheus.Counter
	retries     prometheus.Counter
	unavailable prometheus.Counter
	planHits    prometheus.Counter
	planMisses  prometheus.Counter
}

type statementMetrics struct {
	count   prometheus.Counter
	latency prometheus.Observer
}

// statementTypes label the statement metrics.
var statementTypes = []string{"select", "insert", "replace", "update", "delete", "explain", "transaction", "set", "show", "ddl", "other"}

func newMetrics(reg prometheus.Registerer) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "cairn", Subsystem: "sql", Name: name, Help: help})
	}
	statements := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "cairn", Subsystem: "sql", Name: "statements_total",
		Help: "Statements executed, by type."}, []string{"type"})
	latency := prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: "cairn", Subsystem: "sql", Name: "statement_seconds",
		Help:    "Time from the arrival of a statement to the end of its result.",
		Buckets: prometheus.ExponentialBuckets(20e-6, 2, 20)}, []string{"type"})
	m := &metrics{
		connections: prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "cairn", Subsystem: "sql", Name: "connections",
			Help: "Client connections that are open."}),
		errors:      counter("errors_total", "Statements that ended in an error."),
		conflicts:   counter("write_conflicts_total", "Statements and commits that lost a write conflict."),
		duplicates:  counter("duplicate_keys_total", "Commits refused for a duplicate key."),
		retries:     counter("retries_total", "Autocommit statements run again after a write conflict."),
		unavailable: counter("unavailable_total", "Statements that failed because a region or PD gave no answer in time."),
		planHits:    counter("plan_cache_hits_total", "Statements that found their plan in the cache."),
		planMisses:  counter("plan_cache_misses_total", "Statements that were planned."),
		statements:  map[string]statementMetrics{},
	}
	for _, t := range statementTypes {
		m.statements[t] = statementMetrics{statements.WithLabelValues(t), latency.WithLabelValues(t)}
	}
	if reg != nil {
		reg.MustRegister(m.connections, statements, latency, m.errors, m.conflicts, m.duplicates, m.retries, m.unavailable, m.planHits, m.planMisses)
	}
	return m
}

func (m *metrics) observe(kind string, start time.Time, err error) {
	of := m.statements[kind]
	of.count.Inc()
	of.latency.Observe(time.Since(start).Seconds())
	if err != nil {
		m.errors.Inc()
	}
}

var kindLabels = map[plan.Kind]string{
	plan.KindSelect: "select", plan.KindInsert: "insert", plan.KindReplace: "replace",
	plan.KindUpdate: "update", plan.KindDelete: "delete", plan.KindExplain: "explain",
}
