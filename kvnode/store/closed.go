package store

import (
	"context"
	"sync"
	"time"

	"github.com/cairndb/cairn/kvnode/rafttransport"
	"github.com/cairndb/cairn/kvnode/replica"
	"github.com/cairndb/cairn/proto/kvpb"
)

const (
	// closeEvery is how often timestamps are closed in the regions that are read in the
	// past, and the other replicas told.
	closeEvery = time.Second
	// closeTimeout bounds that for one region, closeAtOnce how many are asked at a time.
	closeTimeout = 500 * time.Millisecond
	closeAtOnce  = 16
)

// Closer closes timestamps in regions led here; txncmd.Executor is one.
type Closer interface {
	ReadIndex(ctx context.Context, req *kvpb.ReadIndexRequest) *kvpb.ReadIndexResponse
}

// CloseTimestamps has timestamps closed by c, once a second, in the regions led here
// whose replicas are read in the past (ReadIndexRequest.keep_closing), and tells those. ts is
// a fresh timestamp of PD. Called at most once; it ends with Close.
func (s *Store) CloseTimestamps(c Closer, ts func(ctx context.Context) (uint64, error)) {
	s.wg.Go(func() {
		tick := time.NewTicker(closeEvery)
		defer tick.Stop()
		for {
			select {
			case <-s.ctx.Done():
				return
			case <-tick.C:
				s.closeAll(c, ts)
			}
		}
	})
}

func (s *Store) closeAll(c Closer, draw func(ctx context.Context) (uint64, error)) {
	var list []*replica.Replica
	s.EachReplica(func(r *replica.Replica) bool {
		if r.Closing() {
			list = append(list, r)
		}
		return true
	})
	if len(list) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(s.ctx, closeEvery)
	defer cancel()
	ts, err := draw(ctx)
	if err != nil {
		s.log.Warn("no timestamp to close", "err", err)
		return
	}
	slots := make(chan struct{}, closeAtOnce)
	var wg sync.WaitGroup
	for _, r := range list {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			s.closeTS(ctx, c, r, ts)
		})
	}
	wg.Wait()
}

// closeTS closes a timestamp in one region and tells its other replicas. What fails comes
// again in a second; what is lost on the way too.
func (s *Store) closeTS(ctx context.Context, c Closer, r *replica.Replica, ts uint64) {
	ctx, cancel := context.WithTimeout(ctx, closeTimeout)
	defer cancel()
	m := r.View().Meta()
	resp := c.ReadIndex(ctx, &kvpb.ReadIndexRequest{
		Context: &kvpb.Context{RegionId: r.ID(), Epoch: m.GetEpoch(), Peer: r.Peer()}, ReadTs: ts,
	})
	if resp.GetRegionError() != nil || resp.GetError() != nil {
		return
	}
	s.metrics.closed.Inc()
	msgs := make([]rafttransport.Message, 0, len(m.GetPeers()))
	for _, p := range m.GetPeers() {
		if p.GetId() != r.Peer().GetId() {
			msgs = append(msgs, rafttransport.Message{
				Kind: rafttransport.KindClosed, RegionID: r.ID(), From: r.Peer(), To: p, Epoch: m.GetEpoch(),
				ClosedTS: ts, ClosedIndex: resp.GetIndex(),
			})
		}
	}
	host{s}.Send(msgs)
}
