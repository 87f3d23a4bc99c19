package txn

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/cairndb/cairn/kvnode/kvclient"
	"github.com/cairndb/cairn/proto/kvpb"
)

const (
	// defaultFlushBytes is the size of a buffer of a pipelined transaction.
	defaultFlushBytes = 8 << 20
	// flushBatchBytes is the size of the prewrites of a flush, and of their log entries.
	flushBatchBytes = 128 << 10
	// pipelinedKeys is what the locks of a pipelined transaction say of its size.
	pipelinedKeys = 1 << 32
	// resolvers is how many regions are settled at once after a pipelined transaction.
	resolvers = 4
)

// pipeline takes the writes of a transaction to the KV tier while it runs. When the
// buffer of the transaction is full it becomes a generation: its keys are prewritten in the
// background, and the transaction goes on with an empty buffer, which it fills before it
// waits. A key may be written in several generations; the last one counts.
//
// The primary is the first key prewritten. From then on heart beats keep it alive, and
// with it all locks. The transaction is committed by a commit of its primary, as any other
// in two phases; the other locks, too many to remember, are settled region by region.
//
// It belongs to the goroutine of its transaction.
type pipeline struct {
	s      *Store
	ctx    context.Context // of the flushes: the life of the transaction's statement
	cancel context.CancelFunc
	began  time.Time
	info   []byte // for people

	startTS uint64
	primary []byte // nil until there is one
	// generation counts the buffers flushed.
	generation uint64
	// flushing is the buffer on its way, and result tells how that ended; both nil for none.
	flushing *buffer
	result   chan error
	err      error // what stopped the transaction

	keys, size int // flushed
	beat       *heartbeat
	touched    keyRanges // where there are locks
}

func newPipeline(ctx context.Context, s *Store, began time.Time, info []byte) *pipeline {
	p := &pipeline{s: s, began: began, info: info}
	p.ctx, p.cancel = context.WithCancel(ctx)
	return p
}

// flushed says whether the transaction has, or may have, locks.
func (p *pipeline) flushed() bool { return p != nil && p.generation > 0 }

// Flushed says whether something of a pipelined transaction has left the buffers. From then on its
// commit or rollback is not for free, nor is running it again.
func (t *Txn) Flushed() bool { return t.pipe.flushed() }

// flushIfFull gives the buffer away when it is full. While a savepoint lives that has to wait.
func (t *Txn) flushIfFull() error {
	if t.pipe == nil || t.buf.footprint() < t.store.flushBytes || t.buf.savepoints > 0 {
		return nil
	}
	return t.flush()
}

// flush waits for the buffer on its way and sends the present one after it. A buffer that
// writes nothing stays if it is the first: there would be no primary.
func (t *Txn) flush() error {
	p := t.pipe
	if err := p.wait(); err != nil {
		return err
	}
	startTS, err := t.awaitStart()
	if err != nil {
		return err
	}
	if p.primary == nil {
		if p.primary = t.chooseWitness(); p.primary == nil {
			return nil
		}
		p.startTS = startTS
		t.snap = nil // from now on it reads its own locks
	}
	full := t.buf
	t.buf = buffer{}
	p.generation++
	p.keys, p.size = p.keys+full.len(), p.size+full.size
	f := p.newFlush(&full)
	p.flushing, p.result = &full, make(chan error, 1)
	result := p.result
	if !p.s.background(func(life context.Context) { result <- p.write(life, f) }) {
		result <- ErrClosed
	}
	return nil
}

// wait waits for the buffer on its way.
func (p *pipeline) wait() error {
	if p.result != nil {
		p.err = <-p.result
		if p.result = nil; p.err != nil {
			p.err = fmt.Errorf("flush: %w", p.err)
			return p.err // the buffer stays: what was to be written may be asked for
		}
		p.flushing = nil
	}
	return p.err
}

// newFlush makes the mutations of a generation.
func (p *pipeline) newFlush(full *buffer) *committer {
	c := &committer{
		s: p.s, startTS: p.startTS, primary: -1, generation: p.generation, primaryKey: p.primary,
		muts: make([]kvpb.Mutation, 0, full.len()), keys: make([][]byte, 0, full.len()), size: full.size,
		began: p.began, info: p.info,
	}
	for e := range full.all() {
		if op, ok := e.op(); ok {
			c.add(op, e)
		}
	}
	c.primary = -1
	if i, ok := slices.BinarySearchFunc(c.keys, p.primary, bytes.Compare); ok {
		c.primary = i
	}
	return c
}

// write prewrites a generation.
func (p *pipeline) write(life context.Context, c *committer) error {
	begin := time.Now()
	ctx, cancel := context.WithCancelCause(p.ctx)
	defer cancel(nil)
	defer context.AfterFunc(life, func() { cancel(ErrClosed) })()
	err := p.prewrite(ctx, cancel, c)
	if cause := context.Cause(ctx); cause != nil { // the first of several
		err = cause
	}
	p.s.metrics.flush.Observe(time.Since(begin).Seconds())
	p.s.metrics.flushed.Add(float64(c.size))
	return err
}

// prewrite locks the keys of a generation; the primary comes before all others. What fails
// first is the cause that ctx is cancelled for.
func (p *pipeline) prewrite(ctx context.Context, cancel context.CancelCauseFunc, c *committer) error {
	batches, err := c.split(ctx, nil)
	if err != nil {
		return err
	}
	for _, b := range batches { // before one is sent: an answer may be lost
		p.touched.add(b.region.Meta.GetStartKey(), b.region.EndKey())
	}
	if c.generation == 1 {
		p.beat = p.s.startHeartbeat(p.primary, p.startTS)
		if err := c.prewrite(ctx, batches[0], false); err != nil {
			return err
		}
		batches = batches[1:]
	}
	return p.s.forEach(len(batches), func(i int) error {
		if ctx.Err() != nil {
			return nil // another one has failed
		}
		err := c.prewrite(ctx, batches[i], false)
		if err != nil {
			cancel(err)
		}
		return err
	})
}

// commitPipelined is Commit of a transaction that has flushed.
func (t *Txn) commitPipelined(ctx context.Context) (uint64, error) {
	p := t.pipe
	defer p.cancel()
	err := p.wait()
	if err == nil && t.buf.len() > 0 {
		if err = t.flush(); err == nil {
			err = p.wait()
		}
	}
	if err != nil {
		p.rollback()
		return 0, err
	}
	c := p.decider()
	begin := time.Now()
	region, err := p.s.kv.Locate(ctx, p.primary)
	if err == nil {
		_, err = c.commitPrimary(ctx, batch{region, []int{0}})
	}
	switch {
	case err == nil:
	case errors.Is(err, ErrUndetermined):
		p.stop()
		return 0, err
	default:
		p.rollback()
		return 0, err
	}
	p.s.metrics.commit.Observe(time.Since(begin).Seconds())
	p.s.metrics.pipelined.Inc()
	p.stop()
	p.s.resolver.remember(p.startTS, c.commitTS)
	p.resolve(c.commitTS)
	return c.commitTS, nil
}

// decider commits the primary, or rolls it back.
func (p *pipeline) decider() *committer {
	c := &committer{s: p.s, startTS: p.startTS}
	c.muts, c.keys = make([]kvpb.Mutation, 1), [][]byte{p.primary}
	c.muts[0].Key = p.primary
	return c
}

// close ends a transaction that has flushed nothing.
func (p *pipeline) close() {
	if p != nil {
		p.cancel()
	}
}

// stop ends what keeps the transaction alive.
func (p *pipeline) stop() {
	p.cancel()
	_ = p.wait()
	if p.beat != nil {
		p.beat.stop()
		p.beat = nil
	}
}

// rollback ends the transaction without effect: the primary is rolled back now, which
// decides, and what else is locked in the background.
func (p *pipeline) rollback() {
	p.stop()
	if !p.flushed() {
		return
	}
	ctx, cancel := context.WithTimeout(p.s.life, barTimeout)
	defer cancel()
	if err := p.decider().rollback(ctx, []int{0}); err != nil {
		p.s.log.Warn("rollback of a large transaction left to those who meet its locks", "txn", p.startTS, "err", err)
		return
	}
	p.s.resolver.remember(p.startTS, 0)
	p.resolve(0)
}

// resolve settles all locks in the background; commitTS is 0 when they are rolled back.
func (p *pipeline) resolve(commitTS uint64) {
	finished := p.s.resolver.finishing(p.startTS)
	begin := time.Now()
	started := p.s.background(func(ctx context.Context) {
		defer finished()
		if err := p.resolveAll(ctx, commitTS); err != nil {
			p.s.log.Warn("locks of a large transaction left to those who meet them", "txn", p.startTS, "err", err)
			return
		}
		p.s.log.Info("large transaction settled", "txn", p.startTS, "commit", commitTS, "keys", p.keys, "bytes", p.size, "took", time.Since(begin))
	})
	if !started {
		finished()
	}
}

func (p *pipeline) resolveAll(ctx context.Context, commitTS uint64) error {
	parts := make(chan keyRange)
	return p.s.forEach(1+resolvers, func(i int) error {
		if i == 0 {
			defer close(parts)
			return p.cut(ctx, parts)
		}
		var failed error
		for part := range parts {
			if err := p.resolvePart(ctx, part, commitTS); err != nil && failed == nil {
				failed = err
			}
		}
		return failed
	})
}

// cut sends the regions of what was touched.
func (p *pipeline) cut(ctx context.Context, parts chan<- keyRange) error {
	for _, sp := range p.touched {
		for start, more := sp.start, true; more; {
			region, err := p.s.kv.Locate(ctx, start)
			if err != nil {
				return err
			}
			end := region.EndKey()
			if more = before(end, sp.end); !more {
				end = sp.end
			}
			parts <- keyRange{start, end}
			start = end
		}
	}
	return nil
}

// resolvePart settles the locks in part.
func (p *pipeline) resolvePart(ctx context.Context, part keyRange, commitTS uint64) error {
	bo := p.s.newBackoff(backoffRegion)
	for start := part.start; ; {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		region, err := p.s.kv.Locate(ctx, start)
		if err != nil {
			return err
		}
		resp, err := p.s.kv.Send(ctx, region, &kvpb.Request{Cmd: &kvpb.Request_ResolveLock{ResolveLock: &kvpb.ResolveLockRequest{
			Txns: []*kvpb.TxnStatus{{StartTs: p.startTS, CommitTs: commitTS}}, StartKey: start,
		}}})
		if errors.Is(err, kvclient.ErrRegionChanged) {
			if err := bo.wait(ctx); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		got := resp.GetResolveLock()
		if ke := got.GetError(); ke != nil {
			return keyError(ke, p.startTS)
		}
		bo = p.s.newBackoff(backoffRegion)
		if got.GetMore() {
			start = got.GetResumeKey()
		} else if start = region.EndKey(); len(start) == 0 {
			return nil
		}
		if !before(start, part.end) {
			return nil
		}
	}
}

// keyRange is a range of keys [start, end); an empty end is the end of the key space.
type keyRange struct{ start, end []byte }

// before says whether the bound a, empty for the end of the key space, is before the end b.
func before(a, b []byte) bool {
	return len(a) > 0 && (len(b) == 0 || bytes.Compare(a, b) < 0)
}

// keyRanges are ranges in order, which neither overlap nor touch.
type keyRanges []keyRange

// add puts [start, end) in.
func (s *keyRanges) add(start, end []byte) {
	// i is the first range that ends at or after start, j the first that begins after end.
	i, _ := slices.BinarySearchFunc(*s, start, func(r keyRange, at []byte) int {
		if before(r.end, at) {
			return -1
		}
		return 1
	})
	j := i
	for ; j < len(*s) && (len(end) == 0 || bytes.Compare((*s)[j].start, end) <= 0); j++ {
		if bytes.Compare((*s)[j].start, start) < 0 {
			start = (*s)[j].start
		}
		if before(end, (*s)[j].end) {
			end = (*s)[j].end
		}
	}
	*s = slices.Replace(*s, i, j, keyRange{start, end})
}

// asOfStart reads what was committed when a transaction began, and none of its own writes.
type asOfStart struct {
	t    *Txn
	once sync.Once
	sn   *Snapshot
	err  error
}

// AsOfStart reads what was committed when the transaction began, and none of what it
// writes, so that it may be read from while the transaction is written to. For one that
// is neither pessimistic nor serializable.
func (t *Txn) AsOfStart() Reader { return &asOfStart{t: t} }

func (r *asOfStart) snapshot() (*Snapshot, error) {
	r.once.Do(func() {
		var ts uint64
		if ts, r.err = r.t.awaitStart(); r.err == nil {
			r.sn = r.t.store.Snapshot(ts).From(r.t.from)
			r.sn.resolved = []uint64{ts} // its locks are its own
		}
	})
	return r.sn, r.err
}

func (r *asOfStart) Get(ctx context.Context, key []byte) ([]byte, error) {
	sn, err := r.snapshot()
	if err != nil {
		return nil, err
	}
	return sn.Get(ctx, key)
}

func (r *asOfStart) BatchGet(ctx context.Context, keys [][]byte) ([][]byte, error) {
	sn, err := r.snapshot()
	if err != nil {
		return nil, err
	}
	return sn.BatchGet(ctx, keys)
}

func (r *asOfStart) Scan(ctx context.Context, start, end []byte, o ScanOptions) *Scanner {
	sn, err := r.snapshot()
	if err != nil {
		return &Scanner{err: err}
	}
	return sn.Scan(ctx, start, end, o)
}
