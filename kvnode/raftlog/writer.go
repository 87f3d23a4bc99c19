package raftlog

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"go.etcd.io/raft/v3/raftpb"
)

// task is one write of one region.
type task struct {
	region uint64
	owner  Owner
	msg    *raftpb.Message // to be handed back; nil for a truncation
	// underway counts down when msg is handed back.
	underway *atomic.Int64
	since    time.Time
	sync     bool
	// patient: it may wait for something else to be written with.
	patient bool

	entries []*raftpb.Entry
	// Entries with an index in (tailFrom, tailTo] were overwritten and go.
	tailFrom, tailTo uint64

	hs    hardState
	hasHS bool

	// Entries in [truncFrom, trunc.index] go; nothing when truncFrom is 0.
	truncFrom uint64
	trunc     mark

	// clear drops all of the region before hs and trunc are written.
	clear bool

	barrier chan struct{} // closed when this and everything before was handed back
}

// Barrier waits until everything submitted before the call was handed to its owner.
func (d *DB) Barrier() {
	done := make(chan struct{})
	d.submit(task{barrier: done})
	select {
	case <-done:
	case <-d.done:
	}
}

// submit queues a task for the writer.
func (d *DB) submit(t task) {
	t.since = time.Now()
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return // a barrier is released by done
	}
	d.queue = append(d.queue, t)
	if t.patient {
		if !d.urgent && d.clock == nil {
			d.clock = time.AfterFunc(patience, d.Hurry)
		}
		d.mu.Unlock()
		return
	}
	d.hurryLocked()
	d.mu.Unlock()
}

// Hurry ends the wait of what was submitted and can wait.
func (d *DB) Hurry() {
	d.mu.Lock()
	if len(d.queue) > 0 {
		d.hurryLocked()
	}
	d.mu.Unlock()
}

func (d *DB) hurryLocked() {
	if !d.urgent {
		d.urgent = true
		d.work.Signal()
	}
}

// write is the log writer: one batch, one fsync, at a time.
//
// Up to three batches under way were tried, so that the disk need not wait for
// the next: with 16 writers that was a quarter slower, as each fsync then found
// fewer entries. The way back to the proposers is time in which entries gather.
func (d *DB) write() {
	defer close(d.done)
	var spare []task
	b := d.p.NewBatch()
	for {
		d.mu.Lock()
		for !d.urgent && !d.closed {
			d.work.Wait()
		}
		tasks := d.queue
		d.queue, d.urgent = spare[:0], false
		if d.clock != nil {
			d.clock.Stop()
			d.clock = nil
		}
		closed := d.closed
		d.mu.Unlock()
		if len(tasks) == 0 && closed {
			if err := b.Close(); err != nil {
				d.logger.Errorf("close log batch: %v", err)
			}
			return
		}
		for rest := tasks; len(rest) > 0; {
			n := d.writeSome(b, rest)
			rest = rest[n:]
		}
		clear(tasks)
		spare = tasks
	}
}

// writeSome writes tasks from the front until the batch is full, and tells
// their owners. It returns how many it wrote.
func (d *DB) writeSome(b *pebble.Batch, tasks []task) int {
	start := time.Now()
	b.Reset()
	n, entries, appends, sync := 0, 0, 0, false
	for n < len(tasks) && (n == 0 || b.Len() < maxBatchBytes) {
		t := &tasks[n]
		d.encode(b, t)
		entries += len(t.entries)
		if len(t.entries) > 0 {
			appends++
		}
		sync = sync || t.sync
		n++
	}
	o := pebble.NoSync
	if sync {
		o = pebble.Sync
	}
	if !b.Empty() {
		if err := d.p.Apply(b, o); err != nil {
			d.logger.Fatalf("write of the raft log: %v", err)
		}
	}
	end := time.Now()
	// Counted before it is told, so that who was told finds it counted.
	d.metrics.writes.Inc()
	d.metrics.entries.Add(float64(entries))
	if sync {
		d.metrics.fsyncs.Inc()
		d.metrics.entriesPerFsync.Observe(float64(entries))
		d.metrics.regionsPerFsync.Observe(float64(appends))
		d.metrics.write.Observe(end.Sub(start).Seconds())
	}
	for i := range tasks[:n] {
		t := &tasks[i]
		if t.msg != nil {
			t.owner.Appended(t.msg)
			t.underway.Add(-1)
			d.metrics.appendWait.Observe(end.Sub(t.since).Seconds())
		}
		if t.barrier != nil {
			close(t.barrier)
		}
	}
	return n
}

// encode adds a task to a batch.
func (d *DB) encode(b *pebble.Batch, t *task) {
	if t.clear {
		d.must(b.DeleteRange(appendRegionKey(nil, t.region, 0), appendRegionKey(nil, t.region, 0xff), nil))
	}
	for _, e := range t.entries {
		op := b.SetDeferred(entryKeyLen, entrySize(e))
		appendEntryKey(op.Key[:0], t.region, e.GetIndex())
		appendEntry(op.Value[:0], e)
		d.must(op.Finish())
	}
	for i := t.tailFrom + 1; i <= t.tailTo; i++ {
		op := b.DeleteDeferred(entryKeyLen)
		appendEntryKey(op.Key[:0], t.region, i)
		d.must(op.Finish())
	}
	var key, val [32]byte
	if t.hasHS {
		d.must(b.Set(appendRegionKey(key[:0], t.region, kindHardState), appendHardState(val[:0], t.hs), nil))
	}
	if t.truncFrom > 0 {
		d.must(b.DeleteRange(appendEntryKey(nil, t.region, t.truncFrom), appendEntryKey(nil, t.region, t.trunc.index+1), nil))
	}
	if t.truncFrom > 0 || t.clear && t.trunc.index > 0 {
		d.must(b.Set(appendRegionKey(key[:0], t.region, kindTruncated), appendMark(val[:0], t.trunc), nil))
	}
}

// must ends the process on an error that only a bug can cause.
func (d *DB) must(err error) {
	if err != nil {
		d.logger.Fatalf("build a raft log batch: %v", err)
	}
}

// indexOf returns the index in an entry key.
func indexOf(key []byte) uint64 { return binary.BigEndian.Uint64(key[regionKeyLen:]) }

// String describes a task in a log line.
func (t *task) String() string {
	return fmt.Sprintf("region %d: %d entries, truncate to %d", t.region, len(t.entries), t.trunc.index)
}
