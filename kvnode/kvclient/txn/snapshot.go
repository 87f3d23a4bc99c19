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

// Snapshot reads the versions committed at or before one timestamp. It is safe
// for concurrent use and needs no closing.
type Snapshot struct {
	s    *Store
	ts   uint64
	from ReplicaRead
	own  uint64 // the transaction whose locks are read through, whatever they say; 0 = none

	mu sync.Mutex
	// resolved and committed name transactions whose locks reads ignore or read
	// through. Copied on change. Protected by mu.
	resolved, committed []uint64
}

// Snapshot returns a snapshot at ts; math.MaxUint64 means the newest committed
// version of each key and allows Get only.
func (s *Store) Snapshot(ts uint64) *Snapshot { return &Snapshot{s: s, ts: ts} }

// ReplicaRead says which replica of a region reads go to. All of them give the same
// answer: another one than the leader asks that first what it has to wait for, unless the
// timestamp lies a few seconds back. Reads of the newest version always go to the leader.
type ReplicaRead = kvpb.ReplicaRead

// The replicas that a read can go to.
const (
	ReadLeader   = kvpb.ReplicaRead_REPLICA_READ_LEADER
	ReadFollower = kvpb.ReplicaRead_REPLICA_READ_FOLLOWER // any other one
	ReadClosest  = kvpb.ReplicaRead_REPLICA_READ_CLOSEST  // see kvclient.Options.Labels
)

// From makes the snapshot read from other replicas than the leader, and returns it. It is
// called before the first read.
func (sn *Snapshot) From(r ReplicaRead) *Snapshot {
	sn.from = r
	return sn
}

// TS returns the read timestamp.
func (sn *Snapshot) TS() uint64 { return sn.ts }

// Locks returns the transactions whose locks a request at this snapshot should
// ignore, and those it should read through. The slices must not be changed.
func (sn *Snapshot) Locks() (resolved, committed []uint64) {
	sn.mu.Lock()
	defer sn.mu.Unlock()
	return sn.resolved, sn.committed
}

func (sn *Snapshot) kvContext() *kvpb.Context {
	resolved, committed := sn.Locks()
	if resolved == nil && committed == nil && sn.from == ReadLeader && sn.own == 0 {
		return nil
	}
	c := &kvpb.Context{ResolvedLocks: resolved, CommittedLocks: committed, ReplicaRead: sn.from, OwnLocks: sn.own}
	if sn.own != 0 { // another replica may not have all of them yet
		c.ReplicaRead = ReadLeader
	}
	return c
}

// Settle makes progress against the lock errors of a read at this snapshot:
// afterwards the read may be sent again (with the current Locks). It waits while
// the owner is alive. Other key errors come back as errors.
func (sn *Snapshot) Settle(ctx context.Context, w *LockWait, errs ...*kvpb.KeyError) error {
	alive := (*kvpb.LockInfo)(nil)
	for _, ke := range errs {
		lock := ke.GetLocked()
		if lock == nil {
			return keyError(ke, sn.ts)
		}
		st, err := sn.s.resolver.status(ctx, lock, sn.ts)
		if err != nil {
			return fmt.Errorf("resolve lock of %d: %w", lock.GetStartTs(), err)
		}
		switch {
		case st.alive && !st.pushed:
			alive = lock
			w.limit = st.left
		case st.alive, st.commitTS == 0, st.commitTS > sn.ts:
			sn.remember(&sn.resolved, lock.GetStartTs())
		default:
			sn.remember(&sn.committed, lock.GetStartTs())
		}
		if !st.alive {
			sn.s.resolver.settleLater(lock, st)
		}
	}
	if alive == nil {
		return nil
	}
	if w.bo.s == nil {
		w.bo = sn.s.newBackoff(backoffReadLock)
	}
	err := w.bo.waitAtMost(ctx, w.limit)
	if errors.Is(err, errBudget) {
		return &LockTimeoutError{Key: alive.GetKey(), StartTS: alive.GetStartTs()}
	}
	return err
}

func (sn *Snapshot) remember(list *[]uint64, startTS uint64) {
	sn.mu.Lock()
	defer sn.mu.Unlock()
	if !slices.Contains(*list, startTS) {
		*list = append(slices.Clip(slices.Clone(*list)), startTS)
	}
}

// Get implements Reader.
func (sn *Snapshot) Get(ctx context.Context, key []byte) ([]byte, error) {
	req := &kvpb.GetRequest{Key: key, ReadTs: sn.ts}
	var w LockWait
	for {
		req.Context = sn.kvContext()
		resp, err := sn.s.kv.Get(ctx, req)
		if err != nil {
			return nil, fmt.Errorf("get: %w", err)
		}
		if resp.GetError() == nil {
			if resp.GetNotFound() {
				return nil, ErrNotFound
			}
			return resp.GetValue(), nil
		}
		if err := sn.Settle(ctx, &w, resp.GetError()); err != nil {
			return nil, err
		}
	}
}

// BatchGet implements Reader.
func (sn *Snapshot) BatchGet(ctx context.Context, keys [][]byte) ([][]byte, error) {
	values := make([][]byte, len(keys))
	rest := make([]int, len(keys))
	for i := range rest {
		rest[i] = i
	}
	var w LockWait
	for len(rest) > 0 {
		var errs []*kvpb.KeyError
		var err error
		rest, errs, err = sn.batchGetOnce(ctx, keys, rest, values)
		if err != nil {
			return nil, fmt.Errorf("batch get: %w", err)
		}
		if err := sn.Settle(ctx, &w, errs...); err != nil {
			return nil, err
		}
	}
	return values, nil
}

// batchGetOnce reads keys[i] for i in want, one request per region, and returns
// the positions to ask again.
func (sn *Snapshot) batchGetOnce(ctx context.Context, keys [][]byte, want []int, values [][]byte) (again []int, errs []*kvpb.KeyError, err error) {
	ask := make([][]byte, len(want))
	for i, p := range want {
		ask[i] = keys[p]
	}
	groups, err := sn.s.kv.Group(ctx, ask)
	if err != nil {
		return nil, nil, err
	}
	var mu sync.Mutex // protects again and errs
	err = sn.s.forEach(len(groups), func(g int) error {
		pos := make([]int, len(groups[g].Index))
		for i, j := range groups[g].Index {
			pos[i] = want[j]
		}
		left, kerrs, err := sn.batchGetRegion(ctx, groups[g].Region, keys, pos, values)
		mu.Lock()
		defer mu.Unlock()
		again, errs = append(again, left...), append(errs, kerrs...)
		return err
	})
	return again, errs, err
}

func (sn *Snapshot) batchGetRegion(ctx context.Context, r kvclient.Region, keys [][]byte, pos []int, values [][]byte) (again []int, errs []*kvpb.KeyError, err error) {
	req := &kvpb.BatchGetRequest{Context: sn.kvContext(), ReadTs: sn.ts, Keys: make([][]byte, len(pos))}
	for i, p := range pos {
		req.Keys[i] = keys[p]
	}
	resp, err := sn.s.kv.Send(ctx, r, &kvpb.Request{Cmd: &kvpb.Request_BatchGet{BatchGet: req}})
	if errors.Is(err, kvclient.ErrRegionChanged) {
		return pos, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	got := resp.GetBatchGet()
	block, ok := blockOf(got.GetPairs())
	if !ok {
		return nil, nil, errors.New("malformed block")
	}
	locked := make(map[string]bool, len(got.GetErrors()))
	for _, ke := range got.GetErrors() {
		locked[string(ke.GetLocked().GetKey())] = true
	}
	next := 0
	for _, p := range pos {
		switch {
		case next < block.Len() && bytes.Equal(block.Key(next), keys[p]):
			values[p] = append([]byte{}, block.Value(next)...)
			next++
		case len(locked) > 0 && locked[string(keys[p])]:
			again = append(again, p)
		}
	}
	return again, got.GetErrors(), nil
}

// LockWait is the patience of one read that meets locks. The zero value is fresh.
type LockWait struct {
	bo    backoff
	limit time.Duration
	until time.Time // of one in a queue: when it gives up
}

// Scan implements Reader.
func (sn *Snapshot) Scan(_ context.Context, start, end []byte, o ScanOptions) *Scanner {
	sc := newScanner(sn, start, end, o)
	sc.start()
	return sc
}
