package txncmd

import (
	"bytes"
	"context"
	"slices"

	"github.com/cairndb/cairn/kvnode/mvcc"
	"github.com/cairndb/cairn/proto/kvpb"
)

// BatchRollback rolls a transaction back on the given keys and leaves records
// that keep late prewrites out.
func (e *Executor) BatchRollback(ctx context.Context, req *kvpb.BatchRollbackRequest) *kvpb.BatchRollbackResponse {
	resp := &kvpb.BatchRollbackResponse{}
	e.metrics.commands.WithLabelValues("batch_rollback").Inc()
	resp.Error, resp.RegionError = e.write(ctx, req.Context, keyListOf(req.Keys), func(v *view) (*kvpb.KeyError, error) {
		if ke, err := v.forgotten(req.Keys, req.StartTs); ke != nil || err != nil {
			return ke, err
		}
		for _, k := range req.Keys {
			if ke, err := v.rollback(k, req.StartTs); ke != nil || err != nil {
				return ke, err
			}
		}
		return nil, nil
	})
	return resp
}

// forgotten refuses to say that a transaction is rolled back when its records may have
// been collected: it began before the safe point and has left no lock on any of the
// keys, and nothing on one of them. While one is locked nothing of it was collected.
func (v *view) forgotten(keys [][]byte, startTS uint64) (*kvpb.KeyError, error) {
	if startTS >= v.rg.SafePoint() {
		return nil, nil
	}
	traceless := false
	for _, k := range keys {
		if v.own(k, startTS) != nil {
			return nil, nil
		}
		rec, err := v.rd.CommitRecord(k, startTS)
		if err != nil {
			return nil, err
		}
		traceless = traceless || rec.Fate == mvcc.FateUnknown
	}
	if !traceless {
		return nil, nil
	}
	return v.e.tooOld(v.rg, startTS), nil
}

// rollback rolls startTS back on key, whether its lock is there or not. If it is
// committed the error says so.
func (v *view) rollback(key []byte, startTS uint64) (*kvpb.KeyError, error) {
	if l := v.own(key, startTS); l != nil {
		return nil, v.rollbackLock(key, l)
	}
	rec, err := v.rd.CommitRecord(key, startTS)
	if err != nil {
		return nil, err
	}
	switch rec.Fate {
	case mvcc.FateCommitted:
		return abort("transaction %d is committed at %d", startTS, rec.CommitTS), nil
	case mvcc.FateRolledBack:
		return nil, nil
	}
	return nil, v.writeRollback(key, startTS, false, rec)
}

// rollbackLock removes the transaction's lock and leaves a rollback record, a
// protected one on its primary.
func (v *view) rollbackLock(key []byte, l *mvcc.Lock) error {
	if l.Type == mvcc.LockPut && !l.HasShortValue {
		v.w.DeleteValue(key, l.StartTS)
	}
	v.dropLock(key, l.StartTS)
	rec, err := v.rd.CommitRecord(key, l.StartTS)
	if err != nil {
		return err
	}
	return v.writeRollback(key, l.StartTS, bytes.Equal(l.Primary, key), rec)
}

// writeRollback records that startTS can never commit on key; rec is what
// CommitRecord found. Where another transaction's record takes the place, a
// protected rollback is marked in that record, an unprotected one is not written.
func (v *view) writeRollback(key []byte, startTS uint64, protected bool, rec mvcc.CommitRecord) error {
	if rec.Fate == mvcc.FateRolledBack {
		return nil
	}
	if w := rec.Overlapped; w != nil {
		if protected {
			w.OverlappedRollback, w.HasGCFence, w.GCFence = true, true, rec.Fence
			v.w.PutWrite(key, startTS, w)
		}
		return nil
	}
	v.w.PutWrite(key, startTS, &mvcc.Write{Type: mvcc.WriteRollback, StartTS: startTS, Protected: protected})
	if err := v.collapseBefore(key, startTS); err != nil {
		return err
	}
	if protected {
		v.markOnForeignLock(key, startTS)
	}
	return nil
}

// collapseBefore removes the record before startTS if it is an unprotected
// rollback: a key rolled back often keeps one of them.
func (v *view) collapseBefore(key []byte, startTS uint64) error {
	if startTS == 0 {
		return nil
	}
	at, w, found, err := v.rd.SeekWrite(key, startTS-1)
	if err == nil && found && w.Type == mvcc.WriteRollback && !w.Protected {
		v.w.DeleteWrite(key, at)
	}
	return err
}

// markOnForeignLock notes the rollback in the lock of an async-commit transaction
// that may still commit at this very timestamp and would overwrite the record.
func (v *view) markOnForeignLock(key []byte, startTS uint64) {
	l := v.lock(key)
	if l == nil || l.StartTS == startTS || !l.UseAsyncCommit || l.MinCommitTS > startTS {
		return
	}
	marked := *l
	marked.RollbackTS = append(slices.Clone(l.RollbackTS), startTS)
	v.putLock(key, &marked)
}
