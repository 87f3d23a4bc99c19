package kvclient

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	hits, misses                prometheus.Counter
	local, remote               prometheus.Counter
	ok, failed                  [operationCount]prometheus.Counter
	regionErrors                *prometheus.CounterVec
	sendErrors                  [sendReasons]prometheus.Counter
	streamBreaks, leaderMoves   prometheus.Counter
	outages                     prometheus.Counter
	replicaReads                [nearOutcomes]prometheus.Counter
	storesDown                  prometheus.Gauge
	slow                        prometheus.Counter
	batch                       prometheus.Histogram
	backoffSeconds, backoffWait [backoffKinds]prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	lookups := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "cairn_kvclient_region_lookups_total", Help: "Lookups in the region cache."}, []string{"outcome"})
	requests := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "cairn_kvclient_requests_total", Help: "Operations by kind and outcome, retries counted once."}, []string{"op", "outcome"})
	attempts := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "cairn_kvclient_attempts_total", Help: "Attempts of operations by where the store is: local, in this process, or remote."}, []string{"where"})
	seconds := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "cairn_kvclient_backoff_seconds_total", Help: "Time slept in back-off by reason."}, []string{"reason"})
	waits := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "cairn_kvclient_backoffs_total", Help: "Sleeps in back-off by reason."}, []string{"reason"})
	m := &metrics{
		hits: lookups.WithLabelValues("hit"), misses: lookups.WithLabelValues("miss"),
		local: attempts.WithLabelValues("local"), remote: attempts.WithLabelValues("remote"),
		regionErrors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "cairn_kvclient_region_errors_total", Help: "Region errors by kind."}, []string{"kind"}),
		streamBreaks: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cairn_kvclient_stream_breaks_total", Help: "BatchCommands streams that broke or could not be opened."}),
		leaderMoves: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cairn_kvclient_leader_moves_total", Help: "Times a region's leader was found at another replica than the one believed to be it."}),
		outages: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cairn_kvclient_store_outages_total", Help: "Times a store was found not to answer."}),
		storesDown: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "cairn_kvclient_stores_down", Help: "Stores that do not answer now."}),
		slow: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cairn_kvclient_slow_requests_total", Help: "Operations that needed more than one attempt and took longer than a second."}),
		batch: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "cairn_kvclient_batch_requests", Help: "Requests in a BatchCommands frame sent.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 8)}),
	}
	replicaReads := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "cairn_kvclient_replica_reads_total",
		Help: "Reads that may go to another replica than the leader, by who served them: replica, with an index of the leader; past, without; leader, because it is chosen; failed: leader, because the replica could not."}, []string{"served"})
	for o, name := range nearOutcomeNames {
		m.replicaReads[o] = replicaReads.WithLabelValues(name)
	}
	sendErrors := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "cairn_kvclient_send_errors_total", Help: "Attempts that got no answer, by reason."}, []string{"reason"})
	for r := range m.sendErrors {
		m.sendErrors[r] = sendErrors.WithLabelValues(sendReasonNames[r])
	}
	for op := range m.ok {
		m.ok[op] = requests.WithLabelValues(operations[op].name, "ok")
		m.failed[op] = requests.WithLabelValues(operations[op].name, "error")
	}
	for k := range m.backoffSeconds {
		m.backoffSeconds[k] = seconds.WithLabelValues(backoffTable[k].name)
		m.backoffWait[k] = waits.WithLabelValues(backoffTable[k].name)
	}
	if reg != nil {
		reg.MustRegister(replicaReads, lookups, requests, attempts, seconds, waits, m.regionErrors, sendErrors, m.streamBreaks, m.batch,
			m.leaderMoves, m.outages, m.storesDown, m.slow)
	}
	return m
}
