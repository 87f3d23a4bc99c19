package rafttransport

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/cairndb/cairn/proto/replpb"
)

// streamNames are the values of the label stream.
var streamNames = [...]string{
	replpb.MessageStream_MESSAGE_STREAM_BULK:   "bulk",
	replpb.MessageStream_MESSAGE_STREAM_URGENT: "urgent",
}

type metrics struct {
	streams [len(streamNames)]streamMetrics
	dropped struct{ notSent prometheus.Counter }
	breaks  prometheus.Counter
	bad     prometheus.Counter

	snapshotsSent, snapshotsReceived snapshotMetrics

	unregister func()
}

type streamMetrics struct {
	sent, received flowMetrics
	dropped        prometheus.Counter
}

type flowMetrics struct{ messages, batches, bytes prometheus.Counter }

func (m *flowMetrics) add(messages, bytes int) {
	m.batches.Inc()
	m.messages.Add(float64(messages))
	m.bytes.Add(float64(bytes))
}

type snapshotMetrics struct {
	ok, failed prometheus.Counter
	bytes      prometheus.Counter
	inProgress prometheus.Gauge
	seconds    prometheus.Observer
}

func newMetrics(reg prometheus.Registerer, n *Network) *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	messages := counter("cairn_raft_messages_total", "Messages between stores by stream and by what became of them.", "stream", "outcome")
	batches := counter("cairn_raft_batches_total", "Batches of messages by stream and direction, empty ones included.", "stream", "direction")
	bytes := counter("cairn_raft_bytes_total", "Bytes of messages by stream and direction.", "stream", "direction")
	breaks := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "cairn_raft_stream_breaks_total", Help: "Streams to other stores that broke or could not be opened."})
	bad := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "cairn_raft_bad_batches_total", Help: "Batches received whose checksum or content was wrong."})
	snapshots := counter("cairn_raft_snapshots_total", "Snapshots by direction and outcome.", "direction", "outcome")
	snapshotBytes := counter("cairn_raft_snapshot_bytes_total", "Bytes of snapshot files by direction.", "direction")
	inProgress := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "cairn_raft_snapshots_in_progress", Help: "Snapshots under way by direction."}, []string{"direction"})
	seconds := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "cairn_raft_snapshot_seconds", Help: "Time to transfer a snapshot, waiting for its turn not included.",
		Buckets: prometheus.ExponentialBuckets(0.01, 3, 10)}, []string{"direction"})
	lost := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "cairn_raft_stores_lost", Help: "Stores nothing is heard of."}, func() float64 { return float64(n.tracker.Lost()) })

	m := &metrics{breaks: breaks, bad: bad}
	collectors := []prometheus.Collector{messages, batches, bytes, breaks, bad, snapshots, snapshotBytes, inProgress, seconds, lost}
	for s, name := range streamNames {
		flow := func(outcome string) flowMetrics {
			return flowMetrics{messages.WithLabelValues(name, outcome), batches.WithLabelValues(name, outcome), bytes.WithLabelValues(name, outcome)}
		}
		m.streams[s] = streamMetrics{sent: flow("sent"), received: flow("received"), dropped: messages.WithLabelValues(name, "dropped")}
		collectors = append(collectors, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "cairn_raft_queue_messages", Help: "Messages that wait to be sent.", ConstLabels: prometheus.Labels{"stream": name},
		}, func() float64 { return float64(n.queued(replpb.MessageStream(s))) }))
	}
	m.dropped.notSent = messages.WithLabelValues("none", "dropped")
	snapshot := func(direction string) snapshotMetrics {
		return snapshotMetrics{
			snapshots.WithLabelValues(direction, "ok"), snapshots.WithLabelValues(direction, "failed"),
			snapshotBytes.WithLabelValues(direction), inProgress.WithLabelValues(direction), seconds.WithLabelValues(direction)}
	}
	m.snapshotsSent, m.snapshotsReceived = snapshot("sent"), snapshot("received")
	m.unregister = func() {}
	if reg != nil {
		reg.MustRegister(collectors...)
		m.unregister = func() {
			for _, c := range collectors {
				reg.Unregister(c)
			}
		}
	}
	return m
}

// queued returns how many messages wait for a stream, to all stores.
func (n *Network) queued(s replpb.MessageStream) int {
	total := 0
	for _, p := range *n.peers.Load() {
		total += p.links[s].queueLen()
	}
	return total
}
