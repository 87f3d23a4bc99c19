package replica

import (
	"context"
	"fmt"
	"hash/crc64"

	"github.com/cairndb/cairn/kvnode/engine"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/replpb"
	"go.etcd.io/raft/v3/raftpb"
)

// Hash is the hash of a region's data at a log index: replicas that have applied
// the same log have the same data.
type Hash struct {
	Index uint64 // 0 = none was computed yet
	Sum   uint64
	Keys  uint64
	Err   error
}

// Hash returns the last hash computed here.
func (r *Replica) Hash() Hash {
	if h := r.hash.Load(); h != nil {
		return *h
	}
	return Hash{}
}

// ProposeHash makes all replicas hash their data at one index, and waits until this
// one has begun to. It returns nothing: see Hash.
func (v *View) ProposeHash(ctx context.Context) *kvpb.RegionError {
	return v.proposeAdmin(ctx, &replpb.AdminCommand{Epoch: v.meta.GetEpoch(), Cmd: &replpb.AdminCommand_ComputeHash{ComputeHash: &replpb.ComputeHash{}}}, false)
}

func (r *Replica) applyHash(p *proposal, e *raftpb.Entry) error {
	r.ab.index, r.ab.term = e.GetIndex(), e.GetTerm()
	if err := r.commitApplied(false); err != nil {
		return err
	}
	view := r.o.Engine.NewRangeSnapshot(r.region.GetStartKey(), r.region.GetEndKey())
	region, index := r.region, e.GetIndex()
	r.host.Background(func(ctx context.Context) {
		h := Hash{Index: index}
		h.Sum, h.Keys, h.Err = hashRange(ctx, view, region)
		if err := view.Close(); h.Err == nil {
			h.Err = err
		}
		r.hash.Store(&h)
	})
	if p != nil {
		p.done <- nil
	}
	return nil
}

var crcTable = crc64.MakeTable(crc64.ECMA)

// hashRange hashes everything replicated of a region: keys, versions, values.
func hashRange(ctx context.Context, view *engine.RangeSnapshot, region *kvpb.Region) (sum, keys uint64, err error) {
	h := crc64.New(crcTable)
	for _, cf := range []engine.CF{engine.CFLock, engine.CFWrite, engine.CFDefault} {
		it, err := view.NewIter(engine.IterOptions{CF: cf, Lower: region.GetStartKey(), Upper: region.GetEndKey()})
		if err != nil {
			return 0, 0, err
		}
		for ok := it.First(); ok && err == nil; ok = it.Next() {
			v, verr := it.Value()
			if err = verr; err == nil {
				fmt.Fprintf(h, "%d %x %d %x\n", cf, it.Key(), it.TS(), v)
				if keys++; keys%1024 == 0 {
					err = ctx.Err()
				}
			}
		}
		if err == nil {
			err = it.Err()
		}
		if cerr := it.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return 0, 0, fmt.Errorf("replica: hash region %d: %w", region.GetId(), err)
		}
	}
	return h.Sum64(), keys, nil
}
