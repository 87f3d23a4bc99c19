package session

import (
	"cmp"
	"context"
	"time"

	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/kvnode/kvclient/txn"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/sqlnode/admin"
	"github.com/cairndb/cairn/sqlnode/catalog"
)

// trx is what is shown of a transaction: one the client has opened, or of a single statement that locks.
type trx struct {
	txn    *txn.Txn // only what is safe for others is called; nil before data is touched
	began  time.Time
	traits traits
	// As of the end of the last statement.
	keys, bytes, locks int
}

// TrxInfo describes a transaction.
type TrxInfo struct {
	StartTS              uint64 // 0 = it has not touched data yet
	Began                time.Time
	Isolation            string
	ReadOnly, Optimistic bool
	// What it has written and locked, as of the end of its last statement.
	Keys, Bytes, Locks int
}

// showTrx shows a transaction that has begun, until hideTrx.
func (s *Session) showTrx(t *txn.Txn, tr traits) {
	s.public.Lock()
	defer s.public.Unlock()
	began := time.Now()
	if s.public.trx != nil {
		began = s.public.trx.began
	}
	s.public.trx = &trx{txn: t, began: began, traits: tr}
}

func (s *Session) hideTrx() {
	s.public.Lock()
	defer s.public.Unlock()
	s.public.trx = nil
}

// noteTrxLocked counts what the transaction has done so far.
func (s *Session) noteTrxLocked() {
	if v, t := s.public.trx, s.txn.txn; v != nil && t != nil && v.txn == t {
		v.keys, v.bytes, v.locks = t.Len(), t.Size(), t.Locked()
	}
}

// trxInfoLocked describes the transaction that is shown, nil for none.
func (s *Session) trxInfoLocked() *TrxInfo {
	v := s.public.trx
	if v == nil {
		return nil
	}
	i := &TrxInfo{Began: v.began, Isolation: v.traits.isolation.text(), ReadOnly: v.traits.readOnly,
		Keys: v.keys, Bytes: v.bytes, Locks: v.locks}
	if v.txn != nil {
		i.StartTS, i.Optimistic = v.txn.KnownStartTS(), !v.txn.Pessimistic()
	}
	return i
}

func (i isolation) text() string {
	switch i {
	case readCommitted:
		return "READ COMMITTED"
	case serializable:
		return "SERIALIZABLE"
	}
	return "REPEATABLE READ"
}

// liveViews are the views of what transactions do at this moment.
func (s *Session) liveViews(snap *catalog.Snapshot, sessions []Info, all bool) map[string]func(context.Context, func(...types.Value) error) error {
	v := &admin.LockViews{Cluster: s.engine.Cluster, Snapshot: snap, Loc: s.hot.loc, Warn: s.warnStore}
	out := map[string]func(context.Context, func(...types.Value) error) error{
		"CAIRN_TRX": func(ctx context.Context, add func(...types.Value) error) error {
			return s.trxRows(ctx, v, sessions, add)
		},
		"INNODB_TRX": func(ctx context.Context, add func(...types.Value) error) error {
			return s.innodbTrxRows(ctx, v, sessions, add)
		},
	}
	if v.Cluster == nil || v.Cluster.Locks == nil {
		return out
	}
	for name, rows := range map[string]func(context.Context, func(...types.Value) error) error{
		"CAIRN_DATA_LOCKS": v.DataLocks, "CAIRN_DATA_LOCK_WAITS": v.DataLockWaits, "CAIRN_DEADLOCKS": v.Deadlocks,
		"data_locks": v.PerformanceLocks, "data_lock_waits": v.PerformanceLockWaits,
	} {
		out[name] = s.clusterRows(all, rows)
	}
	return out
}

// warnStore tells the client that a view has no rows of a store.
func (s *Session) warnStore(store uint64, err error) {
	s.warn(sqlerr.Warn(sqlerr.ErrStoreNotAsked, store, err.Error()))
}

// waiting returns who waits for locks, nobody if that cannot be asked.
func waiting(ctx context.Context, v *admin.LockViews) (map[uint64]*kvpb.LockWait, error) {
	if v.Cluster == nil || v.Cluster.Locks == nil {
		return nil, nil
	}
	return v.Waiting(ctx)
}

// trxState is what a transaction does.
func (i *Info) trxState(wait *kvpb.LockWait) string {
	switch {
	case wait != nil:
		return "LOCK WAIT"
	case i.Statement != "":
		return "RUNNING"
	}
	return "IDLE"
}

// trxRows makes the rows of CAIRN_TRX.
func (s *Session) trxRows(ctx context.Context, v *admin.LockViews, sessions []Info, add func(...types.Value) error) error {
	waits, err := waiting(ctx, v)
	if err != nil {
		return err
	}
	loc := cmp.Or(s.hot.loc, time.UTC)
	for _, i := range sessions {
		t := i.Trx
		if t == nil {
			continue
		}
		id, holder, waited := types.Null(), types.Null(), types.Null()
		if t.StartTS != 0 {
			id = types.Uint(t.StartTS)
		}
		w := waits[t.StartTS]
		if w != nil {
			holder, waited = types.Uint(w.GetHolder()), types.Uint(w.GetWaitedMs())
		}
		access, concurrency := "READ WRITE", "PESSIMISTIC"
		if t.ReadOnly {
			access = "READ ONLY"
		}
		if t.Optimistic {
			concurrency = "OPTIMISTIC"
		}
		err := add(id, types.Uint(i.ID), types.String(i.User), types.String(i.Host), orNull(i.DB), types.TimeVal(types.TimeOf(t.Began.In(loc))),
			types.String(i.trxState(w)), types.String(t.Isolation), types.String(access), types.String(concurrency), orNull(i.Statement),
			types.Uint(uint64(t.Keys)), types.Uint(uint64(t.Bytes)), types.Uint(uint64(t.Locks)), holder, waited)
		if err != nil {
			return err
		}
	}
	return nil
}

// innodbTrxRows makes the rows of INNODB_TRX: transactions that have touched data. What
// this server does not have is 0.
func (s *Session) innodbTrxRows(ctx context.Context, v *admin.LockViews, sessions []Info, add func(...types.Value) error) error {
	waits, err := waiting(ctx, v)
	if err != nil {
		return err
	}
	zero, loc := types.Uint(0), cmp.Or(s.hot.loc, time.UTC)
	for _, i := range sessions {
		t := i.Trx
		if t == nil || t.StartTS == 0 {
			continue
		}
		readOnly := types.Int(0)
		if t.ReadOnly {
			readOnly = types.Int(1)
		}
		state, lock, since := "RUNNING", types.Null(), types.Null()
		if w := waits[t.StartTS]; w != nil {
			state, lock = "LOCK WAIT", types.String(admin.LockID(t.StartTS, w.GetKey()))
			since = types.TimeVal(types.TimeOf(time.Now().Add(-time.Duration(w.GetWaitedMs()) * time.Millisecond).Truncate(time.Second).In(loc)))
		}
		err := add(types.Uint(t.StartTS), types.String(state), types.TimeVal(types.TimeOf(t.Began.Truncate(time.Second).In(loc))), lock, since,
			types.Uint(uint64(t.Keys+t.Locks)), types.Uint(i.ID), orNull(i.Statement), types.Null(), zero, zero, types.Uint(uint64(t.Locks)), zero,
			types.Uint(uint64(t.Locks)), types.Uint(uint64(t.Keys)), zero, types.String(t.Isolation), types.Int(1), types.Int(1), types.Null(),
			types.Int(0), zero, readOnly, types.Int(0), types.Null())
		if err != nil {
			return err
		}
	}
	return nil
}

func orNull(s string) types.Value {
	if s == "" {
		return types.Null()
	}
	return types.String(s)
}
