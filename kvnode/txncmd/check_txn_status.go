package txncmd

import (
	"bytes"
	"context"

	"github.com/cairndb/cairn/kvnode/mvcc"
	"github.com/cairndb/cairn/proto/kvpb"
)

// CheckTxnStatus says what became of a transaction by its primary key, and
// changes it where the asker may: an expired lock is rolled back, a living one is
// pushed behind the asker's read timestamp.
func (e *Executor) CheckTxnStatus(ctx context.Context, req *kvpb.CheckTxnStatusRequest) *kvpb.CheckTxnStatusResponse {
	e.metrics.commands.WithLabelValues("check_txn_status").Inc()
	resp := &kvpb.CheckTxnStatusResponse{}
	// The question is a read: no commit timestamp computed later may lie below the
	// ones named here.
	if resp.Error = e.admitTS(req.LockTs, req.CallerStartTs, req.CurrentTs); resp.Error != nil {
		return resp
	}
	ke, rerr := e.write(ctx, req.Context, oneKey(req.Primary), func(v *view) (*kvpb.KeyError, error) {
		return v.checkTxnStatus(req, resp)
	})
	if ke != nil || rerr != nil {
		return &kvpb.CheckTxnStatusResponse{Error: ke, RegionError: rerr}
	}
	return resp
}

func (v *view) checkTxnStatus(req *kvpb.CheckTxnStatusRequest, resp *kvpb.CheckTxnStatusResponse) (*kvpb.KeyError, error) {
	key := req.Primary
	l := v.own(key, req.LockTs)
	if l == nil {
		return v.statusWithoutLock(req, resp)
	}
	if req.VerifyIsPrimary && !bytes.Equal(l.Primary, key) {
		if !req.ResolvingPessimisticLock && l.Pessimistic() {
			// Left by a request repeated too late; the real primary decided already.
			v.dropLock(key, req.LockTs)
			return v.statusWithoutLock(req, resp)
		}
		return &kvpb.KeyError{Kind: &kvpb.KeyError_PrimaryMismatch{
			PrimaryMismatch: &kvpb.PrimaryMismatch{Lock: l.Info(key)},
		}}, nil
	}
	if l.Pessimistic() && l.LockedWithConflict {
		// A request repeated too late can have locked the key again, at a version that
		// the transaction itself has written.
		rec, err := v.rd.CommitRecord(key, req.LockTs)
		if err != nil {
			return nil, err
		}
		if rec.Fate != mvcc.FateUnknown {
			v.dropLock(key, req.LockTs)
			return v.statusWithoutLock(req, resp)
		}
	}
	switch {
	case l.UseAsyncCommit && !req.ForceSyncCommit:
		// Its secondaries decide; never rolled back or pushed here.
		resp.Lock = l.Info(key)
	case l.Expired(req.CurrentTs) && l.Pessimistic() && req.ResolvingPessimisticLock:
		v.dropLock(key, req.LockTs)
		resp.Action = kvpb.TxnAction_TXN_ACTION_TTL_EXPIRE_PESSIMISTIC_ROLLBACK
	case l.Expired(req.CurrentTs):
		resp.Action = kvpb.TxnAction_TXN_ACTION_TTL_EXPIRE_ROLLBACK
		return nil, v.rollbackLock(key, l)
	default:
		v.push(req, resp, l)
	}
	return nil, nil
}

// push moves the lock's smallest commit timestamp behind the asker's read.
func (v *view) push(req *kvpb.CheckTxnStatusRequest, resp *kvpb.CheckTxnStatusResponse, l *mvcc.Lock) {
	caller := req.CallerStartTs
	if l.MinCommitTS != 0 && caller != mvcc.MaxTS && caller >= l.MinCommitTS {
		pushed := *l
		pushed.MinCommitTS = caller + 1
		if req.CurrentTs != mvcc.MaxTS {
			pushed.MinCommitTS = max(pushed.MinCommitTS, req.CurrentTs)
		}
		v.replaceOwn(req.Primary, &pushed)
		l = &pushed
	}
	if l.MinCommitTS > caller || caller == mvcc.MaxTS && l.MinCommitTS != 0 {
		resp.Action = kvpb.TxnAction_TXN_ACTION_MIN_COMMIT_TS_PUSHED
	}
	resp.Lock = l.Info(req.Primary)
}

func (v *view) statusWithoutLock(req *kvpb.CheckTxnStatusRequest, resp *kvpb.CheckTxnStatusResponse) (*kvpb.KeyError, error) {
	rec, err := v.rd.CommitRecord(req.Primary, req.LockTs)
	if err != nil {
		return nil, err
	}
	switch {
	case rec.Fate == mvcc.FateCommitted:
		resp.CommitTs = rec.CommitTS
	case rec.Fate == mvcc.FateRolledBack:
	case req.ResolvingPessimisticLock:
		resp.Action = kvpb.TxnAction_TXN_ACTION_LOCK_NOT_EXIST_DO_NOTHING
	case req.RollbackIfNotExist && req.LockTs < v.rg.SafePoint():
		// Its record may have been collected, and its lock be seen by a replica that lags: who
		// asks reads what is too old.
		return v.e.tooOld(v.rg, req.LockTs), nil
	case req.RollbackIfNotExist:
		resp.Action = kvpb.TxnAction_TXN_ACTION_LOCK_NOT_EXIST_ROLLBACK
		return nil, v.writeRollback(req.Primary, req.LockTs, true, rec)
	default:
		return &kvpb.KeyError{Kind: &kvpb.KeyError_TxnNotFound{TxnNotFound: &kvpb.TxnNotFound{
			StartTs: req.LockTs, Primary: bytes.Clone(req.Primary),
		}}}, nil
	}
	return nil, nil
}
