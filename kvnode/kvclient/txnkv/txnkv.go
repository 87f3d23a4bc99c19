// Package txnkv is transactions over keys and values, for programs that do not want SQL.
//
// A transaction reads the snapshot of its start timestamp and its own writes. Put, Insert and
// Delete are kept in memory until Commit, which makes all of them visible at once, or none;
// how many regions and stores they touch is no concern of the caller's. Of two transactions that wrote one
// key at the same time one fails with *txn.WriteConflictError: run it again from the
// start, or let Client.Update do so. GetForUpdate locks keys before, so that nobody can come
// in between, and waits for others who have.
//
// This is snapshot isolation: two transactions that read what the other one writes, and write
// different keys, may both commit. Who reads with GetForUpdate what must not change is safe from that.
//
// What a transaction sees is kept for it until it ends, a day at most; what a snapshot sees, for the time versions
// live (cairn_gc_life_time, 10 minutes), and while a scan of it is under way. A client that has read tells the placement driver so every few seconds. Reads of what
// is gone fail with *txn.TooOldError.
//
// The keys have a part of the key space to themselves: neither SQL nor rawkv sees them.
//
// # Results nobody knows
//
// Commit can fail with txn.ErrUndetermined: the connection was lost, and the transaction may be
// committed. Read what it wrote to find out. Update does not repeat that.
package txnkv

import (
	"context"
	"errors"
	"io"
	"iter"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/cairndb/cairn/internal/keys"
	"github.com/cairndb/cairn/kvnode/kvclient"
	"github.com/cairndb/cairn/kvnode/kvclient/txn"
)

// ErrNotFound: the key has no value.
var ErrNotFound = txn.ErrNotFound

// Options of New. The zero value of a field means its default.
type Options struct {
	// LockTimeout is how long GetForUpdate waits; 0 = 50 s.
	LockTimeout time.Duration
	Logger      *slog.Logger          // nil = discard
	Registerer  prometheus.Registerer // nil = not registered
}

// Client begins transactions. It is safe for concurrent use.
type Client struct {
	store  *txn.Store
	wait   time.Duration
	oldest *oldest
}

// New returns a client. Close it before c.
func New(c *kvclient.Cluster, o Options) *Client {
	store := txn.NewStore(txn.StoreOptions{KV: c.KV, PD: c.PD, Logger: o.Logger, Registerer: o.Registerer})
	return &Client{store: store, wait: o.LockTimeout, oldest: newOldest(store, txn.KeeperOptions{PD: c.PD, Logger: o.Logger})}
}

// Close waits for what finishes in the background, a few seconds at most.
func (c *Client) Close() {
	c.oldest.close()
	c.store.Close()
}

// Begin starts a transaction. It ends with Commit or Rollback; until then the versions it sees
// are not collected.
func (c *Client) Begin(ctx context.Context) (*Txn, error) {
	t, err := c.store.Begin(ctx, txn.TxnOptions{Pessimistic: true})
	if err != nil {
		return nil, err
	}
	return &Txn{Reader: Reader{r: t}, c: c, t: t, open: c.oldest.add(&reading{began: time.Now()})}, nil
}

// Update runs fn in a transaction and commits it. When it has lost a conflict or a deadlock, all
// begins anew, until ctx ends: fn must do nothing outside of the transaction that it may not do
// twice. An error of fn rolls back and is returned.
func (c *Client) Update(ctx context.Context, fn func(t *Txn) error) error {
	for attempt := 0; ; attempt++ {
		err := c.updateOnce(ctx, fn)
		if err == nil || !lost(err) {
			return err
		}
		pause := time.NewTimer(rand.N(time.Millisecond << min(attempt, 6)))
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return errors.Join(context.Cause(ctx), err)
		}
	}
}

func (c *Client) updateOnce(ctx context.Context, fn func(t *Txn) error) error {
	t, err := c.Begin(ctx)
	if err != nil {
		return err
	}
	if err := fn(t); err != nil {
		t.Rollback()
		return err
	}
	_, err = t.Commit(ctx)
	return err
}

// lost reports whether running the transaction again may help.
func lost(err error) bool {
	if errors.Is(err, txn.ErrUndetermined) {
		return false
	}
	var conflict *txn.WriteConflictError
	var deadlock *txn.DeadlockError
	var aborted *txn.AbortedError
	return errors.As(err, &conflict) || errors.As(err, &deadlock) || errors.As(err, &aborted)
}

// Snapshot is everything as it is now.
func (c *Client) Snapshot(ctx context.Context) (*Reader, error) {
	ts, err := c.store.CurrentTS(ctx)
	if err != nil {
		return nil, err
	}
	return c.SnapshotAt(ts), nil
}

// SnapshotAt is everything as it was at a timestamp, which a transaction or another snapshot gave:
// of the past, and not older than versions are kept.
func (c *Client) SnapshotAt(ts uint64) *Reader {
	return &Reader{r: c.store.Snapshot(ts), ts: ts, oldest: c.oldest}
}

// Reader reads pairs as they are at one moment. The snapshots of a client are safe for concurrent
// use; a transaction is not.
type Reader struct {
	r txn.Reader
	// Of a snapshot; a transaction holds what it sees itself.
	ts     uint64
	oldest *oldest
}

// Pair is a key and its value.
type Pair struct{ Key, Value []byte }

// Get returns the value of key, which belongs to the caller, or ErrNotFound.
func (r *Reader) Get(ctx context.Context, key []byte) ([]byte, error) {
	return r.r.Get(ctx, keys.AppendUser(nil, key))
}

// GetAll returns the values of several keys, nil where there is none.
func (r *Reader) GetAll(ctx context.Context, list ...[]byte) ([][]byte, error) {
	return r.r.BatchGet(ctx, userKeys(list))
}

// ScanOptions of Scan. The zero value of a field means its default.
type ScanOptions struct {
	Reverse bool // descending keys
	Limit   int  // pairs; 0 = all
	KeyOnly bool // leave values out
}

// Scan delivers the pairs of [start, end), of which a nil end is the end of all. Keys and
// values are valid until the next turn of the loop. The loop ends after an error.
func (r *Reader) Scan(ctx context.Context, start, end []byte, o ScanOptions) iter.Seq2[Pair, error] {
	from, to := keys.AppendUser(nil, start), keys.UserEnd()
	if end != nil {
		to = keys.AppendUser(nil, end)
	}
	return func(yield func(Pair, error) bool) {
		if r.oldest != nil {
			defer r.oldest.remove(r.oldest.add(&reading{ts: r.ts}))
		}
		sc := r.r.Scan(ctx, from, to, txn.ScanOptions{Reverse: o.Reverse, Limit: o.Limit, KeyOnly: o.KeyOnly})
		for {
			b, err := sc.NextBlock(ctx)
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				yield(Pair{}, err)
				return
			}
			for i := range b.Len() {
				if !yield(Pair{Key: b.Key(i)[1:], Value: b.Value(i)}, nil) {
					return
				}
			}
		}
	}
}

// Txn is a transaction. It is for one goroutine.
type Txn struct {
	Reader
	c    *Client
	t    *txn.Txn
	open *reading
}

// StartTS is the timestamp of the transaction's snapshot; 0 when it could not be had.
func (t *Txn) StartTS() uint64 { return t.t.StartTS() }

// Put stores value under key. Both are copied. It fails with *txn.TooLargeError.
func (t *Txn) Put(key, value []byte) error { return t.t.Set(keys.AppendUser(nil, key), value) }

// Insert is Put of a key that must have no value: the commit fails with
// *txn.KeyExistsError if it has.
func (t *Txn) Insert(key, value []byte) error { return t.t.Insert(keys.AppendUser(nil, key), value) }

// Delete removes key; that it has no value is no error.
func (t *Txn) Delete(key []byte) error { return t.t.Delete(keys.AppendUser(nil, key)) }

// GetForUpdate locks keys, which differ, until the transaction ends, and returns what they
// have now, nil where nothing: the newest values, later perhaps than the snapshot. Errors:
// *txn.LockTimeoutError, *txn.DeadlockError, after which the transaction is to be rolled back.
func (t *Txn) GetForUpdate(ctx context.Context, list ...[]byte) ([][]byte, error) {
	got, err := t.t.Lock(ctx, userKeys(list), txn.LockOptions{Timeout: t.c.wait, ReturnValues: true, AnyVersion: true})
	if err != nil {
		return nil, err
	}
	values := make([][]byte, len(list))
	for i, r := range got {
		if r.Exists {
			values[i] = append([]byte{}, r.Value...)
		}
	}
	return values, nil
}

// Commit makes the writes durable and visible and returns the commit timestamp, 0 if there were
// none. The transaction is over, whatever the outcome. Errors: see txn.Txn.Commit.
func (t *Txn) Commit(ctx context.Context) (uint64, error) {
	defer t.c.oldest.remove(t.open)
	return t.t.Commit(ctx)
}

// Rollback ends the transaction without a trace. After Commit it does nothing.
func (t *Txn) Rollback() {
	defer t.c.oldest.remove(t.open)
	t.t.Rollback()
}

func userKeys(list [][]byte) [][]byte {
	out := make([][]byte, len(list))
	for i, k := range list {
		out[i] = keys.AppendUser(nil, k)
	}
	return out
}
