package clustertest

import (
	"context"
	"errors"
	"math"
	"testing"
	"time"

	"github.com/cairndb/cairn/kvnode/kvclient/txn"
	"github.com/cairndb/cairn/kvnode/rafttransport/simnet"
	"github.com/cairndb/cairn/kvnode/replica"
	"github.com/cairndb/cairn/test/isolation"
)

// replica chooses where a transaction reads.
func (cl *txnClient) replica() txn.ReplicaRead {
	if cl.rng.IntN(100) >= cl.b.spread {
		return txn.ReadLeader
	}
	return []txn.ReplicaRead{txn.ReadFollower, txn.ReadClosest}[cl.rng.IntN(2)]
}

// readPast reads what there was up to some seconds ago, from any replica. It knows nothing
// of real time, but the timestamp says what it must see.
func (cl *txnClient) readPast() {
	node := cl.b.node(cl.rng)
	ctx, cancel := cl.patience()
	defer cancel()
	now, err := node.store.CurrentTS(ctx)
	if err != nil {
		return
	}
	back := time.Duration(cl.rng.Int64N(int64(8 * time.Second)))
	r := &record{how: "past"}
	r.Name, r.Outcome, r.StartTS = cl.name(), isolation.Aborted, now-uint64(back.Milliseconds())<<18
	sn := node.store.Snapshot(r.StartTS).From(cl.replica())
	for range 1 + cl.rng.IntN(4) {
		if cl.rng.IntN(2) == 0 {
			key := cells[cl.rng.IntN(len(cells))]
			value, err := sn.Get(ctx, []byte(key))
			if err != nil && !errors.Is(err, txn.ErrNotFound) {
				break
			}
			r.Ops = append(r.Ops, readOf(key, value, err != nil))
			continue
		}
		low := cl.rng.IntN(len(cells))
		found, err := scanAll(ctx, sn, cells[low], "", cl.rng.IntN(2) == 0)
		if err != nil {
			break
		}
		for _, key := range cells[low:] {
			value, ok := found[key]
			o := readOf(key, value, !ok)
			o.Range = true
			r.Ops = append(r.Ops, o)
		}
	}
	cl.b.note(r)
}

// Replicas that are read in the past are told every second what is closed, and go on to serve such reads
// when there is no leader.
func TestThePastIsReadWithoutALeader(t *testing.T) {
	scenario(t, 3, func(c *cluster) {
		b := newTxnBed(c, "")
		b.calm.Store(true)
		n := b.nodes[0]
		commit := func(value string) (after uint64) {
			tx, err := n.store.Begin(context.Background(), txn.TxnOptions{})
			if err != nil {
				c.fail("begin: %v", err)
			}
			if err := tx.Set([]byte("k"), []byte(value)); err != nil {
				c.fail("set: %v", err)
			}
			if _, err := tx.Commit(context.Background()); err != nil {
				c.fail("commit: %v", err)
			}
			return c.pd.timestamps.draw()
		}
		expect := func(ts uint64, want string) {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			got, err := n.store.Snapshot(ts).From(txn.ReadFollower).Get(ctx, []byte("k"))
			if err != nil || string(got) != want {
				c.fail("read %q at %d: %v", got, ts, err)
			}
		}
		old := commit("old")
		time.Sleep(3 * time.Second)
		expect(old, "old") // from now on the replicas are told
		young := commit("new")
		leader := c.at("k").GetLeader().GetStoreId()
		c.await("the replicas know what is closed", 10*time.Second, func() bool {
			least := uint64(math.MaxUint64)
			c.replicas(func(x *node, r *replica.Replica) {
				if x.id != leader {
					least = min(least, r.ClosedTS())
				}
			})
			return least >= young
		})
		heal := c.net.Add(simnet.Rule{Drop: 1}).Remove
		n.setCut(leader, true)
		time.Sleep(3 * time.Second)
		served := n.replicaReads("past")
		expect(old, "old")
		expect(young, "new")
		if n.replicaReads("past") != served+1 { // the first one was known from before
			c.fail("%d reads without the leader, not %d", n.replicaReads("past"), served+1)
		}
		heal()
		n.setCut(leader, false)
		b.late.Wait()
		for _, n := range b.all {
			n.close()
		}
	})
}

// replicaReads is how many reads were served by what.
func (n *sqlNode) replicaReads(by string) (sum int) {
	families, err := n.metrics.Gather()
	if err != nil {
		n.c.fail("%v", err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "cairn_kvclient_replica_reads_total" && m.GetLabel()[0].GetValue() == by {
				sum += int(m.GetCounter().GetValue())
			}
		}
	}
	return sum
}
