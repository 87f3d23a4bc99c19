package admin

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/cespare/xxhash/v2"

	"github.com/cairndb/cairn/internal/keys"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/replpb"
	"github.com/cairndb/cairn/sqlnode/catalog"
)

// Locks is what this package asks stores about locks; kvclient.Client is one.
type Locks interface {
	Deadlocks(ctx context.Context, store uint64) ([]*replpb.DeadlockRecord, error)
	Locks(ctx context.Context, store uint64, req *replpb.LocksRequest) (*replpb.LocksResponse, error)
}

const (
	// askTimeout bounds how long a view waits for a store.
	askTimeout = 2 * time.Second
	// maxWaiterText of a statement are kept, in bytes.
	maxWaiterText = 200
)

// Waiter is who waits for a lock, as those see it who look at waits and deadlocks.
type Waiter struct {
	Connection uint64
	Statement  string
}

// Info is w for the KV tier, which keeps 256 bytes.
func (w Waiter) Info() []byte {
	text := w.Statement
	if len(text) > maxWaiterText {
		end := maxWaiterText
		for end > 0 && !utf8.RuneStart(text[end]) {
			end--
		}
		text = text[:end]
	}
	info := append(strconv.AppendUint(make([]byte, 0, 21+len(text)), w.Connection, 10), ' ')
	return append(info, text...)
}

// waiterOf reads what Info has written: connection and statement, NULL where there is none.
func waiterOf(info []byte) (connection, statement types.Value) {
	id, text, ok := bytes.Cut(info, []byte{' '})
	n, err := strconv.ParseUint(string(id), 10, 64)
	switch {
	case len(info) == 0:
		return types.Null(), types.Null()
	case !ok || err != nil: // of a client that is no SQL node
		return types.Null(), types.String(strings.ToValidUTF8(string(info), "?"))
	}
	return types.Uint(n), types.String(strings.ToValidUTF8(string(text), "?"))
}

// LockViews makes the rows of the views of locks, for one statement.
type LockViews struct {
	Cluster  *Cluster
	Snapshot *catalog.Snapshot
	Loc      *time.Location // nil = UTC
	// Warn is told of stores that did not answer: their rows are missing.
	Warn func(store uint64, err error)
}

// Rows makes the rows of a view; add may keep the values.
type Rows func(ctx context.Context, add func(...types.Value) error) error

// askStores asks all stores at once. The answers come in the order of the stores' ids.
func askStores[R any](ctx context.Context, v *LockViews, ask func(ctx context.Context, store uint64) (R, error)) ([]R, error) {
	stores, err := v.Cluster.PD.GetStores(ctx)
	if err != nil {
		return nil, fmt.Errorf("list stores: %w", err)
	}
	stores = slices.DeleteFunc(slices.Clone(stores), func(s *kvpb.Store) bool { return s.GetState() == kvpb.StoreState_STORE_STATE_TOMBSTONE })
	slices.SortFunc(stores, func(a, b *kvpb.Store) int { return cmp.Compare(a.GetId(), b.GetId()) })
	answers, errs := make([]R, len(stores)), make([]error, len(stores))
	var wg sync.WaitGroup
	for i, s := range stores {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, askTimeout)
			defer cancel()
			answers[i], errs[i] = ask(ctx, s.GetId())
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	var out []R
	for i, s := range stores {
		if errs[i] != nil {
			v.Warn(s.GetId(), errs[i])
			continue
		}
		out = append(out, answers[i])
	}
	return out, nil
}

// place names what a key belongs to: the key as text, table and index, NULL for none.
func (v *LockViews) place(key []byte) (text, db, table, index types.Value) {
	_, db, table, index = owner(v.Snapshot, key)
	if _, _, err := keys.DecodeRow(key); err == nil && index.IsNull() && !table.IsNull() {
		index = types.String("PRIMARY")
		if t := v.Snapshot.Table(string(db.Bytes()), string(table.Bytes())); t != nil && t.PK == nil {
			index = types.String("GEN_CLUST_INDEX")
		}
	}
	return types.String(KeyText(key)), db, table, index
}

// Deadlocks makes the rows of CAIRN_DEADLOCKS: one for each wait of a deadlock, beginning
// with the one of the transaction that was rolled back; the oldest deadlock first.
func (v *LockViews) Deadlocks(ctx context.Context, add func(...types.Value) error) error {
	type found struct {
		store  uint64
		record *replpb.DeadlockRecord
	}
	answers, err := askStores(ctx, v, func(ctx context.Context, store uint64) (out []found, err error) {
		records, err := v.Cluster.Locks.Deadlocks(ctx, store)
		for _, r := range records {
			out = append(out, found{store, r})
		}
		return out, err
	})
	if err != nil {
		return err
	}
	all := slices.Concat(answers...)
	slices.SortStableFunc(all, func(a, b found) int { return cmp.Compare(a.record.GetFoundUnixUs(), b.record.GetFoundUnixUs()) })
	loc := cmp.Or(v.Loc, time.UTC)
	for _, f := range all {
		at := time.UnixMicro(f.record.GetFoundUnixUs()).In(loc)
		for i, w := range f.record.GetDeadlock().GetWaitChain() {
			key, db, table, index := v.place(w.GetKey())
			connection, statement := waiterOf(w.GetInfo())
			rolledBack := types.String("NO")
			if i == 0 {
				rolledBack = types.String("YES")
			}
			err := add(types.Uint(uint64(f.record.GetFoundUnixUs())), types.TimeVal(types.TimeOf(at)), types.Uint(w.GetTxn()), types.Uint(w.GetWaitForTxn()),
				key, db, table, index, connection, statement, rolledBack, types.Uint(f.store))
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// locks asks all stores for their locks, or for those who wait only.
func (v *LockViews) locks(ctx context.Context, onlyWaits bool) ([]*replpb.LocksResponse, error) {
	return askStores(ctx, v, func(ctx context.Context, store uint64) (*replpb.LocksResponse, error) {
		return v.Cluster.Locks.Locks(ctx, store, &replpb.LocksRequest{OnlyWaits: onlyWaits})
	})
}

// DataLocks makes the rows of CAIRN_DATA_LOCKS.
func (v *LockViews) DataLocks(ctx context.Context, add func(...types.Value) error) error {
	return v.eachLock(ctx, func(store, region uint64, l *kvpb.LockInfo) error {
		key, db, table, index := v.place(l.GetKey())
		return add(key, db, table, index, types.Uint(l.GetStartTs()), types.String(lockTypeText(l.GetType())), types.String(KeyText(l.GetPrimary())),
			types.Uint(l.GetForUpdateTs()), types.Uint(l.GetTtlMs()), types.Uint(l.GetMinCommitTs()), types.String(yesNo(l.GetUseAsyncCommit())),
			types.Uint(region), types.Uint(store))
	})
}

func (v *LockViews) eachLock(ctx context.Context, fn func(store, region uint64, l *kvpb.LockInfo) error) error {
	stores, err := v.locks(ctx, false)
	if err != nil {
		return err
	}
	for _, s := range stores {
		for _, h := range s.GetLocks() {
			if err := fn(s.GetStoreId(), h.GetRegionId(), h.GetLock()); err != nil {
				return err
			}
		}
	}
	return nil
}

// DataLockWaits makes the rows of CAIRN_DATA_LOCK_WAITS.
func (v *LockViews) DataLockWaits(ctx context.Context, add func(...types.Value) error) error {
	return v.eachWait(ctx, func(store uint64, w *kvpb.LockWait) error {
		key, db, table, index := v.place(w.GetKey())
		connection, statement := waiterOf(w.GetInfo())
		return add(key, db, table, index, types.Uint(w.GetWaiter()), types.Uint(w.GetHolder()), types.Uint(w.GetWaitedMs()), connection, statement,
			types.Uint(w.GetRegionId()), types.Uint(store))
	})
}

func (v *LockViews) eachWait(ctx context.Context, fn func(store uint64, w *kvpb.LockWait) error) error {
	stores, err := v.locks(ctx, true)
	if err != nil {
		return err
	}
	for _, s := range stores {
		for _, w := range s.GetWaits() {
			if err := fn(s.GetStoreId(), w); err != nil {
				return err
			}
		}
	}
	return nil
}

// Waiting returns the waits of transactions by their start timestamp.
func (v *LockViews) Waiting(ctx context.Context) (map[uint64]*kvpb.LockWait, error) {
	out := make(map[uint64]*kvpb.LockWait)
	err := v.eachWait(ctx, func(_ uint64, w *kvpb.LockWait) error {
		out[w.GetWaiter()] = w
		return nil
	})
	return out, err
}

// LockID is the name of a transaction's lock on a key, held or waited for, in the views of MySQL.
func LockID(txn uint64, key []byte) string {
	return fmt.Sprintf("%d:%016x", txn, xxhash.Sum64(key))
}

// PerformanceLocks makes the rows of performance_schema.data_locks: locks held and locks waited for.
func (v *LockViews) PerformanceLocks(ctx context.Context, add func(...types.Value) error) error {
	stores, err := v.locks(ctx, false)
	if err != nil {
		return err
	}
	row := func(txn uint64, key []byte, info []byte, mode, status string) error {
		_, db, table, index := v.place(key)
		connection, _ := waiterOf(info)
		return add(types.String("INNODB"), types.String(LockID(txn, key)), types.Uint(txn), connection, types.Null(),
			db, table, types.Null(), types.Null(), index, types.Uint(0), types.String("RECORD"), types.String(mode), types.String(status), types.String(dataText(key)))
	}
	for _, s := range stores {
		for _, h := range s.GetLocks() {
			mode := "X,REC_NOT_GAP"
			if h.GetLock().GetType() == kvpb.LockType_LOCK_TYPE_SHARED {
				mode = "S,REC_NOT_GAP"
			}
			if err := row(h.GetLock().GetStartTs(), h.GetLock().GetKey(), nil, mode, "GRANTED"); err != nil {
				return err
			}
		}
		for _, w := range s.GetWaits() {
			if err := row(w.GetWaiter(), w.GetKey(), w.GetInfo(), "X,REC_NOT_GAP", "WAITING"); err != nil {
				return err
			}
		}
	}
	return nil
}

// PerformanceLockWaits makes the rows of performance_schema.data_lock_waits.
func (v *LockViews) PerformanceLockWaits(ctx context.Context, add func(...types.Value) error) error {
	return v.eachWait(ctx, func(_ uint64, w *kvpb.LockWait) error {
		connection, _ := waiterOf(w.GetInfo())
		return add(types.String("INNODB"),
			types.String(LockID(w.GetWaiter(), w.GetKey())), types.Uint(w.GetWaiter()), connection, types.Null(), types.Uint(0),
			types.String(LockID(w.GetHolder(), w.GetKey())), types.Uint(w.GetHolder()), types.Null(), types.Null(), types.Uint(0))
	})
}

// dataText is what of a key follows its table and index.
func dataText(key []byte) string {
	if _, handle, err := keys.DecodeRow(key); err == nil {
		if n, err := keys.DecodeIntHandle(handle); err == nil {
			return strconv.FormatInt(n, 10)
		}
		return hex.EncodeToString(handle)
	}
	if _, _, columns, err := keys.DecodeIndex(key); err == nil {
		return hex.EncodeToString(columns)
	}
	return hex.EncodeToString(key)
}

func lockTypeText(t kvpb.LockType) string {
	name := strings.TrimPrefix(t.String(), "LOCK_TYPE_")
	return name[:1] + strings.ToLower(name[1:])
}

func yesNo(b bool) string {
	if b {
		return "YES"
	}
	return "NO"
}
