package store

import (
	"context"
	"sync"
	"time"

	"github.com/cairndb/cairn/kvnode/replica"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/pdpb"
)

// reportTimeout bounds one call to PD.
const reportTimeout = 3 * time.Second

// reporter tells PD about the store and the regions led here.
type reporter struct {
	s      *Store
	ctx    context.Context // the reporter's life
	cancel context.CancelFunc
	start  time.Time

	wake  chan struct{} // holds a token when dirty is not empty
	mu    sync.Mutex    // protects the fields below
	dirty map[*replica.Replica]struct{}
	gone  []*replica.Replica // replicas that written need not know any more

	written map[*replica.Replica]uint64 // bytes written at the last report; of run only
}

func newReporter(s *Store) *reporter {
	p := &reporter{
		s: s, start: time.Now(), wake: make(chan struct{}, 1),
		dirty: make(map[*replica.Replica]struct{}), written: make(map[*replica.Replica]uint64),
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

// changed asks for a report of r at once.
func (p *reporter) changed(r *replica.Replica) {
	p.mu.Lock()
	p.dirty[r] = struct{}{}
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *reporter) run() {
	storeClock := time.NewTicker(p.s.o.StoreHeartbeat)
	defer storeClock.Stop()
	regionClock := time.NewTicker(p.s.o.RegionHeartbeat)
	defer regionClock.Stop()
	p.reportStore()
	for {
		select {
		case <-p.s.stop:
			return
		case <-p.wake:
			p.mu.Lock()
			dirty := p.dirty
			p.dirty = make(map[*replica.Replica]struct{})
			p.mu.Unlock()
			for r := range dirty {
				p.reportRegion(r, 0)
			}
		case <-storeClock.C:
			p.reportStore()
		case <-regionClock.C:
			p.mu.Lock()
			for _, r := range p.gone {
				delete(p.written, r)
			}
			p.gone = nil
			p.mu.Unlock()
			for _, r := range p.s.replicas() {
				p.reportRegion(r, p.size(r))
			}
		}
	}
}

// forget drops what is kept of a replica that is gone.
func (p *reporter) forget(r *replica.Replica) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.dirty, r)
	p.gone = append(p.gone, r)
}

func (p *reporter) reportStore() {
	regions, leaders := p.s.count()
	stats := &pdpb.StoreStats{
		StoreId:       p.s.meta.GetId(),
		RegionCount:   uint32(regions),
		LeaderCount:   uint32(leaders),
		UsedBytes:     p.s.engine.DiskBytes(),
		StartTimeUnix: p.start.Unix(),
	}
	stats.EvictLeaders, stats.EvictReason = p.s.disk.state()
	stats.DiskFull = p.s.space.full.Load() != nil
	if disk, err := p.s.o.FS.GetDiskUsage(p.s.o.Dir); err == nil {
		stats.CapacityBytes, stats.AvailableBytes = disk.TotalBytes, disk.AvailBytes
	}
	ctx, cancel := context.WithTimeout(p.ctx, reportTimeout)
	defer cancel()
	_, err := p.s.o.PD.StoreHeartbeat(ctx, stats)
	p.sent("store", err)
}

// size estimates the bytes of a region on disk, 0 when that fails.
func (p *reporter) size(r *replica.Replica) uint64 {
	meta := r.View().Meta()
	n, err := p.s.engine.ApproximateBytes(meta.GetStartKey(), meta.GetEndKey())
	if err != nil {
		p.s.log.Warn("estimate the size of a region", "region", r.ID(), "err", err)
	}
	return n
}

// reportRegion tells PD about a region if it is led here. A size of 0 is unknown.
func (p *reporter) reportRegion(r *replica.Replica, size uint64) {
	v := r.View()
	if !v.Leading() {
		return
	}
	written := r.WrittenBytes()
	req := &pdpb.RegionHeartbeatRequest{
		Region: v.Meta(), Leader: &kvpb.Peer{Id: r.Peer().GetId(), StoreId: r.Peer().GetStoreId(), Role: r.Peer().GetRole()},
		Term: v.Term(), ApproximateBytes: size, WrittenBytes: written - p.written[r],
	}
	health := r.Peers()
	req.PendingPeers = health.Pending
	for _, d := range health.Down {
		req.DownPeers = append(req.DownPeers, &pdpb.DownPeer{Peer: d.Peer, DownSeconds: uint32(d.For / time.Second)})
	}
	p.written[r] = written
	ctx, cancel := context.WithTimeout(p.ctx, reportTimeout)
	defer cancel()
	p.sent("region", p.s.o.PD.RegionHeartbeat(ctx, req))
}

func (p *reporter) sent(kind string, err error) {
	result := "ok"
	if err != nil {
		result = "error"
		if p.ctx.Err() == nil {
			p.s.log.Warn("report to PD", "kind", kind, "err", err)
		}
	}
	p.s.metrics.heartbeats.WithLabelValues(kind, result).Inc()
}
