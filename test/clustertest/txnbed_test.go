package clustertest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cairndb/cairn/kvnode/engine"
	"github.com/cairndb/cairn/kvnode/kvclient/txn"
	"github.com/cairndb/cairn/kvnode/mvcc"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/test/isolation"
)

// txnBed is a cluster with nodes that run transactions.
type txnBed struct {
	c       *cluster
	bug     string // planted; "" = none
	spread  int    // so many transactions of a hundred read from replicas that do not lead
	answers *answers
	garbage *garbage       // nil = nothing is collected
	late    sync.WaitGroup // copies of requests on their way
	calm    atomic.Bool    // nothing is lost on the way any more
	ticks   atomic.Int64   // the last tick
	next    atomic.Uint64  // the last version

	mu      sync.Mutex
	nodes   []*sqlNode // alive; protected by mu
	all     []*sqlNode // with the dead ones; protected by mu
	history []*record  // protected by mu

	strangers []string // start timestamps of versions that nobody of the history wrote
}

const sqlNodes = 3

func newTxnBed(c *cluster, bug string) *txnBed {
	b := &txnBed{c: c, bug: bug, spread: 30, answers: newAnswers()}
	for range sqlNodes {
		b.nodes = append(b.nodes, b.open())
	}
	return b
}

// open starts a node. Every other one does without async commit.
func (b *txnBed) open() *sqlNode {
	n := newSQLNode(b, uint64(1000+len(b.all)), txn.StoreOptions{FlushBytes: 250, DisableAsyncCommit: len(b.all)%2 == 1})
	b.all = append(b.all, n)
	return n
}

func (b *txnBed) node(rng *rand.Rand) *sqlNode {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.nodes[rng.IntN(len(b.nodes))]
}

// tick is a time that orders what does not happen at the same time.
func (b *txnBed) tick() int64 { return b.ticks.Add(1) }

func (b *txnBed) version() isolation.Version { return isolation.Version(b.next.Add(1)) }

func (b *txnBed) note(r *record) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.history = append(b.history, r)
}

// trouble is what happens to nodes: they die, or do not reach some stores.
func (b *txnBed) trouble(stop <-chan struct{}, rng *rand.Rand) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(time.Duration(rng.Int64N(int64(2 * time.Second)))):
		}
		if rng.IntN(2) == 0 {
			b.kill(rng)
		} else {
			b.cut(rng)
		}
	}
}

// kill ends a node at once. What it has locked stays for others to find.
func (b *txnBed) kill(rng *rand.Rand) {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := rng.IntN(len(b.nodes))
	b.nodes[i].dead.Store(true)
	b.nodes[i] = b.open()
	b.c.counts.add("dead nodes", 1)
}

// cut keeps a node from some stores for a while.
func (b *txnBed) cut(rng *rand.Rand) {
	n := b.node(rng)
	var cut []uint64
	for _, s := range b.c.nodes {
		if rng.IntN(3) == 0 {
			n.setCut(s.id, true)
			cut = append(cut, s.id)
		}
	}
	b.c.counts.add("cut nodes", 1)
	time.Sleep(time.Duration(rng.Int64N(int64(4 * time.Second))))
	for _, id := range cut {
		n.setCut(id, false)
	}
}

// end lets the cluster come to rest, settles all locks, and judges the history.
func (b *txnBed) end() {
	if b.garbage != nil {
		b.garbage.end()
	}
	b.calm.Store(true)
	for _, n := range b.all {
		for _, s := range b.c.nodes {
			n.setCut(s.id, false)
		}
	}
	b.late.Wait()
	b.c.settle()
	b.settleLocks()
	for _, n := range b.all {
		n.close()
		b.countCommits(n)
		b.countReplicaReads(n)
	}
	b.late.Wait() // a request that was under way when it became calm may be repeated still
	b.judge()
}

// settleLocks has a new node meet all locks until there are none.
func (b *txnBed) settleLocks() {
	n := b.open()
	for try := 0; ; try++ {
		b.finalRead(n)
		left := b.locks()
		if len(left) == 0 {
			return
		}
		if try == 20 {
			b.c.fail("%d locks are left: %v", len(left), left)
		}
		tx, err := n.store.Begin(context.Background(), txn.TxnOptions{})
		if err != nil {
			b.c.fail("begin: %v", err)
		}
		for _, key := range left {
			tx.LockKey([]byte(key))
		}
		if _, err := tx.Commit(context.Background()); err != nil && try > 10 {
			b.c.fail("locks of %v are not settled: %v", left, err)
		}
		time.Sleep(2 * time.Second)
	}
}

// finalRead is one more transaction that reads everything.
func (b *txnBed) finalRead(n *sqlNode) {
	r := &record{how: "final"}
	r.Name = fmt.Sprintf("final %d", b.tick())
	r.Start.From = b.tick()
	tx, err := n.store.Begin(context.Background(), txn.TxnOptions{})
	if err != nil {
		b.c.fail("begin: %v", err)
	}
	r.StartTS = tx.StartTS()
	r.Start.To = b.tick()
	for _, reverse := range []bool{false, true} {
		found, err := scanAll(context.Background(), tx, "", "", reverse)
		if err != nil {
			var words []string
			if old := new(txn.TooOldError); errors.As(err, &old) {
				words = append(words, fmt.Sprint(old.TS))
			}
			b.c.fail("final read: %v; commands about it:\n%s", err, b.c.trace.about(words))
		}
		for _, key := range cells {
			value, ok := found[key]
			r.Ops = append(r.Ops, readOf(key, value, !ok))
		}
	}
	b.note(r)
}

// leaders calls fn with the store of every region's leader and the bounds of the region.
func (b *txnBed) leaders(fn func(db *engine.DB, m *kvpb.Region)) {
	for _, r := range b.c.pd.all() {
		p := b.c.node(r.GetLeader().GetStoreId()).run.Load()
		if p == nil {
			b.c.fail("store %d does not run", r.GetLeader().GetStoreId())
		}
		fn(p.store.Engine(), r.GetRegion())
	}
}

func (b *txnBed) each(cf engine.CF, fn func(it *engine.Iter, value []byte)) {
	b.leaders(func(db *engine.DB, m *kvpb.Region) {
		it, err := db.NewIter(engine.IterOptions{CF: cf, Lower: m.GetStartKey(), Upper: m.GetEndKey()})
		if err != nil {
			b.c.fail("%v", err)
		}
		for ok := it.First(); ok; ok = it.Next() {
			value, err := it.Value()
			if err != nil {
				b.c.fail("%v", err)
			}
			fn(it, value)
		}
		if err := it.Close(); err != nil {
			b.c.fail("%v", err)
		}
	})
}

// locks lists the keys that are locked.
func (b *txnBed) locks() (out []string) {
	b.each(engine.CFLock, func(it *engine.Iter, _ []byte) { out = append(out, string(it.Key())) })
	return out
}

// stored is a version that is there.
type stored struct {
	startTS, commitTS uint64
	absent            bool
}

// versions lists what is stored of each key, oldest first, and when each transaction was committed, by its start. No
// transaction may be committed and rolled back on one key.
func (b *txnBed) versions() (versions map[string][]stored, commits map[uint64]uint64) {
	versions, commits = map[string][]stored{}, map[uint64]uint64{}
	type mark struct {
		key string
		ts  uint64
	}
	rolledBack, committed := map[mark]bool{}, map[mark]uint64{}
	there := map[keptKey]bool{}
	record := func(key string, ts uint64, w mvcc.Write) {
		if w.OverlappedRollback {
			rolledBack[mark{key, ts}] = true
		}
		if w.Type == mvcc.WriteRollback {
			rolledBack[mark{key, w.StartTS}] = true
			return
		}
		if other, ok := committed[mark{key, w.StartTS}]; ok {
			b.c.fail("the transaction of %d is committed on %s at %d and at %d", w.StartTS, key, other, ts)
		}
		committed[mark{key, w.StartTS}] = ts
		if other, ok := commits[w.StartTS]; ok && other != ts {
			b.c.fail("the transaction of %d is committed at %d, and on %s at %d", w.StartTS, other, key, ts)
		}
		commits[w.StartTS] = ts
		if w.Type != mvcc.WriteLock {
			versions[key] = append(versions[key], stored{w.StartTS, ts, w.Type == mvcc.WriteDelete})
		}
	}
	b.each(engine.CFWrite, func(it *engine.Iter, value []byte) {
		w, err := mvcc.ParseWrite(value)
		if err != nil {
			b.c.fail("%v", err)
		}
		there[keptKey{string(it.Key()), it.TS()}] = true
		record(string(it.Key()), it.TS(), w)
	})
	if b.garbage != nil {
		b.garbage.add(there, record)
	}
	for m := range committed {
		if rolledBack[m] {
			b.c.fail("the transaction of %d is committed and rolled back on %s; commands about it:\n%s", m.ts, m.key, b.c.trace.about([]string{fmt.Sprint(m.ts)}))
		}
	}
	for _, list := range versions {
		slices.SortFunc(list, func(x, y stored) int { return cmp.Compare(x.commitTS, y.commitTS) })
	}
	return versions, commits
}

// unknownVersion begins the versions that nobody of the history wrote.
const unknownVersion = isolation.Version(1) << 62

// judge compares what clients saw with what is there.
func (b *txnBed) judge() {
	there, commits := b.versions()
	h := &isolation.History{Order: map[string][]isolation.Version{}}
	wrote := map[uint64]map[string]isolation.Version{} // by start
	for _, r := range b.history {
		if at := commits[r.StartTS]; r.Outcome == isolation.Unknown {
			r.CommitTS = at
		} else if r.CommitTS != 0 && at != 0 && at != r.CommitTS {
			b.c.fail("%s was told that it is committed at %d, and is at %d", r.Name, r.CommitTS, at)
		}
		for _, o := range r.vanished {
			if slices.ContainsFunc(there[o.Key], func(s stored) bool { return s.startTS == r.StartTS && s.absent }) {
				r.Ops = append(r.Ops, o)
			}
		}
		r.settle()
		last := map[string]isolation.Version{}
		for _, o := range r.Ops {
			if o.Write {
				last[o.Key] = o.Version
			}
		}
		if len(last) > 0 {
			wrote[cmp.Or(r.again, r.StartTS)] = last
		}
		if r.err != nil {
			r.Name += fmt.Sprintf(" (%v)", r.err)
		}
		if r.how != "newest" {
			h.Txns = append(h.Txns, r.Txn)
		}
	}
	strange := unknownVersion
	for key, list := range there {
		for _, s := range list {
			v, ok := wrote[s.startTS][key]
			if !ok {
				strange++
				v = strange
				b.strangers = append(b.strangers, fmt.Sprint(s.startTS))
			}
			h.Order[key] = append(h.Order[key], v)
		}
	}
	found := append(isolation.Check(h), isolation.CheckTimestamps(h)...)
	found = append(found, b.checkNewest(h.Order)...)
	if len(found) > 0 {
		b.found(found)
	}
}

// checkNewest judges reads of the newest version, key by key: what was acknowledged before is seen, what was not yet
// asked for is not, and nothing is unseen again. They promise no more: they pass over a
// commit that is under way, though it may have drawn its timestamp already.
func (b *txnBed) checkNewest(order map[string][]isolation.Version) (found []isolation.Anomaly) {
	type written struct {
		r      *record
		absent bool
	}
	wrote := map[isolation.Version]written{}
	var reads []*record
	for _, r := range b.history {
		if r.how == "newest" {
			reads = append(reads, r)
		}
		for _, o := range r.Ops {
			if o.Write {
				wrote[o.Version] = written{r, o.Absent}
			}
		}
	}
	places := map[*record]int{}
	for _, r := range reads {
		o := r.Ops[0]
		list := order[o.Key]
		place := slices.Index(list, o.Version) // -1 also for what was there before all versions
		first := 0                             // the least that it must have seen
		for i, v := range list {
			w := wrote[v]
			if o.Absent && w.absent && w.r.Commit.From < r.Start.To {
				place = i
			}
			if w.r != nil && w.r.Commit.To != 0 && w.r.Commit.To < r.Start.From {
				first = i + 1
			}
		}
		for _, other := range reads {
			if at, ok := places[other]; ok && other.Ops[0].Key == o.Key && other.Start.To < r.Start.From && !other.Ops[0].Absent {
				first = max(first, at+1)
			}
		}
		switch {
		case place+1 < first:
			found = append(found, isolation.Anomaly{Name: "stale read of the newest version", Text: fmt.Sprintf("  %v\n  %s is %v", &r.Txn, o.Key, list)})
		case place >= 0 && wrote[list[place]].r != nil && wrote[list[place]].r.Commit.From > r.Start.To:
			found = append(found, isolation.Anomaly{Name: "read of the future", Text: fmt.Sprintf("  %v\n  %s is %v", &r.Txn, o.Key, list)})
		case !o.Absent && place < 0:
			found = append(found, isolation.Anomaly{Name: "read from nowhere", Text: fmt.Sprintf("  %v\n  %s is %v", &r.Txn, o.Key, list)})
		}
		places[r] = place
	}
	return found
}

// found tells what is wrong.
func (b *txnBed) found(list []isolation.Anomaly) {
	if b.bug != "" {
		for _, a := range list {
			b.c.counts.add(a.Name, 1)
		}
		return
	}
	var text strings.Builder
	for _, a := range list {
		fmt.Fprintln(&text, a)
	}
	words := b.strangers
	for _, r := range b.history {
		if !strings.Contains(text.String(), r.Name+" ") || r.how == "final" {
			continue
		}
		words = append(words, fmt.Sprint(r.StartTS))
		fmt.Fprintf(&text, "%s is %s:\n  %s\n", r.Name, r.how, strings.Join(r.trace, "\n  "))
	}
	fmt.Fprintf(&text, "commands of these:\n%s", b.c.trace.about(words))
	b.c.fail("the history is not possible:\n%s\n%s", &text, b.c.describe())
}

// countCommits adds how transactions of a node were committed.
func (b *txnBed) countCommits(n *sqlNode) {
	families, err := n.metrics.Gather()
	if err != nil {
		b.c.fail("%v", err)
	}
	for name, what := range map[string]string{
		"cairn_sql_txn_one_pc_total": "in one phase", "cairn_sql_txn_async_commits_total": "async", "cairn_sql_txn_async_fallbacks_total": "async fallbacks",
		"cairn_sql_txn_async_recovered_total": "async recovered", "cairn_sql_txn_resolved_locks_total": "locks resolved",
	} {
		for _, f := range families {
			if f.GetName() == name {
				b.c.counts.add(what, int(f.GetMetric()[0].GetCounter().GetValue()))
			}
		}
	}
}

// countReplicaReads adds who served the reads that could go to any replica.
func (b *txnBed) countReplicaReads(n *sqlNode) {
	for _, by := range []string{"replica", "past", "leader", "failed"} {
		b.c.counts.add("reads served by "+by, n.replicaReads(by))
	}
}

// Bugs that are planted to see that they are found. They are in the clients and on the way; the stores are not
// touched.
const (
	// A replica does not wait for the index that the leader named.
	bugHurries = "replicas do not catch up"
	// A leader names an index for another timestamp than the one that is read.
	bugOpen = "timestamps are not closed"
	// A transaction that lost a conflict is committed again with a new start, without its reads.
	bugRetries = "conflicts are retried blindly"
	// A commit without an answer is reported as one that has failed.
	bugGuesses = "lost answers are failures"
	// A reader passes over locks.
	bugPasses = "readers pass over locks"
	// A write gets lost on its way, out of a request with several.
	bugDrops = "a mutation is dropped"
	// One-phase and async commits need not come after what was answered before.
	bugEarly = "commits may be early"
	// Serializable transactions commit whatever has become of what they read.
	bugTrusts = "what was read is not validated"
	// A pessimistic lock is given up as soon as it is taken, and not missed.
	bugUnlocks = "locks are not kept"
	// Locks of a transaction that is committed are rolled back, on every other key.
	bugTears = "commits are not carried out everywhere"
)

// meddle is where planted bugs take hold of a commit.
func (b *txnBed) meddle(ctx context.Context, a *attempt, commitTS uint64, err error) (uint64, error) {
	var conflict *txn.WriteConflictError
	switch {
	case b.bug == bugGuesses && errors.Is(err, txn.ErrUndetermined):
		return 0, errors.New("it has failed")
	case b.bug == bugRetries && errors.As(err, &conflict):
		tx, err := a.node.store.Begin(ctx, txn.TxnOptions{})
		if err != nil {
			return 0, err
		}
		for key, own := range a.own {
			if own.absent {
				err = errors.Join(err, tx.Delete([]byte(key)))
			} else {
				err = errors.Join(err, tx.Set([]byte(key), a.cl.valueOf(own.v)))
			}
		}
		if err != nil {
			return 0, err
		}
		commitTS, err = tx.Commit(ctx)
		a.r.again = tx.StartTS()
		return commitTS, err
	}
	return commitTS, err
}

// countPromises adds up what became of promised locks.
func (b *txnBed) countPromises(req *kvpb.Request, resp *kvpb.Response) {
	if got := resp.GetPessimisticLock().GetResults(); len(got) == 1 && got[0].GetPromised() {
		b.c.counts.add("locks promised", 1)
	}
	if req.GetPrewrite().GetNoAmend() && len(resp.GetPrewrite().GetErrors()) > 0 && resp.GetPrewrite().Errors[0].GetPessimisticLockNotFound() != nil {
		b.c.counts.add("promises broken", 1)
	}
}

// tamper is where they take hold of a request and its answer.
func (b *txnBed) tamper(ctx context.Context, d *door, req *kvpb.Request, resp *kvpb.Response) *kvpb.Response {
	if at := resp.GetReadIndex(); b.bug == bugHurries && at != nil {
		at.Index = min(at.Index, 10)
	}
	if lock := req.GetPessimisticLock(); b.bug == bugUnlocks && lock != nil {
		undo := &kvpb.PessimisticRollbackRequest{Context: lock.Context, Keys: lock.Keys, StartTs: lock.StartTs, ForUpdateTs: lock.ForUpdateTs}
		d.execute(ctx, &kvpb.Request{Cmd: &kvpb.Request_PessimisticRollback{PessimisticRollback: undo}})
	}
	if get := req.GetGet(); b.bug == bugPasses && get != nil {
		for lock := resp.GetGet().GetError().GetLocked(); lock != nil; lock = resp.GetGet().GetError().GetLocked() {
			get.Context.ResolvedLocks = append(get.Context.ResolvedLocks, lock.GetStartTs())
			var crashed bool
			if resp, crashed = d.execute(ctx, req); resp == nil || crashed {
				return b.answers.lost(req)
			}
		}
	}
	return resp
}

// before changes a request that is about to be executed.
func (b *txnBed) before(req *kvpb.Request) {
	p := req.GetPrewrite()
	switch {
	case b.bug == bugOpen && req.GetReadIndex() != nil:
		req.GetReadIndex().ReadTs = 1
	case b.bug == bugTrusts && req.GetCheckUnchanged() != nil:
		req.GetCheckUnchanged().Spans = nil
	case b.bug == bugTears && len(req.GetResolveLock().GetKeys()) > 0 && req.GetResolveLock().Keys[0][0]%2 == 0:
		req.GetResolveLock().Txns[0].CommitTs = 0
	case p == nil:
	case b.bug == bugUnlocks && p.ForUpdateTs != 0:
		p.ForUpdateTs = b.c.pd.timestamps.draw()
		for _, m := range p.Mutations {
			m.PessimisticAction = kvpb.PessimisticAction_PESSIMISTIC_ACTION_SKIP
		}
	case b.bug == bugDrops && len(p.Mutations) > 1 && p.TryOnePc:
		p.Mutations = p.Mutations[:len(p.Mutations)-1]
	case b.bug == bugEarly && (p.TryOnePc || p.UseAsyncCommit):
		p.MinCommitTs, p.DrawMinCommitTs = p.StartTs+1, false
	}
}

// playTxns runs transactions while a schedule happens and judges them.
func playTxns(t *testing.T, seed uint64, sc schedule, bug string, total *counts) {
	rng := rand.New(rand.NewPCG(seed, 1))
	c := newCluster(t, seed, sc.stores)
	defer c.close()
	c.replicate(3)
	for _, key := range []string{"g", "m", "s"} {
		if rng.IntN(4) > 0 {
			c.splitAt(key)
		}
	}
	b := newTxnBed(c, bug)
	if bug == bugHurries || bug == bugOpen || sc.spread {
		b.spread = 100
	}
	if sc.garbage {
		newGarbage(b, rand.New(rand.NewPCG(seed, 7)))
	}
	stop := make(chan struct{})
	var clients, rest sync.WaitGroup
	for i := range 6 {
		cl := &txnClient{b: b, id: i, rng: rand.New(rand.NewPCG(seed, uint64(100+i)))}
		clients.Go(func() { cl.run(stop) })
	}
	o := &operator{c: c, rng: rand.New(rand.NewPCG(seed, rng.Uint64()))}
	rest.Go(func() { o.run(stop, sc.operations, 400*time.Millisecond) })
	n := &nemesis{c: c, rng: rand.New(rand.NewPCG(seed, rng.Uint64()))}
	rest.Go(func() { n.run(stop, sc.faults, cmp.Or(sc.calm, time.Second)) })
	if len(sc.faults) > 0 {
		trouble := rand.New(rand.NewPCG(seed, rng.Uint64()))
		rest.Go(func() { b.trouble(stop, trouble) })
	}
	time.Sleep(sc.lasts)
	close(stop)
	rest.Wait()
	clients.Wait()
	c.log.Info("SETTLE")
	b.end()
	c.checkCopies()
	for _, r := range b.history {
		c.counts.add("txns "+r.how, 1)
	}
	c.processes.Range(func(_, p any) bool { p.(*process).countLocks(); return true })
	for what, n := range maps.All(c.counts.of) {
		total.add(what, n)
	}
}
