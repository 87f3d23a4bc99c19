package txncmd_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cairndb/cairn/kvnode/mvcc"
	"github.com/cairndb/cairn/kvnode/txncmd"
	"github.com/cairndb/cairn/kvnode/txncmd/regiontest"
	"github.com/cairndb/cairn/proto/kvpb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// model is the dumb twin of a region: per key a lock and a list of versions, with
// the rules in their plainest form. It knows two-phase commits only.
type model struct {
	locks map[string]*modelLock
	// settled: by key, what became of transactions.
	commits   map[string][]modelCommit // in order of commit
	rollbacks map[string]map[uint64]bool
}

type modelLock struct {
	start   uint64
	primary string
	op      kvpb.MutationOp
	value   string
	gen     uint64
}

type modelCommit struct {
	start, commit uint64
	op            kvpb.MutationOp
	value         string
}

func newModel() *model {
	return &model{map[string]*modelLock{}, map[string][]modelCommit{}, map[string]map[uint64]bool{}}
}

func (m *model) committed(key string, start uint64) uint64 {
	for _, c := range m.commits[key] {
		if c.start == start {
			return c.commit
		}
	}
	return 0
}

func (m *model) get(key string, ts uint64) (string, bool) {
	v, ok := "", false
	for _, c := range m.commits[key] {
		if c.commit <= ts && c.op != kvpb.MutationOp_MUTATION_OP_LOCK {
			v, ok = c.value, c.op != kvpb.MutationOp_MUTATION_OP_DELETE
		}
	}
	return v, ok
}

// newest is the timestamp of the newest record of key, of whatever kind that
// still stands: unprotected rollbacks may be collapsed by later ones, but the
// newest record never is. Without rollbacks they do not count.
func (m *model) newest(key string, rollbacks bool) uint64 {
	n := uint64(0)
	for _, c := range m.commits[key] {
		n = max(n, c.commit)
	}
	for ts := range m.rollbacks[key] {
		if rollbacks {
			n = max(n, ts)
		}
	}
	return n
}

// forgotten says that key may have lost the record that start was rolled back, which a prewrite in a generation
// looks for behind those of younger transactions. (The primary's is protected, and decides.)
func (m *model) forgotten(key string, start uint64) bool {
	return m.rollbacks[key][start] && m.newest(key, true) > start && m.newest(key, false) < start
}

// prewrite returns the kind of outcome of each step: "ok", "locked", "conflict",
// "exists" or "committed".
func (m *model) prewrite(primary string, start, gen uint64, muts []*kvpb.Mutation) string {
	locked := false
	for _, mu := range muts {
		k := string(mu.Key)
		if l := m.locks[k]; l != nil {
			if l.start == start {
				_, exists := m.get(k, mvcc.MaxTS)
				exists = l.op == kvpb.MutationOp_MUTATION_OP_PUT || exists && l.op == kvpb.MutationOp_MUTATION_OP_LOCK
				if gen > l.gen && mu.Op == kvpb.MutationOp_MUTATION_OP_INSERT && exists {
					return "exists"
				}
				continue
			}
			if m.committed(k, start) != 0 {
				return "committed"
			}
			locked = true
			continue
		}
		if n := m.newest(k, gen == 0); n > start || m.rollbacks[k][start] && (gen > 0 || n == start) {
			if m.committed(k, start) != 0 {
				return "committed"
			}
			return "conflict"
		}
		if mu.Op == kvpb.MutationOp_MUTATION_OP_INSERT {
			if _, ok := m.get(k, mvcc.MaxTS); ok {
				return "exists"
			}
		}
	}
	if locked {
		return "locked"
	}
	for _, mu := range muts {
		if l := m.locks[string(mu.Key)]; l == nil || gen > l.gen && mu.Op != kvpb.MutationOp_MUTATION_OP_LOCK {
			op := mu.Op
			if op == kvpb.MutationOp_MUTATION_OP_INSERT {
				op = kvpb.MutationOp_MUTATION_OP_PUT
			}
			m.locks[string(mu.Key)] = &modelLock{start, primary, op, string(mu.Value), gen}
		}
	}
	return "ok"
}

func (m *model) commit(key string, start, commit uint64) string {
	l := m.locks[key]
	if l == nil || l.start != start {
		if m.committed(key, start) != 0 {
			return "ok"
		}
		return "not found"
	}
	delete(m.locks, key)
	m.commits[key] = append(m.commits[key], modelCommit{start, commit, l.op, l.value})
	return "ok"
}

func (m *model) rollback(key string, start uint64) string {
	if m.committed(key, start) != 0 {
		return "committed"
	}
	if l := m.locks[key]; l != nil && l.start == start {
		delete(m.locks, key)
	}
	if m.rollbacks[key] == nil {
		m.rollbacks[key] = map[uint64]bool{}
	}
	m.rollbacks[key][start] = true
	return "ok"
}

func outcomeKind(ke *kvpb.KeyError) string {
	switch {
	case ke == nil:
		return "ok"
	case ke.GetLocked() != nil:
		return "locked"
	case ke.GetConflict() != nil:
		return "conflict"
	case ke.GetAlreadyExist() != nil:
		return "exists"
	case ke.GetTxnLockNotFound() != nil:
		return "not found"
	case strings.Contains(ke.GetAbort(), "is committed"):
		return "committed"
	}
	return ke.String()
}

// TestTwin runs random commands, each perhaps twice, against the executor and the
// model and compares answers and what is readable.
func TestTwin(t *testing.T) {
	for _, seed := range []uint64{1, 2, uint64(time.Now().UnixNano())} {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { runTwin(t, rand.New(rand.NewPCG(seed, 0))) })
	}
}

const twinKeys = 6

type twin struct {
	st    *regiontest.Store
	ex    *txncmd.Executor
	m     *model
	clock uint64
	// open are transactions that prewrote: start → keys.
	open map[uint64][]string
}

func runTwin(t *testing.T, rnd *rand.Rand) {
	st, err := regiontest.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	if rnd.IntN(2) == 0 {
		st.SpillLocks(2)
	}
	w := &twin{st: st, ex: txncmd.New(txncmd.Options{Regions: st}), m: newModel(), clock: 10, open: map[uint64][]string{}}
	for i := range 3000 {
		w.clock += 1 + uint64(rnd.IntN(3))
		if msg := w.step(rnd); msg != "" {
			t.Fatalf("step %d: %s\n%s", i, msg, dumpStore(t, st))
		}
		if i%50 == 0 {
			w.compareAll(t, rnd)
		}
	}
}

func (w *twin) context() *kvpb.Context { return regiontest.Context(w.st.Locate(nil)) }

func (w *twin) step(rnd *rand.Rand) string {
	starts := slices.Sorted(maps.Keys(w.open))
	if len(starts) == 0 || rnd.IntN(3) == 0 {
		return w.prewrite(rnd, w.clock-uint64(rnd.IntN(20))%w.clock)
	}
	start := starts[rnd.IntN(len(starts))]
	keys := w.open[start]
	switch rnd.IntN(4) {
	case 0:
		return w.prewrite(rnd, start)
	case 1, 2:
		if len(starts) > 6 || rnd.IntN(3) == 0 {
			delete(w.open, start)
		}
		key := keys[rnd.IntN(len(keys))]
		ke := w.ex.Commit(context.Background(), &kvpb.CommitRequest{
			Context: w.context(), StartTs: start, CommitTs: w.clock, Keys: [][]byte{[]byte(key)},
		}).Error
		if got, want := outcomeKind(ke), w.m.commit(key, start, w.clock); got != want {
			return fmt.Sprintf("commit %s of %d at %d: got %s, want %s", key, start, w.clock, got, want)
		}
	default:
		key := keys[rnd.IntN(len(keys))]
		ke := w.ex.BatchRollback(context.Background(), &kvpb.BatchRollbackRequest{
			Context: w.context(), StartTs: start, Keys: [][]byte{[]byte(key)},
		}).Error
		if got, want := outcomeKind(ke), w.m.rollback(key, start); got != want {
			return fmt.Sprintf("rollback %s of %d: got %s, want %s", key, start, got, want)
		}
	}
	return ""
}

func (w *twin) prewrite(rnd *rand.Rand, start uint64) string {
	var muts []*kvpb.Mutation
	for _, k := range rnd.Perm(twinKeys)[:1+rnd.IntN(3)] {
		op := kvpb.MutationOp(rnd.IntN(4))
		mu := &kvpb.Mutation{Op: op, Key: fmt.Appendf(nil, "k%d", k)}
		if op == kvpb.MutationOp_MUTATION_OP_PUT || op == kvpb.MutationOp_MUTATION_OP_INSERT {
			mu.Value = fmt.Appendf(nil, "v%d/%d%s", start, k, strings.Repeat("x", rnd.IntN(2)*1100))
		}
		muts = append(muts, mu)
	}
	// Commit timestamps are unique, so a start that was one is not used.
	for _, list := range w.m.commits {
		for _, c := range list {
			if c.commit == start {
				return ""
			}
		}
	}
	gen := uint64(rnd.IntN(4))
	if gen > 0 && slices.ContainsFunc(muts, func(mu *kvpb.Mutation) bool { return w.m.forgotten(string(mu.Key), start) }) {
		return ""
	}
	resp := w.ex.Prewrite(context.Background(), &kvpb.PrewriteRequest{
		Context: w.context(), Mutations: muts, Primary: muts[0].Key, StartTs: start, LockTtlMs: 1000, Generation: gen,
	})
	got := "ok"
	switch {
	case resp.OnePcCommitTs != 0:
		got = "committed"
	case len(resp.Errors) > 0:
		got = outcomeKind(resp.Errors[0])
	}
	want := w.m.prewrite(string(muts[0].Key), start, gen, muts)
	if got != want {
		return fmt.Sprintf("prewrite %v at %d: got %s, want %s", muts, start, got, want)
	}
	if got == "ok" {
		for _, mu := range muts {
			w.open[start] = append(w.open[start], string(mu.Key))
		}
	}
	return ""
}

// compareAll reads every key at several timestamps, through all locks.
func (w *twin) compareAll(t *testing.T, rnd *rand.Rand) {
	t.Helper()
	c := w.context()
	for _, l := range w.m.locks {
		c.ResolvedLocks = append(c.ResolvedLocks, l.start)
	}
	for _, ts := range []uint64{w.clock, uint64(rnd.Int64N(int64(w.clock)) + 1), mvcc.MaxTS} {
		want := ""
		for k := range twinKeys {
			key := fmt.Sprintf("k%d", k)
			v, ok := w.m.get(key, ts)
			if ok {
				want += key + "=" + showValue([]byte(v)) + "\n"
			}
			got := w.ex.Get(context.Background(), &kvpb.GetRequest{Context: c, Key: []byte(key), ReadTs: ts})
			if got.Error != nil || got.NotFound == ok || string(got.Value) != v {
				t.Fatalf("get %s at %d: got %v, want %q %v", key, ts, got, v, ok)
			}
		}
		resp := w.ex.Scan(context.Background(), &kvpb.ScanRequest{Context: c, ReadTs: ts})
		var out strings.Builder
		showBlock(&out, resp.Pairs)
		if out.String() != want {
			t.Fatalf("scan at %d: got\n%swant\n%s", ts, out.String(), want)
		}
	}
}
