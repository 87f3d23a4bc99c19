package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cairndb/cairn/kvnode/replica"
	"github.com/cairndb/cairn/pd/pdclient"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/pdpb"
)

// reportTimeout bounds one call to PD.
const reportTimeout = 3 * time.Second

// removedGrace is how long a store that was removed waits for its process to be ended in order.
const removedGrace = 10 * time.Second

// reporter tells PD about the store and the regions led here.
type reporter struct {
	s      *Store
	pd     PD
	ctx    context.Context // the reporter's life
	cancel context.CancelFunc
	start  time.Time

	wake  chan struct{} // holds a token when dirty is not empty
	mu    sync.Mutex    // protects dirty
	dirty map[*replica.Replica]struct{}

	// The fields below belong to run.

	told    map[*replica.Replica]*told
	pass    int       // over all replicas
	storeAt time.Time // of the last report of the store
	removed time.Time // when PD began to say that the store was removed; zero = it does not
}

// told is what PD has been told of a replica.
type told struct {
	at    time.Time    // of the last report of the region; zero before the first
	term  uint64       // of the last report of the region
	sized uint64       // the version of which the size was told
	load  replica.Load // in reports of the region
	store replica.Load // in reports of the store
	pass  int          // the last one that found the replica
}

// An idle region is reported idleFactor times more rarely than others. Regions are
// looked at lookFactor times as often as one of them is reported.
const (
	idleFactor = 6
	lookFactor = 10
)

func newReporter(s *Store) *reporter {
	p := &reporter{
		s: s, pd: s.o.PD, start: time.Now(), wake: make(chan struct{}, 1),
		dirty: make(map[*replica.Replica]struct{}), told: make(map[*replica.Replica]*told), storeAt: time.Now(),
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

// reportChanged reports the regions that have changed.
func (p *reporter) reportChanged(now time.Time) {
	p.mu.Lock()
	dirty := p.dirty
	p.dirty = make(map[*replica.Replica]struct{})
	p.mu.Unlock()
	for r := range dirty {
		p.reportRegion(now, r, 0)
		p.of(r).sized = 0 // measured soon, even if nobody uses it
	}
}

func (p *reporter) run() {
	storeClock := time.NewTicker(p.s.o.StoreHeartbeat)
	defer storeClock.Stop()
	regionClock := time.NewTicker(max(p.s.o.RegionHeartbeat/lookFactor, 1))
	defer regionClock.Stop()
	p.reportStore()
	for {
		select {
		case <-p.s.stop:
			return
		case <-p.wake:
			p.reportChanged(time.Now())
		case <-storeClock.C:
			p.reportStore()
		case now := <-regionClock.C:
			p.reportDue(now)
		}
	}
}

// forget drops what is to be reported of a replica that is gone.
func (p *reporter) forget(r *replica.Replica) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.dirty, r)
}

func (p *reporter) of(r *replica.Replica) *told {
	t := p.told[r]
	if t == nil {
		t = &told{pass: p.pass}
		p.told[r] = t
	}
	return t
}

func (p *reporter) reportStore() {
	now := time.Now()
	stats := &pdpb.StoreStats{
		StoreId:            p.s.meta.GetId(),
		UsedBytes:          p.s.engine.DiskBytes(),
		StartTimeUnix:      p.start.Unix(),
		SendingSnapshots:   uint32(p.s.sending.Load()),
		ReceivingSnapshots: p.s.receiving(),
		IntervalMs:         uint32(now.Sub(p.storeAt).Milliseconds()),
	}
	stats.EvictLeaders, stats.EvictReason = p.s.disk.state()
	stats.DiskFull = p.s.space.full.Load() != nil
	p.storeAt = now
	p.sumUp(stats)
	if disk, err := p.s.o.FS.GetDiskUsage(p.s.o.Dir); err == nil {
		stats.CapacityBytes, stats.AvailableBytes = disk.TotalBytes, disk.AvailBytes
	}
	ctx, cancel := context.WithTimeout(p.ctx, reportTimeout)
	defer cancel()
	resp, err := p.pd.StoreHeartbeat(ctx, stats)
	p.sent("store", err)
	p.noticeRemoval(now, err)
	if err != nil {
		return
	}
	p.s.adoptSizes(resp.GetRegionSplitBytes(), resp.GetRegionMaxBytes())
	p.s.safePoint.Store(resp.GetSafePoint())
	if resp.GetReportRegions() {
		for _, r := range p.s.replicas() {
			p.reportRegion(now, r, 0)
		}
	}
}

// noticeRemoval ends a store that PD has removed for good: nothing will be placed
// here any more, and what is left of regions is out of date.
func (p *reporter) noticeRemoval(now time.Time, err error) {
	switch {
	case !errors.Is(err, pdclient.ErrStoreTombstone):
		p.removed = time.Time{}
	case p.removed.IsZero():
		p.removed = now
		p.s.log.Error("this store was removed from the cluster: everything it held is elsewhere; its data directory can be deleted")
	case now.Sub(p.removed) >= removedGrace:
		p.s.o.OnFatal(fmt.Sprintf("store %d was removed from the cluster; stop this node and delete its data directory %s", p.s.meta.GetId(), p.s.o.Dir))
	}
}

// sumUp adds up the replicas.
func (p *reporter) sumUp(stats *pdpb.StoreStats) {
	var sum replica.Load
	p.pass++
	replicas := p.s.replicas()
	for _, r := range replicas {
		stats.RegionCount++
		if r.View().Leading() {
			stats.LeaderCount++
		}
		t, load := p.of(r), r.Load()
		sum = sum.Plus(load.Minus(t.store))
		t.store, t.pass = load, p.pass
	}
	stats.WrittenBytes, stats.WrittenKeys = sum.WrittenBytes, sum.WrittenKeys
	stats.ReadBytes, stats.ReadKeys = sum.ReadBytes, sum.ReadKeys
	if len(p.told) > len(replicas) {
		for r, t := range p.told {
			if t.pass != p.pass {
				delete(p.told, r)
			}
		}
	}
}

// reportDue reports the regions led here whose time has come.
func (p *reporter) reportDue(now time.Time) {
	for _, r := range p.s.replicas() {
		if !r.View().Leading() {
			continue
		}
		t := p.of(r)
		wait := p.s.o.RegionHeartbeat
		if r.Load() == t.load && t.sized == r.View().Meta().GetEpoch().GetVersion() {
			// Not all at the same time although they may have begun together.
			wait = wait * idleFactor * time.Duration(64-r.ID()%16) / 64
		}
		if now.Sub(t.at) >= wait {
			p.reportRegion(now, r, p.size(r))
			t.sized = r.View().Meta().GetEpoch().GetVersion()
		}
	}
}

// size estimates the bytes of a region on disk, at least 1; 0 when that fails.
func (p *reporter) size(r *replica.Replica) uint64 {
	meta := r.View().Meta()
	n, err := p.s.engine.ApproximateBytes(meta.GetStartKey(), meta.GetEndKey())
	if err != nil {
		p.s.log.Warn("estimate the size of a region", "region", r.ID(), "err", err)
		return 0
	}
	return max(n, 1) // 0 is unknown: PD would believe what it was told before
}

// reportRegion tells PD about a region if it is led here. A size of 0 is unknown.
func (p *reporter) reportRegion(now time.Time, r *replica.Replica, size uint64) {
	v := r.View()
	if !v.Leading() {
		return
	}
	t, load := p.of(r), r.Load()
	if t.term != v.Term() {
		// What a follower wrote meanwhile, and did not read, says nothing about the region.
		t.term, t.at, t.load = v.Term(), now, load
		r.TakeFrom()
	}
	since := load.Minus(t.load)
	req := &pdpb.RegionHeartbeatRequest{
		Region: v.Meta(), Leader: &kvpb.Peer{Id: r.Peer().GetId(), StoreId: r.Peer().GetStoreId(), Role: r.Peer().GetRole()},
		Term: v.Term(), ApproximateBytes: size,
		// 1 for what cannot be told: PD would take the time since another leader's report for it.
		IntervalMs:   uint32(max(1, now.Sub(t.at).Milliseconds())),
		WrittenBytes: since.WrittenBytes, WrittenKeys: since.WrittenKeys,
		ReadBytes: since.ReadBytes, ReadKeys: since.ReadKeys, Queries: since.Queries,
	}
	health := r.Peers()
	req.PendingPeers = health.Pending
	for _, d := range health.Down {
		req.DownPeers = append(req.DownPeers, &pdpb.DownPeer{Peer: d.Peer, DownSeconds: uint32(d.For / time.Second)})
	}
	for _, f := range r.TakeFrom() {
		req.QueriesFrom = append(req.QueriesFrom, &pdpb.StoreQueries{StoreId: f.Store, Queries: f.Queries})
	}
	t.at, t.load = now, load
	ctx, cancel := context.WithTimeout(p.ctx, reportTimeout)
	defer cancel()
	p.sent("region", p.pd.RegionHeartbeat(ctx, req))
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
