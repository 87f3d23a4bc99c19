package txn

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cairndb/cairn/kvnode/kvclient"
	"github.com/cairndb/cairn/proto/kvpb"
)

var siSeeds = flag.Int("si.seeds", 0, "run TestSnapshotIsolation with this many more seeds")

// TestSnapshotIsolation runs clients against a KV tier that loses answers,
// repeats requests, splits regions and holds elections. They commit in one phase, in two, or with
// async commit, on several nodes, and some die at any point of it, so that
// others have to find out what became of their transactions. What they saw is
// recorded and every read checked against a model that knows the order of commits:
// reads are those of the snapshot, no update is lost, transactions are atomic,
// and what was acknowledged is what happened. Some are serializable: all they read
// must be the same at their commit timestamps, so that the order of these is one in
// which they could have run one after the other. Some lock what they write while they run.
func TestSnapshotIsolation(t *testing.T) {
	seeds := []uint64{1, 2, 3, uint64(time.Now().UnixNano())}
	for i := range *siSeeds {
		seeds = append(seeds, uint64(i+4))
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { runHistory(t, seed) })
	}
}

const (
	siKeys    = 24
	siClients = 6
	siTxns    = 120
)

func siKey(i int) []byte { return fmt.Appendf(nil, "k%02d", i) }

// record is what one transaction did, as its client saw it.
type record struct {
	client, n int
	startTS   uint64
	commitTS  uint64 // 0 = not known to be committed
	unknown   bool   // result undetermined
	strict    bool   // serializable
	views     []view // one by one
	inserted  map[int]bool
	writes    map[int]uint64 // 0 = delete
	locked    map[int]uint64 // since when nobody else may write; of a pessimistic transaction
	err       error
}

// view is what a transaction read at one timestamp.
type view struct {
	ts    uint64
	reads map[int]uint64
}

// leaves reports whether the write of k leaves a version: a key inserted and
// deleted again is only checked.
func (r *record) leaves(k int) bool { return !r.inserted[k] || r.writes[k] != 0 }

func (r *record) String() string {
	return fmt.Sprintf("client %d txn %d start %d commit %d unknown %v strict %v reads %v writes %v", r.client, r.n, r.startTS, r.commitTS, r.unknown, r.strict, r.views, r.writes)
}

func runHistory(t *testing.T, seed uint64) {
	s, kv, tso := newTestStore(t)
	if seed%2 == 0 {
		kv.st.SpillLocks(2)
	}
	nodes := []*Store{s, nodeOf(t, kv, tso, true), nodeOf(t, kv, tso, false)}
	order := &realTime{t: t, tso: tso}
	kv.faults = rand.New(rand.NewPCG(seed, 1))
	kv.st.OnPropose = func(*kvpb.Region) (*kvpb.RegionError, bool) {
		runtime.Gosched() // let others in while a commit is on its way
		return nil, true
	}
	splits := rand.New(rand.NewPCG(seed, 2))
	var mu sync.Mutex
	var history []*record
	var wg sync.WaitGroup
	for c := range siClients {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, uint64(c)+10))
			for n := range siTxns {
				node := nodes[rnd.IntN(len(nodes))]
				if rnd.IntN(8) == 0 {
					node = mortalNode(t, kv, tso, rnd)
				}
				r := runRandomTxn(order, node, rnd, c, n)
				mu.Lock()
				history = append(history, r)
				if splits.IntN(20) == 0 {
					kv.st.Split(siKey(splits.IntN(siKeys)))
				}
				if splits.IntN(10) == 0 {
					kv.st.NewTerm()
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	kv.mu.Lock()
	kv.faults = nil
	kv.mu.Unlock()
	for _, n := range nodes {
		n.tasks.Wait()
	}
	recoverAll(t, s, kv, tso)
	settleUnknown(t, s, history)
	checkHistory(t, history)
	checkOutcomes(t, s, history)
	checkFinal(t, s, tso, history)
	committed, changed := 0, 0
	for _, r := range history {
		if r.commitTS != 0 {
			committed++
		}
		var conflict *WriteConflictError
		if errors.As(r.err, &conflict) && conflict.Reason == kvpb.ConflictReason_CONFLICT_REASON_READ_CHANGED {
			changed++
		}
	}
	t.Logf("%d of %d transactions committed, %d had read what changed, %d async prewrites, %d recoveries, %d requests, %d answers lost",
		committed, len(history), changed, kv.asyncs.Load(), kv.checks.Load(), kv.sent.Load(), kv.lost.Load())
	if committed < len(history)/10 {
		t.Errorf("only %d of %d transactions committed", committed, len(history))
	}
}

// nodeOf is another SQL node on the KV tier.
func nodeOf(t *testing.T, kv kv, tso *fakeTSO, noAsync bool) *Store {
	s := newStore(kv, tso, StoreOptions{DisableAsyncCommit: noAsync, FlushBytes: testFlushBytes})
	s.sleep = func(ctx context.Context, d time.Duration) error {
		tso.pass(d)
		return ctx.Err()
	}
	t.Cleanup(s.Close)
	return s
}

// mortalNode is a node that dies after a few writing requests.
func mortalNode(t *testing.T, kv *fakeKV, tso *fakeTSO, rnd *rand.Rand) *Store {
	m := &mortalKV{fakeKV: kv, lastWord: rnd.IntN(3)}
	m.left.Store(int64(rnd.IntN(5)))
	return nodeOf(t, m, tso, rnd.IntN(4) == 0)
}

// mortalKV is what a node sees that is cut off: a few writing requests come
// through, and then none.
type mortalKV struct {
	*fakeKV
	left atomic.Int64
	// lastWord is what becomes of the first request after that: 0 refused, 1 lost
	// on the way, 2 executed with its answer lost.
	lastWord int
}

func (f *mortalKV) Send(ctx context.Context, r kvclient.Region, req *kvpb.Request) (*kvpb.Response, error) {
	if req.GetPrewrite() == nil && req.GetCommit() == nil && req.GetBatchRollback() == nil && req.GetTxnHeartBeat() == nil {
		return f.fakeKV.Send(ctx, r, req)
	}
	left := f.left.Add(-1)
	switch {
	case left >= 0:
		return f.fakeKV.Send(ctx, r, req)
	case left < -1 || f.lastWord == 0:
		return nil, &kvclient.SendError{Err: errors.New("cut off")}
	}
	if f.lastWord == 2 {
		if resp, err := f.fakeKV.Send(ctx, r, req); err != nil {
			return resp, err
		}
	}
	if deciding(req) {
		return nil, kvclient.ErrUndetermined
	}
	return nil, &kvclient.SendError{MaybeExecuted: true, Err: context.DeadlineExceeded}
}

// recoverAll settles what dead nodes left locked.
func recoverAll(t *testing.T, s *Store, kv *fakeKV, tso *fakeTSO) {
	t.Helper()
	for try := 0; locksIn(t, kv) > 0; try++ {
		if try == 20 {
			t.Fatalf("%d locks are left", locksIn(t, kv))
		}
		tso.pass(time.Minute)
		sn := s.Snapshot(begin(t, s).StartTS())
		sc := sn.Scan(t.Context(), nil, nil, ScanOptions{})
		for {
			if _, err := sc.NextBlock(t.Context()); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
		lockEverything(t, s) // readers do not care about pessimistic locks
		s.tasks.Wait()
	}
}

func lockEverything(t *testing.T, s *Store) {
	t.Helper()
	tx, err := s.Begin(t.Context(), TxnOptions{Pessimistic: true})
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	if err := tx.RefreshForUpdate(t.Context()); err != nil {
		t.Fatal(err)
	}
	for k := range siKeys {
		if _, err := tx.Lock(t.Context(), [][]byte{siKey(k)}, LockOptions{Mode: NoWait}); err != nil {
			t.Logf("key %d: %v", k, err)
		}
	}
}

// checkOutcomes compares what clients were told with the records in the store.
func checkOutcomes(t *testing.T, s *Store, history []*record) {
	t.Helper()
	stored := make(map[uint64]map[string]uint64) // by start: key → commit
	for _, v := range versionsOf(t, s) {
		if stored[v.startTS] == nil {
			stored[v.startTS] = make(map[string]uint64)
		}
		stored[v.startTS][v.key] = v.commitTS
	}
	for _, r := range history {
		for k := range r.writes {
			got := stored[r.startTS][string(siKey(k))]
			switch {
			case r.commitTS != 0 && r.leaves(k) && got != r.commitTS:
				t.Errorf("key %d is committed at %d: %v", k, got, r)
			case r.commitTS == 0 && got != 0:
				t.Errorf("key %d is committed at %d though the client was told %v: %v", k, got, r.err, r)
			}
		}
	}
}

// valueOf tells client, transaction and key of a write apart.
func valueOf(c, n, key int) uint64 { return uint64(c+1)<<40 | uint64(n+1)<<16 | uint64(key+1) }

// realTime checks that the order of timestamps agrees with the order of events
// that do not overlap.
type realTime struct {
	t     *testing.T
	tso   *fakeTSO
	acked atomic.Uint64 // the greatest commit timestamp acknowledged
}

// began checks the start of a transaction that began when acked had this value.
func (o *realTime) began(startTS, acked uint64) {
	if startTS < acked {
		o.t.Errorf("started at %d after a commit at %d was acknowledged", startTS, acked)
	}
}

// committed checks a commit that was asked for when the oracle stood at asked.
func (o *realTime) committed(commitTS, asked uint64) {
	if commitTS <= asked {
		o.t.Errorf("committed at %d, before a read at %d that began earlier", commitTS, asked)
	}
	for {
		acked := o.acked.Load()
		if acked >= commitTS || o.acked.CompareAndSwap(acked, commitTS) {
			return
		}
	}
}

func runRandomTxn(order *realTime, s *Store, rnd *rand.Rand, c, n int) *record {
	t := order.t
	ctx := context.Background()
	r := &record{client: c, n: n, strict: rnd.IntN(2) == 0, writes: map[int]uint64{}, inserted: map[int]bool{}, locked: map[int]uint64{}}
	acked := order.acked.Load()
	o := TxnOptions{Serializable: r.strict, Pessimistic: rnd.IntN(3) == 0}
	o.Pipelined = !o.Serializable && !o.Pessimistic && rnd.IntN(2) == 0
	tx, err := s.Begin(ctx, o)
	if err != nil {
		t.Error(err)
		return r
	}
	r.startTS = tx.StartTS()
	order.began(r.startTS, acked)
	r.views = []view{{r.startTS, map[int]uint64{}}}
	for range 1 + rnd.IntN(6) {
		views := len(r.views)
		err := randomOp(ctx, tx, rnd, r)
		if tx.Pessimistic() && order.tso.next.Load()>>18-r.startTS>>18 >= uint64(s.lockTTL/time.Millisecond) {
			// Its locks may have expired: time flies, and heart beats do not know. What it has
			// read under them is not checked.
			r.views, err = r.views[:min(views, len(r.views))], errors.New("too late")
		}
		if err != nil {
			r.err = err
			tx.Rollback()
			return r
		}
	}
	asked := order.tso.next.Load()
	if r.commitTS, r.err = tx.Commit(ctx); r.commitTS != 0 {
		order.committed(r.commitTS, asked)
	}
	r.unknown = errors.Is(r.err, ErrUndetermined)
	return r
}

func randomOp(ctx context.Context, tx *Txn, rnd *rand.Rand, r *record) error {
	k := rnd.IntN(siKeys)
	if tx.Pessimistic() && rnd.IntN(4) > 0 {
		return lockingOp(ctx, tx, rnd, r, k)
	}
	if rnd.IntN(8) == 0 { // a statement with a snapshot of its own
		ts, err := tx.store.CurrentTS(ctx)
		if err != nil {
			return err
		}
		tx.ReadAt(ts)
		r.views = append(r.views, view{ts, map[int]uint64{}})
	}
	op := rnd.IntN(8)
	if tx.Pessimistic() {
		op = rnd.IntN(4) // what is written has to be locked
	}
	switch op {
	case 0, 1:
		v, err := tx.Get(ctx, siKey(k))
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		return r.saw(k, v)
	case 2:
		return scanSome(ctx, tx, rnd, r)
	case 3:
		keys := []int{k, rnd.IntN(siKeys), rnd.IntN(siKeys)}
		vals, err := tx.BatchGet(ctx, [][]byte{siKey(keys[0]), siKey(keys[1]), siKey(keys[2])})
		if err != nil {
			return err
		}
		for i, v := range vals {
			if err := r.saw(keys[i], v); err != nil {
				return err
			}
		}
	case 4:
		r.writes[k] = 0
		return tx.Delete(siKey(k))
	case 5:
		if _, mine := r.writes[k]; mine {
			return nil
		}
		r.inserted[k] = true
		r.writes[k] = valueOf(r.client, r.n, k)
		return tx.Insert(siKey(k), binary.BigEndian.AppendUint64(nil, r.writes[k]))
	default:
		r.writes[k] = valueOf(r.client, r.n, k)
		return tx.Set(siKey(k), binary.BigEndian.AppendUint64(nil, r.writes[k]))
	}
	return nil
}

// lockingOp is a statement that locks what it reads and writes. It does not wait.
func lockingOp(ctx context.Context, tx *Txn, rnd *rand.Rand, r *record, k int) error {
	o := LockOptions{Mode: NoWait}
	st := tx.BeginStatement()
	writes, views := maps.Clone(r.writes), len(r.views)
	for try := 0; ; try++ {
		tx.ReadAt(tx.ForUpdateTS())
		r.views = append(r.views, view{tx.ForUpdateTS(), map[int]uint64{}})
		var err error
		if rnd.IntN(3) == 0 {
			err = lockedRead(ctx, tx, rnd, r, k, o)
		} else if err = lockedWrite(ctx, tx, rnd, r, k); err == nil {
			err = tx.LockWritten(ctx, st, o)
		}
		var conflict *WriteConflictError
		switch {
		case err == nil:
			tx.Keep(ctx, st)
			for key, h := range tx.locks.held {
				if _, had := r.locked[siNumber(key)]; !had && !h.shared {
					r.locked[siNumber(key)] = h.ts
				}
			}
			return nil
		case try < 3 && errors.As(err, &conflict) && conflict.Reason == kvpb.ConflictReason_CONFLICT_REASON_PESSIMISTIC_RETRY:
			if err := tx.Again(ctx, st); err != nil {
				return err
			}
			r.writes, r.views = maps.Clone(writes), r.views[:views]
		default:
			tx.TakeBack(ctx, st)
			r.writes = writes
			var locked *LockNowaitError
			if errors.As(err, &locked) {
				return nil // the statement failed, and the transaction goes on
			}
			return err
		}
	}
}

func siNumber(key string) (k int) {
	if _, err := fmt.Sscanf(key, "k%d", &k); err != nil {
		panic(err)
	}
	return k
}

// lockedRead locks a key and takes the value it is answered with.
func lockedRead(ctx context.Context, tx *Txn, rnd *rand.Rand, r *record, k int, o LockOptions) error {
	if _, mine := r.writes[k]; mine {
		return nil
	}
	o.Shared, o.ReturnValues, o.IfExists = rnd.IntN(3) == 0, true, rnd.IntN(3) == 0
	o.AnyVersion = !o.Shared && !o.IfExists && rnd.IntN(3) == 0
	got, err := tx.Lock(ctx, [][]byte{siKey(k)}, o)
	if err != nil {
		return err
	}
	read := view{tx.ForUpdateTS(), map[int]uint64{}}
	if got[0].Exists {
		read.reads[k] = binary.BigEndian.Uint64(got[0].Value)
	} else {
		read.reads[k] = 0
	}
	r.views = append(r.views, read, view{tx.readTS, map[int]uint64{}})
	return nil
}

// lockedWrite reads and writes keys that are to be locked.
func lockedWrite(ctx context.Context, tx *Txn, rnd *rand.Rand, r *record, k int) error {
	if rnd.IntN(4) == 0 {
		if err := scanSome(ctx, tx, rnd, r); err != nil {
			return err
		}
	} else {
		v, err := tx.Get(ctx, siKey(k))
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		if err := r.saw(k, v); err != nil {
			return err
		}
	}
	switch rnd.IntN(5) {
	case 0:
		tx.LockKey(siKey(k))
		return nil
	case 1:
		r.writes[k] = 0
		return tx.Delete(siKey(k))
	}
	r.writes[k] = valueOf(r.client, r.n, k)
	return tx.Set(siKey(k), binary.BigEndian.AppendUint64(nil, r.writes[k]))
}

// saw notes a read, which must agree with own writes and earlier reads.
func (r *record) saw(k int, v []byte) error {
	got := uint64(0)
	if v != nil {
		got = binary.BigEndian.Uint64(v)
	}
	if own, ok := r.writes[k]; ok {
		if own != got {
			return fmt.Errorf("BUG: key %d: wrote %x, read %x", k, own, got)
		}
		return nil
	}
	reads := r.views[len(r.views)-1].reads
	if before, ok := reads[k]; ok && before != got {
		return fmt.Errorf("BUG: key %d: read %x, then %x", k, before, got)
	}
	reads[k] = got
	return nil
}

// takesEffect lists the timestamps at one of which all reads of a serializable
// transaction that did not fail must hold.
func (r *record) takesEffect() (list []uint64) {
	for k := range r.writes {
		if r.commitTS != 0 && r.leaves(k) {
			return []uint64{r.commitTS}
		}
	}
	for _, v := range r.views {
		list = append(list, v.ts)
	}
	for _, ts := range r.locked {
		list = append(list, ts)
	}
	return list
}

// holdsAt reports whether all reads are of what value says there is at ts.
func (r *record) holdsAt(ts uint64, value func(k int) uint64) bool {
	for _, v := range r.views {
		for k, got := range v.reads {
			own, mine := r.writes[k]
			if want := value(k); want != got && !(mine && want == own && ts == r.commitTS) {
				return false
			}
		}
	}
	return true
}

func scanSome(ctx context.Context, tx *Txn, rnd *rand.Rand, r *record) error {
	lo := rnd.IntN(siKeys)
	hi := lo + 1 + rnd.IntN(siKeys-lo)
	sc := tx.Scan(ctx, siKey(lo), siKey(hi), ScanOptions{Reverse: rnd.IntN(2) == 0})
	found := make(map[int][]byte)
	for {
		b, err := sc.NextBlock(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		for i := range b.Len() {
			var k int
			if _, err := fmt.Sscanf(string(b.Key(i)), "k%d", &k); err != nil {
				return err
			}
			found[k] = slices.Clone(b.Value(i))
		}
	}
	for k := lo; k < hi; k++ {
		if err := r.saw(k, found[k]); err != nil {
			return err
		}
	}
	return nil
}

// settleUnknown asks the store what became of transactions without an answer: all
// or none of their writes must be there.
func settleUnknown(t *testing.T, s *Store, history []*record) {
	for _, r := range history {
		if !r.unknown {
			continue
		}
		for _, other := range versionsOf(t, s) {
			if other.startTS == r.startTS {
				r.commitTS = other.commitTS
			}
		}
	}
}

// checkHistory replays the commits in timestamp order against every read.
func checkHistory(t *testing.T, history []*record) {
	t.Helper()
	type version struct{ ts, value uint64 }
	versions := make(map[int][]version)
	var commits []*record
	for _, r := range history {
		if r.err != nil && len(r.err.Error()) > 3 && r.err.Error()[:3] == "BUG" {
			t.Errorf("%v: %v", r, r.err)
		}
		if r.commitTS != 0 {
			commits = append(commits, r)
		}
	}
	slices.SortFunc(commits, func(a, b *record) int { return int(int64(a.commitTS) - int64(b.commitTS)) })
	at := func(k int, ts uint64) (v version) {
		for _, x := range versions[k] {
			if x.ts <= ts {
				v = x
			}
		}
		return v
	}
	for _, r := range commits {
		if r.commitTS <= r.startTS {
			t.Errorf("commit at or before start: %v", r)
		}
		for k := range r.writes {
			since := r.startTS
			if ts, ok := r.locked[k]; ok {
				since = ts
			}
			if vs := versions[k]; r.leaves(k) && len(vs) > 0 && vs[len(vs)-1].ts > since {
				t.Errorf("lost update: key %d has version %d: %v", k, vs[len(vs)-1].ts, r)
			}
			if r.inserted[k] && at(k, r.startTS).value != 0 {
				t.Errorf("insert over an existing key %d: %v", k, r)
			}
		}
		for k, v := range r.writes {
			if r.leaves(k) {
				versions[k] = append(versions[k], version{r.commitTS, v})
			}
		}
	}
	for _, r := range history {
		for _, v := range r.views {
			for k, got := range v.reads {
				if want := at(k, v.ts); want.value != got {
					t.Errorf("key %d at %d: read %x, want %x (commit %d): %v", k, v.ts, got, want.value, want.ts, r)
				}
			}
		}
		holds := func(ts uint64) bool { return r.holdsAt(ts, func(k int) uint64 { return at(k, ts).value }) }
		if r.strict && r.err == nil && !slices.ContainsFunc(r.takesEffect(), holds) {
			t.Errorf("what a serializable transaction has read holds at none of %d: %v", r.takesEffect(), r)
		}
	}
}

// checkFinal reads everything once more, forward and backward.
func checkFinal(t *testing.T, s *Store, tso *fakeTSO, history []*record) {
	t.Helper()
	ctx := context.Background()
	tso.pass(time.Minute) // what was left locked has expired
	tx, err := s.Begin(ctx, TxnOptions{})
	if err != nil {
		t.Fatal(err)
	}
	final := &record{startTS: tx.StartTS(), views: []view{{tx.StartTS(), map[int]uint64{}}}}
	for _, reverse := range []bool{false, true} {
		sc := tx.Scan(ctx, nil, nil, ScanOptions{Reverse: reverse})
		seen := make(map[int]uint64)
		for {
			b, err := sc.NextBlock(ctx)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			for i := range b.Len() {
				var k int
				if _, err := fmt.Sscanf(string(b.Key(i)), "k%d", &k); err != nil {
					t.Fatal(err)
				}
				seen[k] = binary.BigEndian.Uint64(b.Value(i))
			}
		}
		for k := range siKeys {
			final.views[0].reads[k] = seen[k]
		}
		checkHistory(t, append(slices.Clone(history), final))
	}
}
