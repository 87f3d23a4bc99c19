package schedule

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/cairndb/cairn/pd/cluster"
)

// Metrics outlive a Coordinator: a PD leads more than once.
type Metrics struct {
	started, operators, runs     *prometheus.CounterVec
	score, leaders, regions, sad *prometheus.GaugeVec
}

// NewMetrics registers the metrics; nil = not registered.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	gauge := func(name, help, label string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, []string{label})
	}
	m := &Metrics{
		started:   counter("cairn_pd_operators_started_total", "Operators begun, by kind.", "kind"),
		operators: counter("cairn_pd_operators_total", "Operators ended, by kind and result.", "kind", "result"),
		runs:      counter("cairn_pd_scheduler_runs_total", "Runs of schedulers, by whether they found something to do.", "scheduler", "outcome"),
		score:     gauge("cairn_pd_store_score", "Weight of the replicas on a store, which balance evens out.", "store"),
		leaders:   gauge("cairn_pd_store_leaders", "Regions led by a store, as they report.", "store"),
		regions:   gauge("cairn_pd_store_regions", "Replicas on a store, as regions report.", "store"),
		sad:       gauge("cairn_pd_regions_unhealthy", "Regions that are not as they should be, by problem.", "problem"),
	}
	if reg != nil {
		reg.MustRegister(m.started, m.operators, m.runs, m.score, m.leaders, m.regions, m.sad)
	}
	return m
}

// observe sets the gauges.
func (m *Metrics) observe(v *view) {
	m.Reset()
	for _, s := range v.stores {
		id := strconv.FormatUint(s.id, 10)
		m.score.WithLabelValues(id).Set(s.score())
		m.leaders.WithLabelValues(id).Set(float64(s.leaders))
		m.regions.WithLabelValues(id).Set(float64(s.regions))
	}
	count := make(map[string]int)
	v.Regions.All(func(r *cluster.Region) bool {
		for _, p := range v.problems(r) {
			count[p.kind]++
		}
		return true
	})
	for _, kind := range problemKinds {
		m.sad.WithLabelValues(kind).Set(float64(count[kind]))
	}
}

// Reset forgets the gauges: a PD that does not lead knows nothing.
func (m *Metrics) Reset() {
	for _, g := range []*prometheus.GaugeVec{m.score, m.leaders, m.regions, m.sad} {
		g.Reset()
	}
}
