package txn

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"sync/atomic"
	"time"

	"github.com/cairndb/cairn/pd/pdclient"
)

// TxnOptions of Begin. The zero value of a field means its default.
type TxnOptions struct {
	// StartTS is the start timestamp; 0 = a fresh one is requested at once and
	// awaited when first needed.
	StartTS uint64
	// Autocommit: the transaction lives as long as the one statement of its client,
	// so its start timestamp is recent enough to stand for the moment of commit and
	// a one-phase commit draws no second one.
	Autocommit bool
	// Pessimistic: the transaction locks keys before it commits (Lock, LockWritten), and
	// may read at a timestamp later than its start (ReadAt).
	Pessimistic bool
	// Pipelined: the transaction may be of any size. What it writes goes to the KV tier
	// while it runs, in parts of StoreOptions.FlushBytes, and is locked there until it ends: others
	// that want to write the same keys wait, and readers do not. Set and its like may then
	// fail with any error of Commit but ErrUndetermined, and the transaction has to be
	// rolled back. As long as everything fits in one part there is no difference. Not
	// together with Pessimistic or Serializable.
	Pipelined bool
	// Info is shown to those who look at waits of a pipelined transaction, and at deadlocks; see LockOptions.Info.
	Info []byte
	// Serializable: the commit fails with *WriteConflictError when something the
	// transaction has read was changed by another since. Everything read through the
	// Txn counts, keys that were absent and the gaps in scans too.
	Serializable bool
}

// Txn is a transaction of one client. It is not safe for concurrent use, except
// that several scanners and readers may run at once while nobody writes.
type Txn struct {
	store *Store
	snap  *Snapshot // what reads see; nil = not asked for yet
	// readTS is the timestamp reads are at; 0 = the start timestamp.
	readTS uint64
	from   ReplicaRead
	buf    buffer
	auto   bool
	done   bool
	began  time.Time
	// locks is what a pessimistic transaction has locked; nil for an optimistic one.
	locks *lockSet
	// pipe takes the writes of a pipelined transaction away; nil for others.
	pipe *pipeline
	// reads is what a serializable transaction has read; nil for others.
	reads *readSet

	// witness is the key of the token that was given out, nil while none was.
	witness []byte

	start    pdclient.Future
	startTS  uint64 // 0 until start was awaited
	startErr error
	known    atomic.Uint64 // = startTS, for others
}

// Savepoint marks a state of a transaction's writes.
type Savepoint struct{ pos int }

// StartTS waits for the start timestamp and returns it; 0 when it could not be
// had (reads and Commit then return the error).
func (t *Txn) StartTS() uint64 {
	ts, _ := t.awaitStart()
	return ts
}

// KnownStartTS is the start timestamp if somebody has waited for it already, else 0. Safe
// for concurrent use, as Pessimistic is.
func (t *Txn) KnownStartTS() uint64 { return t.known.Load() }

func (t *Txn) awaitStart() (uint64, error) {
	if t.startTS == 0 && t.startErr == nil {
		if t.startTS, t.startErr = t.start.Wait(); t.startErr != nil {
			t.startErr = fmt.Errorf("%w: %w", ErrNoTimestamp, t.startErr)
		}
		t.known.Store(t.startTS)
	}
	return t.startTS, t.startErr
}

// Set puts value under key. Both are copied. It fails with *TooLargeError.
func (t *Txn) Set(key, value []byte) error {
	st := t.stateOf(key)
	return t.write(key, entryState{value: value, put: true, mustNotExist: st.mustNotExist, locked: st.locked})
}

// Insert is Set of a key presumed absent: the commit fails with *KeyExistsError
// if it has a value. A key this transaction has put itself is the caller's to
// check; one it deleted is known to be absent and not checked again.
func (t *Txn) Insert(key, value []byte) error {
	st := t.stateOf(key)
	known := st.put || st.deleted
	return t.write(key, entryState{value: value, put: true, mustNotExist: st.mustNotExist || !known, locked: st.locked})
}

// Delete removes key. If the transaction inserted the key itself, the commit
// still checks that it was absent.
func (t *Txn) Delete(key []byte) error {
	st := t.stateOf(key)
	return t.write(key, entryState{deleted: true, mustNotExist: st.mustNotExist, locked: st.locked})
}

// SetDependent is Set of a key whose writers all hold the lock of another key, as the
// entry of a row in an index: LockWritten passes over it. covered says that there are no
// exceptions, as a backfill would be one: then a commit need not look for others' versions.
func (t *Txn) SetDependent(key, value []byte, covered bool) error {
	st := t.stateOf(key)
	return t.write(key, entryState{value: value, put: true, mustNotExist: st.mustNotExist, locked: st.locked, dependent: true, covered: covered})
}

// DeleteDependent is Delete of such a key.
func (t *Txn) DeleteDependent(key []byte, covered bool) error {
	st := t.stateOf(key)
	return t.write(key, entryState{deleted: true, mustNotExist: st.mustNotExist, locked: st.locked, dependent: true, covered: covered})
}

// LockKey makes the commit conflict with other writers of key though nothing is
// written to it. A pessimistic transaction locks it with what the statement writes.
func (t *Txn) LockKey(key []byte) {
	st := t.stateOf(key)
	if st.locked {
		return
	}
	t.buf.change(key).locked = true
}

func (t *Txn) stateOf(key []byte) entryState {
	if e := t.buf.get(key); e != nil {
		return e.entryState
	}
	return entryState{}
}

func (t *Txn) write(key []byte, st entryState) error {
	if t.done {
		return ErrClosed
	}
	if n, limit := len(key)+len(st.value), t.store.maxEntryBytes; n > limit {
		return &TooLargeError{Entry: true, Size: n, Limit: limit}
	}
	if n, limit := t.buf.footprint()+len(key)+len(st.value)+entryBytes, t.store.maxTxnBytes; n > limit {
		return &TooLargeError{Size: n, Limit: limit}
	}
	t.buf.set(key, st)
	return t.flushIfFull()
}

// Savepoint marks the current writes. Release it when it is not needed any more.
func (t *Txn) Savepoint() Savepoint { return Savepoint{t.buf.savepoint()} }

// RollbackTo undoes the writes and locks since sp and the savepoints made since.
// sp itself stays alive.
func (t *Txn) RollbackTo(sp Savepoint) { t.buf.rollbackTo(sp.pos) }

// Release ends sp and keeps the writes. Of a pipelined transaction they may leave now; if that fails, so does
// what is done next.
func (t *Txn) Release(Savepoint) {
	t.buf.release()
	if err := t.flushIfFull(); err != nil && t.pipe.err == nil {
		t.pipe.err = err
	}
}

// Dirty reports whether there is anything to commit.
func (t *Txn) Dirty() bool { return t.buf.len() > 0 || t.pipe.flushed() }

// Len returns the number of keys written or locked. A pipelined transaction counts a key
// that it writes again later again.
func (t *Txn) Len() int {
	if t.pipe != nil {
		return t.buf.len() + t.pipe.keys
	}
	return t.buf.len()
}

// Size returns the bytes of keys and values written.
func (t *Txn) Size() int {
	if t.pipe != nil {
		return t.buf.size + t.pipe.size
	}
	return t.buf.size
}

// HasWritesIn reports whether a key of [start, end) was put or deleted; an empty
// end is the end of the key space. What a pipelined transaction wrote some time ago it
// does not know any more: Get does, and so does the check that follows an Insert.
func (t *Txn) HasWritesIn(start, end []byte) bool {
	for b := range t.buffers() {
		for e := range b.inRange(start, end) {
			if e.put || e.deleted {
				return true
			}
		}
	}
	return false
}

// buffers are those that hold writes of the transaction, the newest first.
func (t *Txn) buffers() iter.Seq[*buffer] {
	return func(yield func(*buffer) bool) {
		if yield(&t.buf) && t.pipe != nil && t.pipe.flushing != nil {
			yield(t.pipe.flushing)
		}
	}
}

// written returns what the buffers say was last written to key, nil for nothing.
func (t *Txn) written(key []byte) *entry {
	for b := range t.buffers() {
		if e := b.get(key); e != nil && (e.put || e.deleted) {
			return e
		}
	}
	return nil
}

// Get implements Reader; own writes are seen.
func (t *Txn) Get(ctx context.Context, key []byte) ([]byte, error) {
	if e := t.written(key); e != nil {
		if e.deleted {
			return nil, ErrNotFound
		}
		return append([]byte{}, e.value...), nil
	}
	if value, exists, ok := t.lockedValue(key); ok {
		if !exists {
			return nil, ErrNotFound
		}
		return append([]byte{}, value...), nil
	}
	sn, err := t.snapshot()
	if err != nil {
		return nil, err
	}
	t.reads.addKey(key, sn.ts)
	return sn.Get(ctx, key)
}

// BatchGet implements Reader; own writes are seen.
func (t *Txn) BatchGet(ctx context.Context, keys [][]byte) ([][]byte, error) {
	sn, err := t.snapshot()
	if err != nil {
		return nil, err
	}
	if !t.Dirty() && t.locks == nil {
		t.noteKeys(keys, sn.ts)
		return sn.BatchGet(ctx, keys)
	}
	values := make([][]byte, len(keys))
	var ask [][]byte
	var pos []int
	for i, k := range keys {
		e := t.written(k)
		switch {
		case e != nil && e.put:
			values[i] = append([]byte{}, e.value...)
		case e != nil && e.deleted:
		default:
			if value, exists, ok := t.lockedValue(k); ok {
				if exists {
					values[i] = append([]byte{}, value...)
				}
				continue
			}
			ask, pos = append(ask, k), append(pos, i)
		}
	}
	if len(ask) == 0 {
		return values, nil
	}
	t.noteKeys(ask, sn.ts)
	got, err := sn.BatchGet(ctx, ask)
	if err != nil {
		return nil, err
	}
	for i, v := range got {
		values[pos[i]] = v
	}
	return values, nil
}

// Scan implements Reader; the scanner sees the own writes made before this call
// and none made later.
func (t *Txn) Scan(_ context.Context, start, end []byte, o ScanOptions) *Scanner {
	sn, err := t.snapshot()
	if err != nil {
		return &Scanner{err: err}
	}
	sc := newScanner(sn, start, end, o)
	sc.reads = t.reads
	sc.own = t.ownIn(start, end)
	sc.start()
	return sc
}

// ownIn returns what the buffers say was written in [start, end), in key order.
func (t *Txn) ownIn(start, end []byte) (own []entry) {
	for b := range t.buffers() {
		newer := own
		own = nil
		for e := range b.inRange(start, end) {
			for len(newer) > 0 && bytes.Compare(newer[0].key, e.key) < 0 {
				own, newer = append(own, newer[0]), newer[1:]
			}
			if len(newer) > 0 && bytes.Equal(newer[0].key, e.key) {
				continue // overwritten
			}
			if e.put || e.deleted {
				own = append(own, *e)
			}
		}
		own = append(own, newer...)
	}
	return own
}

// ReadAt lets the reads that follow see what was committed at or before ts, and
// the transaction's own writes as ever; 0 is the start timestamp again. That is for
// a statement with a snapshot of its own, as READ COMMITTED gives one to each. What
// is written conflicts with other writers since the start timestamp all the same, but for
// keys that are locked.
// No reader or scanner of the transaction may run meanwhile.
//
// For a serializable transaction ts may not be math.MaxUint64, which names no point in
// time.
func (t *Txn) ReadAt(ts uint64) {
	if ts != t.readTS {
		t.readTS, t.snap = ts, nil
	}
}

func (t *Txn) noteKeys(keys [][]byte, ts uint64) {
	if t.reads == nil {
		return
	}
	for _, k := range keys {
		t.reads.addKey(k, ts)
	}
}

// ReadFrom lets the reads that follow go to other replicas than the leader; see
// Snapshot.From. No reader or scanner of the transaction may run meanwhile.
func (t *Txn) ReadFrom(r ReplicaRead) {
	t.from = r
	if t.snap != nil {
		t.snap.from = r
	}
}

func (t *Txn) snapshot() (*Snapshot, error) {
	if t.done {
		return nil, ErrClosed
	}
	if t.snap == nil {
		ts := t.readTS
		if ts == 0 {
			var err error
			if ts, err = t.awaitStart(); err != nil {
				return nil, err
			}
		}
		t.snap = t.store.Snapshot(ts).From(t.from)
		if t.pipe.flushed() {
			t.snap.own = t.pipe.startTS
		}
	}
	return t.snap, nil
}

// Rollback ends the transaction without effect and releases what it has locked. After Commit or Rollback it does nothing.
func (t *Txn) Rollback() {
	if !t.done {
		t.done = true
		if t.pipe != nil {
			t.pipe.rollback()
		}
		t.releaseAll(true)
	}
}
