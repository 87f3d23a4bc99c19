package txncmd

import (
	"bytes"
	"context"
	"slices"

	"github.com/cairndb/cairn/kvnode/mvcc"
	"github.com/cairndb/cairn/proto/kvpb"
)

// Commit turns the locks of a transaction into committed versions. It is
// idempotent: keys committed before count as done, and the answer carries the
// commit timestamp that is in force.
func (e *Executor) Commit(ctx context.Context, req *kvpb.CommitRequest) *kvpb.CommitResponse {
	e.metrics.commit.Inc()
	resp := &kvpb.CommitResponse{}
	if req.CommitTs <= req.StartTs || req.CommitTs == mvcc.MaxTS {
		resp.Error = abort("commit timestamp %d of transaction %d", req.CommitTs, req.StartTs)
		return resp
	}
	commitTS := req.CommitTs
	resp.Error, resp.RegionError = e.write(ctx, req.Context, keyListOf(req.Keys), func(v *view) (*kvpb.KeyError, error) {
		v.patient = req.Unhurried
		for _, k := range req.Keys {
			at, ke, err := v.commit(k, req.StartTs, req.CommitTs)
			if ke.GetTxnLockNotFound() != nil {
				// An earlier attempt may have committed it, and the record is collected since.
				if old := e.tooOld(v.rg, req.StartTs); old != nil {
					ke = old
				}
			}
			if ke != nil || err != nil {
				return ke, err
			}
			commitTS = at
		}
		return nil, nil
	})
	if resp.Error == nil && resp.RegionError == nil {
		resp.CommitTs = commitTS
	}
	return resp
}

// commit commits the lock of key. It returns the timestamp the key is committed at.
func (v *view) commit(key []byte, startTS, commitTS uint64) (uint64, *kvpb.KeyError, error) {
	l := v.own(key, startTS)
	if l == nil {
		return v.commitMissing(key, startTS)
	}
	if l.Pessimistic() {
		// Nothing was ever written under it; only the resolver of a transaction
		// whose commit left this lock behind comes here.
		v.dropLock(key, startTS)
		return commitTS, nil, nil
	}
	if commitTS < l.MinCommitTS {
		return 0, &kvpb.KeyError{Kind: &kvpb.KeyError_CommitTsExpired{CommitTsExpired: &kvpb.CommitTsExpired{
			StartTs: startTS, AttemptedCommitTs: commitTS, Key: bytes.Clone(key), MinCommitTs: l.MinCommitTS,
		}}}, nil
	}
	rec := mvcc.Write{
		StartTS: startTS, HasValue: l.HasShortValue, Value: l.ShortValue,
		OverlappedRollback: slices.Contains(l.RollbackTS, commitTS),
	}
	switch l.Type {
	case mvcc.LockPut:
		rec.Type = mvcc.WritePut
	case mvcc.LockDelete:
		rec.Type = mvcc.WriteDelete
	default:
		rec.Type = mvcc.WriteLock
	}
	v.w.PutWrite(key, commitTS, &rec)
	v.dropLock(key, startTS)
	return commitTS, nil, nil
}

func (v *view) commitMissing(key []byte, startTS uint64) (uint64, *kvpb.KeyError, error) {
	rec, err := v.rd.CommitRecord(key, startTS)
	if err != nil {
		return 0, nil, err
	}
	if rec.Fate == mvcc.FateCommitted {
		return rec.CommitTS, nil, nil
	}
	return 0, &kvpb.KeyError{Kind: &kvpb.KeyError_TxnLockNotFound{
		TxnLockNotFound: &kvpb.TxnLockNotFound{Key: bytes.Clone(key)},
	}}, nil
}
