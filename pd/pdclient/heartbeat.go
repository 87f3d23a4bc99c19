package pdclient

import (
	"context"
	"errors"
	"sync"

	"github.com/cairndb/cairn/proto/pdpb"
)

// maxBeats bounds the reports queued, one per region; more are dropped.
const maxBeats = 1 << 16

// heartbeats sends reports of regions over one stream, the latest of each region.
type heartbeats struct {
	r    *remote
	wake chan struct{} // capacity 1: queue changed

	mu struct {
		sync.Mutex
		order  []uint64 // region ids, oldest report first
		latest map[uint64]*pdpb.RegionHeartbeatRequest
		// deliver takes the steps; set by the first report, always the same.
		deliver deliverStep
		closed  bool
	}
}

func newHeartbeats(r *remote) *heartbeats {
	b := &heartbeats{r: r, wake: make(chan struct{}, 1)}
	b.mu.latest = make(map[uint64]*pdpb.RegionHeartbeatRequest)
	return b
}

func (b *heartbeats) put(req *pdpb.RegionHeartbeatRequest, deliver deliverStep) error {
	id := req.GetRegion().GetId()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.closed {
		return ErrClosed
	}
	b.mu.deliver = deliver
	if b.mu.latest[id] == nil {
		if len(b.mu.order) >= maxBeats {
			b.r.metrics.beatsDropped.Inc()
			return nil
		}
		b.mu.order = append(b.mu.order, id)
	}
	b.mu.latest[id] = req
	select {
	case b.wake <- struct{}{}:
	default:
	}
	return nil
}

// take removes all reports.
func (b *heartbeats) take() []*pdpb.RegionHeartbeatRequest {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := make([]*pdpb.RegionHeartbeatRequest, 0, len(b.mu.order))
	for _, id := range b.mu.order {
		list = append(list, b.mu.latest[id])
	}
	b.mu.order = b.mu.order[:0]
	clear(b.mu.latest)
	return list
}

// putBack keeps reports that were not sent, unless newer ones came.
func (b *heartbeats) putBack(list []*pdpb.RegionHeartbeatRequest) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, req := range list {
		id := req.Region.GetId()
		if b.mu.latest[id] == nil {
			b.mu.order = append(b.mu.order, id)
			b.mu.latest[id] = req
		}
	}
}

func (b *heartbeats) run(ctx context.Context) {
	wait := backoffBase
	for ctx.Err() == nil {
		sent, err := b.session(ctx)
		if ctx.Err() != nil {
			break
		}
		if sent {
			wait = backoffBase
		}
		if err == nil {
			continue
		}
		b.r.opts.Logger.Warn("region heartbeat stream ended", "err", err)
		if sleep(ctx, wait) != nil {
			break
		}
		wait = min(2*wait, backoffCap)
	}
}

// end refuses reports from now on.
func (b *heartbeats) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.closed = true
}

// session opens a stream once there is something to send and runs it until it breaks.
func (b *heartbeats) session(ctx context.Context) (sent bool, err error) {
	select {
	case <-b.wake:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	defer b.rewake()
	t, err := b.r.leader(ctx)
	if err != nil {
		return false, err
	}
	defer func() {
		if err != nil {
			b.r.lost(t)
		}
	}()
	if t.local {
		return b.hand(ctx)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stream, err := pdpb.NewPDClient(t.conn).RegionHeartbeat(ctx)
	if err != nil {
		return false, err
	}
	received := make(chan struct{})
	go func() {
		defer close(received)
		cancel(b.receive(stream))
	}()
	defer func() { cancel(nil); <-received }()
	for {
		list := b.take()
		for i, req := range list {
			if stream.Send(req) != nil {
				b.putBack(list[i:])
				<-received // it knows the reason
				return sent, context.Cause(ctx)
			}
			sent = true
		}
		select {
		case <-b.wake:
		case <-ctx.Done():
			return sent, context.Cause(ctx)
		}
	}
}

// hand gives reports that waited for a leader to the PD of this process.
func (b *heartbeats) hand(ctx context.Context) (bool, error) {
	b.mu.Lock()
	deliver := b.mu.deliver
	b.mu.Unlock()
	list := b.take()
	for i, req := range list {
		if err := b.r.direct(ctx, req, deliver); errors.Is(err, ErrNotLeader) {
			b.putBack(list[i:])
			return i > 0, err
		}
	}
	return true, nil
}

func (b *heartbeats) step(resp *pdpb.RegionHeartbeatResponse) {
	b.mu.Lock()
	deliver := b.mu.deliver
	b.mu.Unlock()
	deliver(resp)
}

// receive reads steps and refusals; a refusal other than of leadership concerns one region,
// which reports again when something changes.
func (b *heartbeats) receive(stream pdpb.PD_RegionHeartbeatClient) error {
	for {
		resp, err := stream.Recv()
		if err != nil {
			return err
		}
		err = headerError(resp.Header)
		if retryable(err) {
			return err
		}
		if err != nil {
			b.r.opts.Logger.Debug("region heartbeat refused", "region", resp.RegionId, "err", err)
			continue
		}
		if resp.Step != nil {
			b.step(resp)
		}
	}
}

// rewake makes the next session start if reports are left.
func (b *heartbeats) rewake() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.mu.order) == 0 {
		return
	}
	select {
	case b.wake <- struct{}{}:
	default:
	}
}
