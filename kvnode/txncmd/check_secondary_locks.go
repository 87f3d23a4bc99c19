package txncmd

import (
	"context"

	"github.com/cairndb/cairn/kvnode/mvcc"
	"github.com/cairndb/cairn/proto/kvpb"
)

// CheckSecondaryLocks finds out whether an async-commit transaction has all its
// locks. A key that has none and shows no trace is barred with a rollback record:
// the transaction can never commit then. One that began before the safe point may have
// committed and left none: nothing is said of it.
func (e *Executor) CheckSecondaryLocks(ctx context.Context, req *kvpb.CheckSecondaryLocksRequest) *kvpb.CheckSecondaryLocksResponse {
	e.metrics.commands.WithLabelValues("check_secondary_locks").Inc()
	resp := &kvpb.CheckSecondaryLocksResponse{}
	if resp.Error = e.admitTS(req.StartTs); resp.Error != nil {
		return resp
	}
	ke, rerr := e.write(ctx, req.Context, keyListOf(req.Keys), func(v *view) (*kvpb.KeyError, error) {
		if ke, err := v.forgotten(req.Keys, req.StartTs); ke != nil || err != nil {
			return ke, err
		}
		for _, k := range req.Keys {
			decided, err := v.checkSecondary(k, req.StartTs, resp)
			if decided || err != nil {
				return nil, err
			}
		}
		return nil, nil
	})
	if ke != nil || rerr != nil {
		return &kvpb.CheckSecondaryLocksResponse{Error: ke, RegionError: rerr}
	}
	return resp
}

// checkSecondary reports whether this key alone decides the transaction.
func (v *view) checkSecondary(key []byte, startTS uint64, resp *kvpb.CheckSecondaryLocksResponse) (decided bool, err error) {
	l := v.own(key, startTS)
	if l != nil && !l.Pessimistic() {
		resp.Locks = append(resp.Locks, l.Info(key))
		return false, nil
	}
	rec, err := v.rd.CommitRecord(key, startTS)
	if err != nil {
		return false, err
	}
	if l != nil {
		v.dropLock(key, startTS)
	}
	resp.Locks = nil
	if rec.Fate == mvcc.FateCommitted {
		resp.CommitTs = rec.CommitTS
		return true, nil
	}
	resp.RolledBack = true
	return true, v.writeRollback(key, startTS, true, rec)
}
