package txn

import (
	"context"
	"fmt"
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
// entry of a row in an index: LockWritten passes over it.
func (t *Txn) SetDependent(key, value []byte) error {
	st := t.stateOf(key)
	return t.write(key, entryState{value: value, put: true, mustNotExist: st.mustNotExist, locked: st.locked, dependent: true})
}

// DeleteDependent is Delete of such a key.
func (t *Txn) DeleteDependent(key []byte) error {
	st := t.stateOf(key)
	return t.write(key, entryState{deleted: true, mustNotExist: st.mustNotExist, locked: st.locked, dependent: true})
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
	if n, limit := t.buf.size+len(key)+len(st.value), t.store.maxTxnBytes; n > limit {
		return &TooLargeError{Size: n, Limit: limit}
	}
	t.buf.set(key, st)
	return nil
}

// Savepoint marks the current writes. Release it when it is not needed any more.
func (t *Txn) Savepoint() Savepoint { return Savepoint{t.buf.savepoint()} }

// RollbackTo undoes the writes and locks since sp and the savepoints made since.
// sp itself stays alive.
func (t *Txn) RollbackTo(sp Savepoint) { t.buf.rollbackTo(sp.pos) }

// Release ends sp and keeps the writes.
func (t *Txn) Release(Savepoint) { t.buf.release() }

// Dirty reports whether there is anything to commit.
func (t *Txn) Dirty() bool { return t.buf.len() > 0 }

// Len returns the number of keys written or locked.
func (t *Txn) Len() int { return t.buf.len() }

// Size returns the bytes of keys and values written.
func (t *Txn) Size() int { return t.buf.size }

// HasWritesIn reports whether a key of [start, end) was put or deleted; an empty
// end is the end of the key space.
func (t *Txn) HasWritesIn(start, end []byte) bool {
	for e := range t.buf.inRange(start, end) {
		if e.put || e.deleted {
			return true
		}
	}
	return false
}

// Get implements Reader; own writes are seen.
func (t *Txn) Get(ctx context.Context, key []byte) ([]byte, error) {
	if e := t.buf.get(key); e != nil {
		switch {
		case e.put:
			return append([]byte{}, e.value...), nil
		case e.deleted:
			return nil, ErrNotFound
		}
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
	if t.buf.len() == 0 && t.locks == nil {
		t.noteKeys(keys, sn.ts)
		return sn.BatchGet(ctx, keys)
	}
	values := make([][]byte, len(keys))
	var ask [][]byte
	var pos []int
	for i, k := range keys {
		e := t.buf.get(k)
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
	for e := range t.buf.inRange(start, end) {
		if e.put || e.deleted {
			sc.own = append(sc.own, *e)
		}
	}
	sc.start()
	return sc
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
	}
	return t.snap, nil
}

// Rollback ends the transaction without effect and releases what it has locked. After Commit or Rollback it does nothing.
func (t *Txn) Rollback() {
	if !t.done {
		t.done = true
		t.releaseAll(true)
	}
}
