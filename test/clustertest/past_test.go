package clustertest

import (
	"errors"
	"time"

	"github.com/cairndb/cairn/kvnode/kvclient/txn"
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
