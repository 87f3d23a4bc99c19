package engine

import (
	"github.com/cockroachdb/pebble/v2"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// collector reads a database's own counters when metrics are scraped, so that
// they cost nothing in between.
type collector struct {
	db *pebble.DB

	fsync, l0Sublevels, l0Files, readAmp     *prometheus.Desc
	debt, compactions, flushes               *prometheus.Desc
	memTable, diskBytes, walBytes            *prometheus.Desc
	cacheBytes, cacheHits, cacheMisses       *prometheus.Desc
	tombstones, openIters, levelBytes, walIn *prometheus.Desc
}

// NewCollector returns a collector over the counters of db. Its metrics are
// called cairn_<subsystem>_... (for instance subsystem "engine").
func NewCollector(db *pebble.DB, subsystem string) prometheus.Collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(prometheus.BuildFQName("cairn", subsystem, name), help, labels, nil)
	}
	return &collector{
		db:          db,
		fsync:       desc("wal_fsync_seconds", "Time of one fsync of the write-ahead log."),
		l0Sublevels: desc("l0_sublevels", "Sublevels of L0: how many files a read may have to open there."),
		l0Files:     desc("l0_files", "Files in L0."),
		readAmp:     desc("read_amplification", "Levels and sublevels a read may visit."),
		debt:        desc("compaction_debt_bytes", "Bytes that compactions still have to move."),
		compactions: desc("compactions_total", "Compactions finished."),
		flushes:     desc("flushes_total", "Memtable flushes finished."),
		memTable:    desc("memtable_bytes", "Memory held by memtables."),
		diskBytes:   desc("disk_bytes", "Bytes on disk, logs included."),
		walBytes:    desc("wal_bytes", "Live bytes of the write-ahead log."),
		walIn:       desc("wal_in_bytes_total", "Bytes given to the write-ahead log."),
		cacheBytes:  desc("cache_bytes", "Bytes held by the block cache."),
		cacheHits:   desc("cache_hits_total", "Block cache hits."),
		cacheMisses: desc("cache_misses_total", "Block cache misses."),
		tombstones:  desc("tombstones", "Point and range tombstones not yet compacted away."),
		openIters:   desc("open_table_iterators", "Open iterators over tables."),
		levelBytes:  desc("level_bytes", "Bytes of a level.", "level"),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		c.fsync, c.l0Sublevels, c.l0Files, c.readAmp, c.debt, c.compactions, c.flushes, c.memTable, c.diskBytes,
		c.walBytes, c.walIn, c.cacheBytes, c.cacheHits, c.cacheMisses, c.tombstones, c.openIters, c.levelBytes,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	m := c.db.Metrics()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v float64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v)
	}
	gauge(c.l0Sublevels, float64(m.Levels[0].Sublevels))
	gauge(c.l0Files, float64(m.Levels[0].TablesCount))
	gauge(c.readAmp, float64(m.ReadAmp()))
	gauge(c.debt, float64(m.Compact.EstimatedDebt))
	counter(c.compactions, float64(m.Compact.Count))
	counter(c.flushes, float64(m.Flush.Count))
	gauge(c.memTable, float64(m.MemTable.Size))
	gauge(c.diskBytes, float64(m.DiskSpaceUsage()))
	gauge(c.walBytes, float64(m.WAL.Size))
	counter(c.walIn, float64(m.WAL.BytesIn))
	gauge(c.cacheBytes, float64(m.BlockCache.Size))
	counter(c.cacheHits, float64(m.BlockCache.Hits))
	counter(c.cacheMisses, float64(m.BlockCache.Misses))
	gauge(c.tombstones, float64(m.Keys.TombstoneCount))
	gauge(c.openIters, float64(m.TableIters))
	for i := range m.Levels {
		gauge(c.levelBytes, float64(m.Levels[i].AggregateSize()), string(rune('0'+i)))
	}
	if m.LogWriter.FsyncLatency != nil {
		c.collectFsync(ch, m.LogWriter.FsyncLatency)
	}
}

// collectFsync passes Pebble's histogram, which has no name, on under ours.
func (c *collector) collectFsync(ch chan<- prometheus.Metric, h prometheus.Histogram) {
	var m dto.Metric
	if err := h.Write(&m); err != nil {
		return
	}
	buckets := make(map[float64]uint64)
	for i, b := range m.GetHistogram().GetBucket() {
		if i%5 == 0 { // Pebble keeps 100; twenty tell enough
			buckets[b.GetUpperBound()/1e9] = b.GetCumulativeCount()
		}
	}
	sum := m.GetHistogram().GetSampleSum() / 1e9
	ch <- prometheus.MustNewConstHistogram(c.fsync, m.GetHistogram().GetSampleCount(), sum, buckets)
}
