package txn

import (
	"context"
	"errors"
	"sync"

	"github.com/cairndb/cairn/kvnode/kvclient"
	"github.com/cairndb/cairn/proto/kvpb"
)

// secondaries is what the locks of an async commit say together.
type secondaries struct {
	mu       sync.Mutex
	commitTS uint64 // the greatest smallest commit timestamp; protected by mu
	// decided: some key is committed at commitTS, or rolled back with 0. Protected by mu.
	decided bool
	plain   bool // some lock is one of two phases; protected by mu
}

// recoverAsync decides an async commit whose client went silent: it is committed if
// all its keys are locked. A key found without a lock is barred by the question,
// so that the answer stays what it is, whoever asks and whatever is still on its
// way. All its locks are settled in the background.
func (r *resolver) recoverAsync(ctx context.Context, primary *kvpb.LockInfo, caller, now uint64) (txnStatus, error) {
	all := &secondaries{commitTS: primary.GetMinCommitTs()}
	if err := r.checkSecondaries(ctx, primary, primary.GetSecondaries(), all); err != nil && !all.decided {
		if err = r.lostUnless(ctx, primary, err); err != nil {
			return txnStatus{}, err
		}
		all.decided, all.commitTS = true, 0
	}
	if all.plain && !all.decided {
		st, _, err := r.askPrimary(ctx, primary, caller, now, true)
		return st, err
	}
	st := txnStatus{commitTS: all.commitTS}
	r.remember(primary.GetStartTs(), st.commitTS)
	r.s.metrics.recovered.Inc()
	r.settleLater(primary, st)
	for _, k := range primary.GetSecondaries() {
		r.settleLater(&kvpb.LockInfo{Key: k, StartTs: primary.GetStartTs(), TxnSize: primary.GetTxnSize()}, st)
	}
	return st, nil
}

// checkSecondaries asks for the locks of keys and adds the answers to all.
func (r *resolver) checkSecondaries(ctx context.Context, primary *kvpb.LockInfo, keys [][]byte, all *secondaries) error {
	if len(keys) == 0 {
		return nil
	}
	groups, err := r.s.kv.Group(ctx, keys)
	if err != nil {
		return err
	}
	return r.s.forEach(len(groups), func(i int) error {
		part := make([][]byte, 0, len(groups[i].Index))
		for _, j := range groups[i].Index {
			part = append(part, keys[j])
		}
		resp, err := r.s.kv.Send(ctx, groups[i].Region, &kvpb.Request{Cmd: &kvpb.Request_CheckSecondaryLocks{
			CheckSecondaryLocks: &kvpb.CheckSecondaryLocksRequest{StartTs: primary.GetStartTs(), Keys: part},
		}})
		if errors.Is(err, kvclient.ErrRegionChanged) {
			return r.checkSecondaries(ctx, primary, part, all)
		}
		if err != nil {
			return err
		}
		got := resp.GetCheckSecondaryLocks()
		if ke := got.GetError(); ke != nil {
			return keyError(ke, primary.GetStartTs())
		}
		if !all.add(got, len(part)) {
			return errMalformed
		}
		return nil
	})
}

// errMalformed: an answer names neither the locks nor what became of them.
var errMalformed = errors.New("txn: malformed answer about secondary locks")

// add takes the answer about n keys. It refuses one that says nothing about some.
func (all *secondaries) add(got *kvpb.CheckSecondaryLocksResponse, n int) bool {
	all.mu.Lock()
	defer all.mu.Unlock()
	switch {
	case got.GetCommitTs() != 0, got.GetRolledBack():
		if !all.decided {
			all.decided, all.commitTS = true, got.GetCommitTs()
		}
		return true
	case len(got.GetLocks()) != n:
		return false
	}
	for _, l := range got.GetLocks() {
		all.plain = all.plain || !l.GetUseAsyncCommit()
		if !all.decided {
			all.commitTS = max(all.commitTS, l.GetMinCommitTs())
		}
	}
	return true
}
