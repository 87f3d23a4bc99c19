package clustertest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/cairndb/cairn/kvnode/kvclient/txn"
	"github.com/cairndb/cairn/test/isolation"
)

// Transactions at random, after CockroachDB's kvnemesis: every value written is unique, every read is recorded, and
// what a client knows of its transactions at the end is judged by the package isolation.

// cells are the keys of the transactions; splits cut between them.
var cells = func() (out []string) {
	for k := 'a'; k <= 'z'; k++ {
		out = append(out, string(k))
	}
	return out
}()

// record is one transaction as its client saw it.
type record struct {
	isolation.Txn
	how          string
	serializable bool
	pessimistic  bool
	err          error    // of a commit that failed
	trace        []string // of statements
	// sure are reads that are known to have been checked if the transaction is committed.
	sure []isolation.Op
	// vanished are deletes of keys that it has inserted: they leave nothing, unless both were flushed.
	vanished []isolation.Op
	// again is the start of what a planted bug has made of it.
	again uint64
}

// settle gives the operations of a transaction the moments they show, now that it is known whether it was committed.
func (r *record) settle() {
	if r.Outcome != isolation.Committed && (r.Outcome != isolation.Unknown || r.CommitTS == 0) {
		r.forget()
		return
	}
	r.Ops = append(r.sure, r.Ops...) // before what the transaction wrote itself
	writes := slices.ContainsFunc(r.Ops, func(o isolation.Op) bool { return o.Write })
	switch {
	case r.serializable && writes:
		r.show(isolation.AtCommit)
	case r.serializable && r.pessimistic:
		r.show(isolation.AtStart + 1) // all at one moment, though not at that of the start
	case !writes && r.pessimistic:
		r.forget() // locks are not asked for when nothing is written
	}
}

// show has all operations show one moment.
func (r *record) show(at isolation.Point) {
	for i := range r.Ops {
		r.Ops[i].At, r.Ops[i].TS = at, 0
	}
}

// txnClient runs one transaction after the other.
type txnClient struct {
	b   *txnBed
	id  int
	rng *rand.Rand
	n   int
}

func (cl *txnClient) run(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(time.Duration(cl.rng.Int64N(int64(15 * time.Millisecond)))):
		}
		cl.n++
		switch cl.rng.IntN(12) {
		case 0:
			cl.readNewest()
			continue
		case 1:
			cl.readPast()
			continue
		}
		cl.transact()
	}
}

// attempt is a transaction that is being run.
type attempt struct {
	cl   *txnClient
	node *sqlNode
	tx   *txn.Txn
	r    *record
	// plan
	first, width int  // the cells it is about
	committed    bool // reads committed: every operation has a snapshot of its own
	hot          bool // one update of the row that all want, so that commits follow one another
	at           isolation.Point
	ts           uint64

	own map[string]ownCell
}

// ownCell is what a transaction knows to be in a cell by its own doing.
type ownCell struct {
	v         isolation.Version
	absent    bool
	mustBeNew bool
}

// readNewest reads one cell at the newest timestamp there is.
func (cl *txnClient) readNewest() {
	node := cl.b.node(cl.rng)
	key := cells[cl.rng.IntN(len(cells))]
	r := &record{how: "newest"}
	r.Name, r.Outcome = cl.name(), isolation.Aborted
	ctx, cancel := cl.patience()
	defer cancel()
	r.Start.From = cl.b.tick()
	value, err := node.store.Snapshot(math.MaxUint64).Get(ctx, []byte(key))
	r.Start.To = cl.b.tick()
	if err != nil && !errors.Is(err, txn.ErrNotFound) {
		return
	}
	r.Ops = []isolation.Op{readOf(key, value, err != nil)}
	cl.b.note(r)
}

func (cl *txnClient) name() string { return fmt.Sprintf("c%d.%d", cl.id, cl.n) }

// patience is how long a client waits for one call.
func (cl *txnClient) patience() (context.Context, context.CancelFunc) {
	d := 20 * time.Second
	if cl.rng.IntN(10) == 0 || cl.b.bug == bugGuesses {
		d = time.Duration(1+cl.rng.IntN(1000)) * time.Millisecond
	}
	return context.WithTimeout(context.Background(), d)
}

// transact runs one transaction and records it.
func (cl *txnClient) transact() {
	a := &attempt{cl: cl, node: cl.b.node(cl.rng), r: &record{how: "snapshot"}, own: map[string]ownCell{}}
	a.width = []int{1, 2, 3, len(cells), len(cells)}[cl.rng.IntN(5)]
	a.first = cl.rng.IntN(len(cells) - a.width + 1)
	ops := 1 + cl.rng.IntN(6)
	o := txn.TxnOptions{Autocommit: cl.rng.IntN(5) == 0}
	if o.Autocommit {
		ops, a.r.how = 1, "autocommit"
	} else if cl.rng.IntN(6) == 0 {
		a.committed, a.r.how = true, "read committed"
	} else if cl.rng.IntN(2) == 0 {
		o.Pessimistic, a.r.pessimistic, a.r.how = true, true, "pessimistic"
	}
	if cl.rng.IntN(3) == 0 {
		o.Serializable, a.r.serializable = true, true
		a.r.how += " serializable"
	}
	if !o.Pessimistic && !o.Serializable && cl.rng.IntN(3) == 0 {
		o.Pipelined = true
		a.r.how += " pipelined"
	}
	if a.hot = cl.rng.IntN(6) == 0; a.hot {
		o, ops, a.width, a.first = txn.TxnOptions{Pessimistic: true}, 1, 1, 0
		a.committed, a.r.pessimistic, a.r.serializable, a.r.how = false, true, false, "hot"
	}
	a.r.Name = cl.name()
	a.r.Start.From = cl.b.tick()
	var err error
	if a.tx, err = a.node.store.Begin(context.Background(), o); err != nil {
		cl.b.c.fail("begin: %v", err)
	}
	a.tx.ReadFrom(cl.replica())
	a.r.StartTS = a.tx.StartTS()
	a.r.Start.To = cl.b.tick()
	if a.r.StartTS == 0 {
		return // PD was not there
	}
	for range ops {
		if err := a.do(); err != nil {
			a.r.Outcome = isolation.Aborted
			a.tx.Rollback()
			cl.b.note(a.r)
			return
		}
		if !a.hot && cl.rng.IntN(3) == 0 {
			time.Sleep(time.Duration(cl.rng.Int64N(int64(30 * time.Millisecond))))
		}
	}
	if cl.rng.IntN(15) == 0 {
		a.r.Outcome = isolation.Aborted
		a.tx.Rollback()
		cl.b.note(a.r)
		return
	}
	a.commit(o.Autocommit)
	cl.b.note(a.r)
}

func (a *attempt) commit(auto bool) {
	r := a.r
	ctx, cancel := a.cl.patience()
	defer cancel()
	r.Commit.From = a.cl.b.tick()
	if auto {
		r.Commit.From = r.Start.From // its one statement is all of it
	}
	var err error
	r.CommitTS, err = a.tx.Commit(ctx)
	if r.CommitTS, err = a.cl.b.meddle(ctx, a, r.CommitTS, err); err == nil {
		r.Commit.To = a.cl.b.tick()
	}
	a.drop()
	switch {
	case err == nil:
		r.Outcome = isolation.Committed
		a.cl.b.c.counts.add("committed", 1)
		if len(a.own) > 0 {
			a.cl.b.c.counts.add("committed writes", 1)
		}
	case errors.Is(err, txn.ErrUndetermined) || a.node.dead.Load():
		r.Outcome = isolation.Unknown
		a.cl.b.c.counts.add("undetermined", 1)
	default:
		r.Outcome = isolation.Aborted
		r.err = err
		a.cl.b.c.counts.add(errorName(err), 1)
	}
	if len(a.own) == 0 { // nothing was written, so there was no moment of a commit
		r.Commit = isolation.Span{}
	}
}

// drop removes writes of keys that were inserted and deleted again: they are checked only. A pipelined transaction may have
// locked the key when it comes to the delete, and leaves that.
func (a *attempt) drop() {
	for key, own := range a.own {
		if own.absent && own.mustBeNew {
			if a.tx.Flushed() {
				a.r.vanished = append(a.r.vanished, isolation.Op{Write: true, Key: key, Version: own.v, Absent: true})
			}
			a.r.Ops = slices.DeleteFunc(a.r.Ops, func(o isolation.Op) bool { return o.Write && o.Key == key })
		}
	}
}

func errorName(err error) string {
	var conflict *txn.WriteConflictError
	var exists *txn.KeyExistsError
	var timeout *txn.LockTimeoutError
	var nowait *txn.LockNowaitError
	var dead *txn.DeadlockError
	switch {
	case errors.As(err, &nowait):
		return "nowait"
	case errors.As(err, &dead):
		return "deadlocks"
	case errors.As(err, &conflict):
		return "conflicts"
	case errors.As(err, &exists):
		return "exists"
	case errors.As(err, &timeout):
		return "lock timeouts"
	}
	return "other errors"
}

func (a *attempt) key() string { return cells[a.first+a.cl.rng.IntN(a.width)] }

// do one thing. An error ends the transaction.
func (a *attempt) do() error {
	ctx, cancel := a.cl.patience()
	defer cancel()
	if a.committed {
		ts, err := a.node.store.CurrentTS(ctx)
		if err != nil {
			return err
		}
		a.tx.ReadAt(ts)
		a.at, a.ts = a.at+1, ts
	}
	if a.hot || a.r.pessimistic && a.cl.rng.IntN(3) > 0 {
		return a.locking(ctx)
	}
	key := a.key()
	n := a.cl.rng.IntN(14)
	if a.r.pessimistic {
		n = []int{0, 5, 6}[a.cl.rng.IntN(3)] // what reads the snapshot
	}
	switch n {
	case 0, 1:
		return a.get(ctx, key)
	case 2, 3, 4:
		if err := a.get(ctx, key); err != nil {
			return err
		}
		return a.set(key)
	case 5:
		return a.batchGet(ctx, key, a.key(), a.key())
	case 6, 7:
		return a.scan(ctx)
	case 8:
		return a.remove(key)
	case 9:
		return a.insert(key)
	case 10:
		return a.lock(ctx, key)
	case 11:
		return a.undo(ctx)
	}
	return a.set(key)
}

// valueOf is what is stored for a version. Some are too long to lie with their record.
func (cl *txnClient) valueOf(v isolation.Version) []byte {
	value := binary.BigEndian.AppendUint64(nil, uint64(v))
	if cl.rng.IntN(8) == 0 {
		value = append(value, make([]byte, cl.rng.IntN(600))...)
	}
	return value
}

func readOf(key string, value []byte, absent bool) isolation.Op {
	o := isolation.Op{Key: key, Absent: absent}
	if !absent {
		o.Version = isolation.Version(binary.BigEndian.Uint64(value))
	}
	return o
}

// saw records a read, unless it is of what the transaction has written itself, which must be so.
func (a *attempt) saw(o isolation.Op) {
	if own, ok := a.own[o.Key]; ok {
		if own.absent != o.Absent || !own.absent && own.v != o.Version {
			a.cl.b.c.fail("%s has written %+v and reads %v", a.r.Name, own, o)
		}
		return
	}
	if a.committed {
		o.At, o.TS = a.at, a.ts
	}
	a.r.Ops = append(a.r.Ops, o)
}

func (a *attempt) get(ctx context.Context, key string) error {
	value, err := a.tx.Get(ctx, []byte(key))
	if err != nil && !errors.Is(err, txn.ErrNotFound) {
		return err
	}
	a.saw(readOf(key, value, err != nil))
	return nil
}

func (a *attempt) batchGet(ctx context.Context, list ...string) error {
	ask := make([][]byte, len(list))
	for i, k := range list {
		ask[i] = []byte(k)
	}
	values, err := a.tx.BatchGet(ctx, ask)
	if err != nil {
		return err
	}
	for i, v := range values {
		a.saw(readOf(list[i], v, v == nil))
	}
	return nil
}

func (a *attempt) scan(ctx context.Context) error {
	low := a.cl.rng.IntN(len(cells))
	high := low + 1 + a.cl.rng.IntN(len(cells)-low)
	if a.cl.rng.IntN(4) == 0 {
		low, high = 0, len(cells)
	}
	found, err := scanAll(ctx, a.tx, cells[low], cells[high-1]+"\x00", a.cl.rng.IntN(2) == 0)
	if err != nil {
		return err
	}
	for _, key := range cells[low:high] {
		value, ok := found[key]
		o := readOf(key, value, !ok)
		o.Range = true
		a.saw(o)
	}
	return nil
}

func scanAll(ctx context.Context, tx txn.Reader, start, end string, reverse bool) (map[string][]byte, error) {
	sc := tx.Scan(ctx, []byte(start), []byte(end), txn.ScanOptions{Reverse: reverse})
	found := map[string][]byte{}
	for {
		block, err := sc.NextBlock(ctx)
		if errors.Is(err, io.EOF) {
			return found, nil
		}
		if err != nil {
			return nil, err
		}
		for i := range block.Len() {
			found[string(block.Key(i))] = slices.Clone(block.Value(i))
		}
	}
}

func (a *attempt) wrote(key string, own ownCell) {
	a.own[key] = own
	o := isolation.Op{Write: true, Key: key, Version: own.v, Absent: own.absent}
	if a.r.pessimistic {
		o.At = isolation.AtCommit
	}
	a.r.Ops = append(a.r.Ops, o)
}

func (a *attempt) set(key string) error {
	v := a.cl.b.version()
	if err := a.tx.Set([]byte(key), a.cl.valueOf(v)); err != nil {
		return err
	}
	a.wrote(key, ownCell{v: v, mustBeNew: a.own[key].mustBeNew})
	return nil
}

func (a *attempt) remove(key string) error {
	if err := a.tx.Delete([]byte(key)); err != nil {
		return err
	}
	a.wrote(key, ownCell{v: a.cl.b.version(), absent: true, mustBeNew: a.own[key].mustBeNew})
	return nil
}

// insert writes a cell that must be absent, which the commit finds out.
func (a *attempt) insert(key string) error {
	own, mine := a.own[key]
	if mine && !own.absent {
		return nil
	}
	v := a.cl.b.version()
	if err := a.tx.Insert([]byte(key), a.cl.valueOf(v)); err != nil {
		return err
	}
	if !mine {
		a.r.sure = append(a.r.sure, isolation.Op{Key: key, Absent: true, Range: true})
	}
	a.wrote(key, ownCell{v: v, mustBeNew: own.mustBeNew || !mine})
	return nil
}

// lock reads a cell and makes it conflict with those who write it.
func (a *attempt) lock(ctx context.Context, key string) error {
	if _, mine := a.own[key]; mine || a.committed {
		return nil
	}
	if err := a.get(ctx, key); err != nil {
		return err
	}
	a.tx.LockKey([]byte(key))
	o := a.r.Ops[len(a.r.Ops)-1]
	o.At = isolation.AtCommit
	a.r.sure = append(a.r.sure, o)
	return nil
}

// undo does a few things and takes them back.
func (a *attempt) undo(ctx context.Context) error {
	sp := a.tx.Savepoint()
	own, ops, sure := maps.Clone(a.own), len(a.r.Ops), len(a.r.sure)
	for range 1 + a.cl.rng.IntN(3) {
		key := a.key()
		var err error
		switch a.cl.rng.IntN(4) {
		case 0:
			err = a.set(key)
		case 1:
			err = a.remove(key)
		case 2:
			err = a.insert(key)
		case 3:
			err = a.get(ctx, key)
		}
		if err != nil {
			return err
		}
	}
	if a.cl.rng.IntN(4) == 0 {
		a.tx.Release(sp)
		return nil
	}
	a.tx.RollbackTo(sp)
	a.own, a.r.sure = own, a.r.sure[:sure]
	kept := slices.DeleteFunc(a.r.Ops[ops:], func(o isolation.Op) bool { return o.Write })
	a.r.Ops = a.r.Ops[:ops+len(kept)]
	a.tx.Release(sp)
	return nil
}
