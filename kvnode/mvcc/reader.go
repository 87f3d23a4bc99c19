package mvcc

import (
	"bytes"
	"fmt"

	"github.com/cairndb/cairn/kvnode/engine"
)

// Reader looks up single keys in one view of the engine: the view of the moment
// it was opened. It owns one iterator, and a second one only if it meets a long
// value. It is for one goroutine.
//
// A lookup is one seek below a bloom filter of user keys, and in the common case
// no step more.
type Reader struct {
	db *engine.DB   // of a reader of latched keys, else nil
	w  *engine.Iter // CFWrite, prefix seeks; nil until needed when db is not
	d  *engine.Iter // CFDefault, nil until needed
	// raw is the record that w stands on, as far as it was read.
	raw []byte
	// last is the newest record that was at hand, of lastKey.
	last    Newest
	lastKey []byte
}

// OpenReader opens a view. Close it.
func OpenReader(db *engine.DB) (Reader, error) {
	it, err := openVersions(db)
	return Reader{w: it}, err
}

func openVersions(db *engine.DB) (*engine.Iter, error) {
	it, err := db.NewIter(engine.IterOptions{CF: engine.CFWrite, PointPrefix: true})
	if err != nil {
		return nil, fmt.Errorf("mvcc: open reader: %w", err)
	}
	return it, nil
}

// ReadLatched returns a reader for a command that holds the latches of all keys it looks up:
// as nobody writes them meanwhile it may take what the engine has at hand, and opens its
// view when it needs one. (Garbage is collected meanwhile, but never a key's newest value.)
// Close it.
func ReadLatched(db *engine.DB) Reader { return Reader{db: db} }

// open makes sure that there is a view.
func (r *Reader) open() (err error) {
	if r.w == nil {
		r.w, err = openVersions(r.db)
	}
	return err
}

// atHand returns the newest record of key if the engine has it in memory. If not, the token
// allows what a view opened from now on shows to be kept.
func (r *Reader) atHand(key []byte) (n Newest, found bool, token engine.NewestToken, err error) {
	if r.db == nil {
		return Newest{}, false, token, nil
	}
	if r.lastKey != nil && bytes.Equal(r.lastKey, key) {
		return r.last, true, token, nil
	}
	n, found, token, err = NewestAt(r.db, key, MaxTS)
	if found {
		r.last, r.lastKey = n, key
	}
	return n, found, token, err
}

// Close ends the view. Closing twice is allowed.
func (r *Reader) Close() error {
	var err error
	if r.d != nil {
		err = r.d.Close()
		r.d = nil
	}
	if r.w != nil {
		if e := r.w.Close(); err == nil {
			err = e
		}
		r.w = nil
	}
	return err
}

// Get returns the value of key visible at readTS and the timestamp it was
// committed at. The value is valid until the next call.
func (r *Reader) Get(key []byte, readTS uint64) (value []byte, commitTS uint64, found bool, err error) {
	if n, ok, _, err := r.atHand(key); err != nil || ok && n.CommitTS <= readTS {
		return n.Write.Value, n.CommitTS, ok, err
	}
	commitTS, w, found, err := r.latestPut(key, readTS)
	if err != nil || !found {
		return nil, 0, false, err
	}
	if w.HasValue {
		return w.Value, commitTS, true, nil
	}
	value, err = r.LongValue(key, w.StartTS)
	return value, commitTS, true, err
}

// Newest is the newest record of a key, from memory.
type Newest struct {
	CommitTS uint64
	Write    Write // its bytes belong to who asked
}

// NewestAt returns the newest record of key if it is at hand and is the one visible at readTS, a Put whose
// value is in it. Otherwise the token lets Reader.GetNewest keep what a Reader opened from
// now on finds. The caller has done what it does before it opens a Reader.
func NewestAt(db *engine.DB, key []byte, readTS uint64) (n Newest, found bool, token engine.NewestToken, err error) {
	rec, ts, token := db.Newest(key)
	if rec == nil || ts > readTS {
		return Newest{}, false, token, nil
	}
	w, err := ParseWrite(rec)
	if err != nil {
		return Newest{}, false, token, fmt.Errorf("write of key %x at %d: %w", key, ts, err)
	}
	return Newest{ts, w}, true, token, nil
}

// GetNewest is Get, and keeps the newest record of key for NewestAt, which gave the token.
func (r *Reader) GetNewest(db *engine.DB, token engine.NewestToken, key []byte, readTS uint64) (value []byte, commitTS uint64, found bool, err error) {
	ts, w, ok, err := r.SeekWrite(key, MaxTS)
	if err != nil || !ok {
		return nil, 0, false, err
	}
	if ts > readTS || !w.isValue() {
		return r.Get(key, readTS)
	}
	db.KeepNewest(token, key, r.raw, ts)
	return w.Value, ts, true, nil
}

// Exists reports whether Get would find a value, without loading long ones.
func (r *Reader) Exists(key []byte, readTS uint64) (commitTS, startTS uint64, found bool, err error) {
	if n, ok, _, err := r.atHand(key); err != nil || ok && n.CommitTS <= readTS {
		return n.CommitTS, n.Write.StartTS, ok, err
	}
	commitTS, w, found, err := r.latestPut(key, readTS)
	return commitTS, w.StartTS, found, err
}

// latestPut finds the newest record at or before readTS that says what the value
// is. found is false if that is a Delete, a fenced record or nothing.
func (r *Reader) latestPut(key []byte, readTS uint64) (commitTS uint64, w Write, found bool, err error) {
	if err := r.open(); err != nil {
		return 0, Write{}, false, err
	}
	for ok := r.w.SeekVersion(key, readTS); ok; ok = r.w.Next() {
		if w, err = r.record(key); err != nil {
			return 0, Write{}, false, err
		}
		if !w.FenceValid(readTS) {
			return 0, Write{}, false, nil
		}
		switch w.Type {
		case WritePut:
			return r.w.TS(), w, true, nil
		case WriteDelete:
			return 0, Write{}, false, nil
		}
	}
	return 0, Write{}, false, r.w.Err()
}

// SeekWrite returns the newest record of key at or before ts. The record is
// valid until the next call.
func (r *Reader) SeekWrite(key []byte, ts uint64) (commitTS uint64, w Write, found bool, err error) {
	n, ok, token, err := r.atHand(key)
	if err != nil || ok && n.CommitTS <= ts {
		return n.CommitTS, n.Write, ok, err
	}
	fresh := r.w == nil // the view will be younger than the token
	if err := r.open(); err != nil {
		return 0, Write{}, false, err
	}
	if !r.w.SeekVersion(key, ts) {
		return 0, Write{}, false, r.w.Err()
	}
	w, err = r.record(key)
	if err == nil && fresh && ts == MaxTS && r.db != nil && w.isValue() {
		r.db.KeepNewest(token, key, r.raw, r.w.TS())
	}
	return r.w.TS(), w, err == nil, err
}

// record is the record that the iterator stands on. To ask the iterator for it again would
// make the first answer invalid; its byte form is in r.raw.
func (r *Reader) record(key []byte) (w Write, err error) {
	if r.raw, err = r.w.Value(); err != nil {
		return Write{}, err
	}
	w, err = ParseWrite(r.raw)
	if err != nil {
		return Write{}, fmt.Errorf("write of key %x at %d: %w", key, r.w.TS(), err)
	}
	return w, nil
}

// LongValue returns the value of key written by the transaction startTS into
// CFDefault. A missing one is corruption. Valid until the next call.
func (r *Reader) LongValue(key []byte, startTS uint64) ([]byte, error) {
	if err := r.open(); err != nil {
		return nil, err
	}
	if r.d == nil {
		d, err := r.w.Clone(engine.CFDefault)
		if err != nil {
			return nil, fmt.Errorf("mvcc: read value: %w", err)
		}
		r.d = d
	}
	return longValue(r.d, key, startTS)
}

func longValue(d *engine.Iter, key []byte, startTS uint64) ([]byte, error) {
	if !d.SeekVersion(key, startTS) || d.TS() != startTS || !bytes.Equal(d.Key(), key) {
		if err := d.Err(); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("%w: no value of key %x written at %d", ErrCorrupt, key, startTS)
	}
	return d.Value()
}

// Fate is what became of a transaction on one key.
type Fate byte

// The fates.
const (
	FateUnknown    Fate = iota // no trace
	FateCommitted              // a Put, Delete or Lock record
	FateRolledBack             // a Rollback record, own or overlapped
)

// CommitRecord is the trace a transaction left on a key.
type CommitRecord struct {
	Fate     Fate
	CommitTS uint64 // FateCommitted
	Type     WriteType
	// Protected: the rollback was written to stay.
	Protected bool
	// Overlapped, with FateUnknown, is the record of another transaction that
	// stands at the timestamp where this one's rollback would have to be written.
	Overlapped *Write
	// Fence is the commit timestamp of the next newer data record than Overlapped,
	// 0 for none.
	Fence uint64
}

// CommitRecord looks for the trace of the transaction startTS on key. The result
// owns its bytes.
func (r *Reader) CommitRecord(key []byte, startTS uint64) (CommitRecord, error) {
	if err := r.open(); err != nil {
		return CommitRecord{}, err
	}
	var fence uint64
	for ok := r.w.SeekVersion(key, MaxTS); ok; ok = r.w.Next() {
		ts := r.w.TS()
		if ts < startTS {
			break
		}
		w, err := r.record(key)
		if err != nil {
			return CommitRecord{}, err
		}
		switch {
		case w.StartTS == startTS && w.Type == WriteRollback:
			return CommitRecord{Fate: FateRolledBack, Type: w.Type, Protected: w.Protected}, nil
		case w.StartTS == startTS:
			return CommitRecord{Fate: FateCommitted, CommitTS: ts, Type: w.Type}, nil
		case ts == startTS && w.OverlappedRollback:
			return CommitRecord{Fate: FateRolledBack, Type: WriteRollback, Protected: true}, nil
		case ts == startTS:
			w.Value = bytes.Clone(w.Value)
			return CommitRecord{Overlapped: &w, Fence: fence}, nil
		}
		if w.Data() {
			fence = ts
		}
	}
	return CommitRecord{}, r.w.Err()
}

// RangeEmpty reports whether no key of [start, end] has any record.
func RangeEmpty(db *engine.DB, start, end []byte) (bool, error) {
	upper := append(bytes.Clone(end), 0)
	it, err := db.NewIter(engine.IterOptions{CF: engine.CFWrite, Lower: start, Upper: upper})
	if err != nil {
		return false, err
	}
	empty := !it.First()
	err = it.Err()
	if e := it.Close(); err == nil {
		err = e
	}
	return empty, err
}
