package txncmd

import (
	"context"

	"github.com/cairndb/cairn/kvnode/mvcc"
	"github.com/cairndb/cairn/proto/kvpb"
)

const (
	// A ResolveLock without keys settles at most this many locks, of this many
	// bytes of keys and values together, and then says where to go on.
	resolveMaxLocks = 1024
	resolveMaxBytes = 128 << 10
)

// ResolveLock commits or rolls back locks of transactions whose fate is known.
func (e *Executor) ResolveLock(ctx context.Context, req *kvpb.ResolveLockRequest) *kvpb.ResolveLockResponse {
	e.metrics.commands.WithLabelValues("resolve_lock").Inc()
	resp := &kvpb.ResolveLockResponse{}
	txns := make(map[uint64]uint64, len(req.Txns))
	for _, t := range req.Txns {
		if t.GetCommitTs() != 0 && t.GetCommitTs() <= t.GetStartTs() || t.GetCommitTs() == mvcc.MaxTS {
			resp.Error = abort("commit timestamp %d of transaction %d", t.GetCommitTs(), t.GetStartTs())
			return resp
		}
		txns[t.GetStartTs()] = t.GetCommitTs()
	}
	keys := req.Keys
	if len(keys) == 0 {
		rg, rerr := e.regions.Region(req.Context)
		if rerr != nil {
			resp.RegionError = rerr
			return resp
		}
		var err error
		if keys, resp.ResumeKey, rerr, err = locksOf(ctx, rg, txns, req.StartKey); rerr != nil {
			resp.RegionError = rerr
			return resp
		}
		if err != nil {
			resp.Error = e.internal("list locks", err)
			return resp
		}
		if resp.More = resp.ResumeKey != nil; len(keys) == 0 {
			return resp
		}
	}
	ke, rerr := e.write(ctx, req.Context, keyListOf(keys), func(v *view) (*kvpb.KeyError, error) {
		for _, k := range keys {
			if ke, err := v.resolve(k, txns, len(req.Keys) > 0); ke != nil || err != nil {
				return ke, err
			}
		}
		return nil, nil
	})
	if ke != nil || rerr != nil {
		return &kvpb.ResolveLockResponse{Error: ke, RegionError: rerr}
	}
	return resp
}

// locksOf lists keys locked by txns from start on; resume is where to go on, nil
// at the end of the region.
func locksOf(ctx context.Context, rg Region, txns map[uint64]uint64, start []byte) (keys [][]byte, resume []byte, rerr *kvpb.RegionError, err error) {
	if rerr := rg.ReadReady(ctx); rerr != nil {
		return nil, nil, rerr, nil
	}
	size := 0
	err = mvcc.RangeLocks(rg.Locks(), rg.MemLocks(), start, rg.Meta().EndKey, func(key []byte, l *mvcc.Lock) bool {
		if !ownedByAny(l, txns) {
			return true
		}
		if len(keys) == resolveMaxLocks || size >= resolveMaxBytes {
			resume = append([]byte{}, key...)
			return false
		}
		keys = append(keys, key)
		size += len(key) + len(l.ShortValue)
		return true
	})
	return keys, resume, rg.CheckLease(), err
}

func ownedByAny(l *mvcc.Lock, txns map[uint64]uint64) bool {
	return !l.Owners(func(own *mvcc.Lock) bool {
		_, ok := txns[own.StartTS]
		return !ok
	})
}

// resolve settles the lock of key as txns says. If the key is not locked by one
// of them, and was named by the client with the only transaction there is, it is
// treated as if that had been asked directly; else somebody settled it before.
func (v *view) resolve(key []byte, txns map[uint64]uint64, named bool) (*kvpb.KeyError, error) {
	if l := v.lock(key); l != nil && ownedByAny(l, txns) {
		var ke *kvpb.KeyError
		var err error
		l.Owners(func(own *mvcc.Lock) bool {
			if commitTS, ok := txns[own.StartTS]; ok {
				ke, err = v.settle(key, own.StartTS, commitTS)
			}
			return ke == nil && err == nil
		})
		return ke, err
	}
	if named && len(txns) == 1 {
		for startTS, commitTS := range txns {
			return v.settle(key, startTS, commitTS)
		}
	}
	return nil, nil
}

func (v *view) settle(key []byte, startTS, commitTS uint64) (*kvpb.KeyError, error) {
	if commitTS == 0 {
		return v.rollback(key, startTS)
	}
	_, ke, err := v.commit(key, startTS, commitTS)
	return ke, err
}
