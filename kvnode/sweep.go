package kvnode

import (
	"context"
	"log/slog"
	"time"

	"github.com/cairndb/cairn/kvnode/replica"
	"github.com/cairndb/cairn/kvnode/store"
	"github.com/cairndb/cairn/kvnode/txncmd"
	"github.com/cairndb/cairn/proto/kvpb"
)

// sweepEvery is how often raw pairs that have expired are removed.
const sweepEvery = 5 * time.Minute

// sweepRest: after each step the sweep pauses for so many times what the step took.
const sweepRest = 4

// sweeper removes raw pairs that have expired from the regions led here.
type sweeper struct {
	store *store.Store
	exec  *txncmd.Executor
	log   *slog.Logger
}

// run sweeps until ctx ends.
func (s *sweeper) run(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		s.sweep(ctx)
	}
}

// sweep looks through all regions led here once, slowly.
func (s *sweeper) sweep(ctx context.Context) {
	var led []*kvpb.Context
	s.store.EachReplica(func(r *replica.Replica) bool {
		if v := r.View(); v.Leading() {
			led = append(led, &kvpb.Context{RegionId: r.ID(), Epoch: v.Meta().GetEpoch(), Peer: r.Peer()})
		}
		return true
	})
	removed := 0
	for _, c := range led {
		for at := []byte{}; at != nil; {
			began := time.Now()
			n, next, err := s.exec.SweepRaw(ctx, c, at)
			if err != nil { // the next time
				s.log.Debug("expired raw pairs are left for later", "region", c.GetRegionId(), "err", err)
				break
			}
			removed += n
			at = next
			if at == nil && n == 0 {
				break
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(sweepRest * time.Since(began)):
			}
		}
	}
	if removed > 0 {
		s.log.Info("expired raw pairs removed", "pairs", removed)
	}
}
