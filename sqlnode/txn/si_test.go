package txn

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"
)

// TestSnapshotIsolation runs clients against a KV tier that loses answers,
// repeats requests and splits regions, records what they saw, and then checks
// every read against a model that knows the order of commits: reads are those of
// the snapshot, no update is lost, transactions are atomic.
func TestSnapshotIsolation(t *testing.T) {
	for _, seed := range []uint64{1, 2, 3, uint64(time.Now().UnixNano())} {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { runHistory(t, seed) })
	}
}

const (
	siKeys    = 24
	siClients = 6
	siTxns    = 60
)

func siKey(i int) []byte { return fmt.Appendf(nil, "k%02d", i) }

// record is what one transaction did, as its client saw it.
type record struct {
	client, n int
	startTS   uint64
	commitTS  uint64 // 0 = not known to be committed
	unknown   bool   // result undetermined
	reads     map[int]uint64
	inserted  map[int]bool
	writes    map[int]uint64 // 0 = delete
	err       error
}

// leaves reports whether the write of k leaves a version: a key inserted and
// deleted again is only checked.
func (r *record) leaves(k int) bool { return !r.inserted[k] || r.writes[k] != 0 }

func (r *record) String() string {
	return fmt.Sprintf("client %d txn %d start %d commit %d unknown %v reads %v writes %v", r.client, r.n, r.startTS, r.commitTS, r.unknown, r.reads, r.writes)
}

func runHistory(t *testing.T, seed uint64) {
	s, kv, tso := newTestStore(t)
	kv.faults = rand.New(rand.NewPCG(seed, 1))
	splits := rand.New(rand.NewPCG(seed, 2))
	var mu sync.Mutex
	var history []*record
	var wg sync.WaitGroup
	for c := range siClients {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, uint64(c)+10))
			for n := range siTxns {
				r := runRandomTxn(t, s, rnd, c, n)
				mu.Lock()
				history = append(history, r)
				if splits.IntN(20) == 0 {
					kv.st.Split(siKey(splits.IntN(siKeys)))
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	kv.mu.Lock()
	kv.faults = nil
	kv.mu.Unlock()
	settleUnknown(t, s, history)
	checkHistory(t, history)
	checkFinal(t, s, tso, history)
	committed := 0
	for _, r := range history {
		if r.commitTS != 0 {
			committed++
		}
	}
	t.Logf("%d of %d transactions committed, %d requests, %d answers lost", committed, len(history), kv.sent.Load(), kv.lost.Load())
	if committed < len(history)/10 {
		t.Errorf("only %d of %d transactions committed", committed, len(history))
	}
}

// valueOf tells client, transaction and key of a write apart.
func valueOf(c, n, key int) uint64 { return uint64(c+1)<<40 | uint64(n+1)<<16 | uint64(key+1) }

func runRandomTxn(t *testing.T, s *Store, rnd *rand.Rand, c, n int) *record {
	ctx := context.Background()
	r := &record{client: c, n: n, reads: map[int]uint64{}, writes: map[int]uint64{}, inserted: map[int]bool{}}
	tx, err := s.Begin(ctx, TxnOptions{})
	if err != nil {
		t.Error(err)
		return r
	}
	r.startTS = tx.StartTS()
	for range 1 + rnd.IntN(6) {
		if err := randomOp(ctx, tx, rnd, r); err != nil {
			r.err = err
			tx.Rollback()
			return r
		}
	}
	r.commitTS, r.err = tx.Commit(ctx)
	r.unknown = errors.Is(r.err, ErrUndetermined)
	return r
}

func randomOp(ctx context.Context, tx *Txn, rnd *rand.Rand, r *record) error {
	k := rnd.IntN(siKeys)
	switch rnd.IntN(8) {
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
	if before, ok := r.reads[k]; ok && before != got {
		return fmt.Errorf("BUG: key %d: read %x, then %x", k, before, got)
	}
	r.reads[k] = got
	return nil
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
			if vs := versions[k]; r.leaves(k) && len(vs) > 0 && vs[len(vs)-1].ts > r.startTS {
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
		for k, got := range r.reads {
			if want := at(k, r.startTS); want.value != got {
				t.Errorf("key %d at %d: read %x, want %x (commit %d): %v", k, r.startTS, got, want.value, want.ts, r)
			}
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
	final := &record{startTS: tx.StartTS(), reads: map[int]uint64{}}
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
			final.reads[k] = seen[k]
		}
		checkHistory(t, append(slices.Clone(history), final))
	}
}
