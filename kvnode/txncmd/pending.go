package txncmd

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"

	"github.com/cairndb/cairn/kvnode/mvcc"
)

// pendingShards bounds how often two commands meet at a lock; a power of two.
const pendingShards = 64

// pendingTable holds the keys of one-phase and async commits from before their
// (smallest) commit timestamp is computed until the records or locks are applied.
type pendingTable struct {
	shards [pendingShards]pendingShard // by key

	n    atomic.Int64 // of txns; 0 costs a range read one load
	mu   sync.Mutex
	txns []*pendingTxn // for range reads; protected by mu
}

type pendingShard struct {
	// n counts the keys. An empty shard costs a reader one load.
	n  atomic.Int64
	mu sync.Mutex
	// keys are in no order: there are few, so that to look through them is cheaper than a map.
	// Protected by mu.
	keys []pendingKey
	_    [64 - 8 - 8 - 24]byte // one cache line each
}

type pendingKey struct {
	hash uint64
	key  []byte // of txn
	txn  *pendingTxn
}

// first returns the first commit of key that is wanted, nil for none.
func (s *pendingShard) first(hash uint64, key []byte, wanted func(p *pendingTxn) bool) *pendingTxn {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.keys {
		if s.keys[i].hash == hash && bytes.Equal(s.keys[i].key, key) && wanted(s.keys[i].txn) {
			return s.keys[i].txn
		}
	}
	return nil
}

// pendingTxn is a one-phase commit or an async-commit prewrite in flight.
type pendingTxn struct {
	startTS uint64
	keys    [][]byte // unchanged until it is withdrawn
	// What its effects are valid for, and Region.Refusals before they were proposed.
	region, version, term uint64
	refusals              uint64
	// failed: there are no effects, or nobody knows. Written before done is closed.
	failed   bool
	commitTS atomic.Uint64 // the smallest one it can have; 0 until computed
	done     chan struct{} // closed when applied or given up
}

func newPendingTable() *pendingTable {
	return &pendingTable{}
}

func (t *pendingTable) shard(key []byte) (s *pendingShard, hash uint64) {
	hash = xxhash.Sum64(key)
	return &t.shards[hash>>32&(pendingShards-1)], hash
}

// publish adds p. The caller holds the latches of its keys.
func (t *pendingTable) publish(p *pendingTxn) {
	for _, k := range p.keys {
		t.add(k, p)
	}
	t.n.Add(1)
	t.mu.Lock()
	t.txns = append(t.txns, p)
	t.mu.Unlock()
}

// withdraw removes p and wakes who waits for it.
func (t *pendingTable) withdraw(p *pendingTxn) {
	for _, k := range p.keys {
		t.remove(k, p)
	}
	t.mu.Lock()
	i, last := slices.Index(t.txns, p), len(t.txns)-1
	t.txns[i], t.txns[last] = t.txns[last], nil
	t.txns = t.txns[:last]
	t.mu.Unlock()
	t.n.Add(-1)
	close(p.done)
}

func (t *pendingTable) add(key []byte, p *pendingTxn) {
	s, hash := t.shard(key)
	s.mu.Lock()
	s.n.Add(1)
	s.keys = append(s.keys, pendingKey{hash, key, p})
	s.mu.Unlock()
}

func (t *pendingTable) remove(key []byte, p *pendingTxn) {
	s, _ := t.shard(key)
	s.mu.Lock()
	i := slices.IndexFunc(s.keys, func(k pendingKey) bool { return k.txn == p && bytes.Equal(k.key, key) })
	last := len(s.keys) - 1
	s.keys[i], s.keys[last] = s.keys[last], pendingKey{}
	s.keys = s.keys[:last]
	s.n.Add(-1)
	s.mu.Unlock()
}

// has reports whether key is being committed.
func (t *pendingTable) has(key []byte) bool {
	s, hash := t.shard(key)
	return s.n.Load() > 0 && s.first(hash, key, func(*pendingTxn) bool { return true }) != nil
}

// flight is a commit in flight of the i-th key of a command.
type flight struct {
	i   int
	txn *pendingTxn
}

// flights returns the commits in flight of keys, by key.
func (t *pendingTable) flights(keys keyList) (list []flight) {
	if t.n.Load() == 0 {
		return nil
	}
	for i := range keys.n {
		key := keys.at(i)
		if s, hash := t.shard(key); s.n.Load() > 0 {
			s.first(hash, key, func(p *pendingTxn) bool {
				list = append(list, flight{i, p})
				return false
			})
		}
	}
	return list
}

// blocks reports whether a read at readTS has to wait for the outcome: the
// commit timestamp may lie at or before it.
func (p *pendingTxn) blocks(readTS uint64) bool {
	if p.startTS >= readTS {
		return false
	}
	commitTS := p.commitTS.Load()
	return commitTS == 0 || commitTS <= readTS
}

// waitKey waits until no commit of key that is pending now can be visible at readTS. At MaxTS that
// leaves out those that follow meanwhile; at other timestamps they are above it.
// It reports whether it waited; the error is ctx's.
func (t *pendingTable) waitKey(ctx context.Context, key []byte, readTS uint64) (waited bool, err error) {
	s, hash := t.shard(key)
	if readTS == mvcc.MaxTS {
		// Those that follow were not acknowledged before the read began, and may never end on a hot key.
		for _, f := range t.flights(oneKey(key)) {
			waited = true
			if err := f.txn.wait(ctx); err != nil {
				return waited, err
			}
		}
		return waited, nil
	}
	for s.n.Load() != 0 {
		p := s.first(hash, key, func(p *pendingTxn) bool { return p.blocks(readTS) })
		if p == nil {
			break
		}
		waited = true
		if err := p.wait(ctx); err != nil {
			return waited, err
		}
	}
	return waited, nil
}

// waitRange is waitKey for every key of [start, end); an empty end is unbounded.
func (t *pendingTable) waitRange(ctx context.Context, start, end []byte, readTS uint64) (waited bool, err error) {
	for t.n.Load() != 0 {
		p := t.blockingIn(start, end, readTS)
		if p == nil {
			break
		}
		waited = true
		if err := p.wait(ctx); err != nil {
			return waited, err
		}
	}
	return waited, nil
}

// openKeys returns copies of the keys of [start, end) whose pending commits may be visible
// at readTS; false if there are more than limit.
func (t *pendingTable) openKeys(start, end []byte, readTS uint64, limit int) (keys [][]byte, ok bool) {
	if t.n.Load() == 0 {
		return nil, true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.txns {
		if !p.blocks(readTS) {
			continue
		}
		for _, k := range p.keys {
			if !within(k, start, end) {
				continue
			}
			if len(keys) == limit {
				return nil, false
			}
			keys = append(keys, bytes.Clone(k))
		}
	}
	return keys, true
}

func within(k, start, end []byte) bool {
	return bytes.Compare(k, start) >= 0 && (len(end) == 0 || bytes.Compare(k, end) < 0)
}

func (t *pendingTable) blockingIn(start, end []byte, readTS uint64) *pendingTxn {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.txns {
		if p.blocks(readTS) && slices.ContainsFunc(p.keys, func(k []byte) bool { return within(k, start, end) }) {
			return p
		}
	}
	return nil
}

func (p *pendingTxn) wait(ctx context.Context) error {
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
