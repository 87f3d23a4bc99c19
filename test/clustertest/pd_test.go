package clustertest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cairndb/cairn/pd/pdclient"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/pdpb"
)

// fakePD knows what the heartbeats tell and gives out ids. It wants nothing by itself:
// tests send steps.
type fakePD struct {
	mu      sync.Mutex
	nextID  uint64
	booted  bool
	regions map[uint64]*pdpb.RegionHeartbeatRequest // the newest report of every region
	conns   map[uint64]*pdConn                      // by store

	timestamps oracle
	safePoint  atomic.Uint64
}

const clusterID = 7

func newFakePD() *fakePD {
	return &fakePD{nextID: 1, regions: map[uint64]*pdpb.RegionHeartbeatRequest{}, conns: map[uint64]*pdConn{}}
}

func (p *fakePD) ids(n int) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	first := p.nextID
	p.nextID += uint64(n)
	return first
}

// all returns the reports of all regions in key order.
func (p *fakePD) all() []*pdpb.RegionHeartbeatRequest {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []*pdpb.RegionHeartbeatRequest
	for _, r := range p.regions {
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b *pdpb.RegionHeartbeatRequest) int {
		return cmp.Or(bytes.Compare(a.GetRegion().GetStartKey(), b.GetRegion().GetStartKey()), cmp.Compare(a.GetRegion().GetId(), b.GetRegion().GetId()))
	})
	return out
}

func (p *fakePD) get(id uint64) *pdpb.RegionHeartbeatRequest {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.regions[id]
}

// send gives a step to the leader of a region as it was reported last.
func (p *fakePD) send(r *pdpb.RegionHeartbeatRequest, step *pdpb.RegionHeartbeatResponse) {
	step.RegionId, step.Epoch, step.TargetPeer = r.GetRegion().GetId(), r.GetRegion().GetEpoch(), r.GetLeader()
	p.mu.Lock()
	c := p.conns[r.GetLeader().GetStoreId()]
	p.mu.Unlock()
	if c == nil || c.cut.Load() {
		return
	}
	if fn := c.step.Load(); fn != nil {
		(*fn)(step)
	}
}

func (p *fakePD) report(req *pdpb.RegionHeartbeatRequest) {
	p.mu.Lock()
	defer p.mu.Unlock()
	region := req.GetRegion()
	epoch := region.GetEpoch()
	if old := p.regions[region.GetId()]; old != nil {
		have := old.GetRegion().GetEpoch()
		if have.GetVersion() > epoch.GetVersion() || have.GetConfVer() > epoch.GetConfVer() || old.GetTerm() > req.GetTerm() {
			return
		}
	}
	for id, other := range p.regions {
		if id == region.GetId() || !overlap(other.GetRegion(), region) {
			continue
		}
		if other.GetRegion().GetEpoch().GetVersion() >= epoch.GetVersion() {
			return
		}
	}
	for id, other := range p.regions {
		if id != region.GetId() && overlap(other.GetRegion(), region) {
			delete(p.regions, id)
		}
	}
	p.regions[region.GetId()] = req
}

func overlap(a, b *kvpb.Region) bool {
	return (len(a.GetEndKey()) == 0 || bytes.Compare(b.GetStartKey(), a.GetEndKey()) < 0) &&
		(len(b.GetEndKey()) == 0 || bytes.Compare(a.GetStartKey(), b.GetEndKey()) < 0)
}

// pdConn is PD as one run of a store reaches it.
type pdConn struct {
	*fakePD
	cut  atomic.Bool
	step atomic.Pointer[func(*pdpb.RegionHeartbeatResponse)]
}

var errCut = errors.New("PD does not answer")

func (c *pdConn) err() error {
	if c.cut.Load() {
		return errCut
	}
	return nil
}

func (c *pdConn) ClusterID() uint64 { return clusterID }

func (c *pdConn) IsBootstrapped(context.Context) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.booted, c.err()
}

func (c *pdConn) Bootstrap(_ context.Context, _ *kvpb.Store, region *kvpb.Region) error {
	if err := c.err(); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.booted {
		return pdclient.ErrAlreadyBootstrapped
	}
	c.booted = true
	c.regions[region.GetId()] = &pdpb.RegionHeartbeatRequest{Region: region}
	return nil
}

func (c *pdConn) AllocIDs(_ context.Context, n int) (uint64, error) { return c.ids(n), c.err() }

func (c *pdConn) PutStore(_ context.Context, s *kvpb.Store) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conns[s.GetId()] = c
	return c.err()
}

func (c *pdConn) GetRegion(_ context.Context, key []byte) (*kvpb.Region, *kvpb.Peer, error) {
	if err := c.err(); err != nil {
		return nil, nil, err
	}
	for _, r := range c.all() {
		if contains(r.GetRegion(), key) {
			return r.GetRegion(), r.GetLeader(), nil
		}
	}
	return nil, nil, pdclient.ErrRegionNotFound
}

func contains(r *kvpb.Region, key []byte) bool {
	return bytes.Compare(r.GetStartKey(), key) <= 0 && (len(r.GetEndKey()) == 0 || bytes.Compare(key, r.GetEndKey()) < 0)
}

func (c *pdConn) GetRegionByID(_ context.Context, id uint64) (*kvpb.Region, *kvpb.Peer, error) {
	if err := c.err(); err != nil {
		return nil, nil, err
	}
	if r := c.get(id); r != nil {
		return r.GetRegion(), r.GetLeader(), nil
	}
	return nil, nil, pdclient.ErrRegionNotFound
}

func (c *pdConn) AskSplit(_ context.Context, region *kvpb.Region, n int) ([]*pdpb.SplitID, error) {
	var ids []*pdpb.SplitID
	for range n {
		peers := len(region.GetPeers())
		first := c.ids(1 + peers)
		id := &pdpb.SplitID{RegionId: first}
		for i := range peers {
			id.PeerIds = append(id.PeerIds, first+1+uint64(i))
		}
		ids = append(ids, id)
	}
	return ids, c.err()
}

func (c *pdConn) StoreHeartbeat(context.Context, *pdpb.StoreStats) (*pdpb.StoreHeartbeatResponse, error) {
	return &pdpb.StoreHeartbeatResponse{SafePoint: c.safePoint.Load()}, c.err()
}

func (c *pdConn) RegionHeartbeat(_ context.Context, req *pdpb.RegionHeartbeatRequest) error {
	if err := c.err(); err != nil {
		return err
	}
	c.report(req)
	return nil
}

func (c *pdConn) OnRegionStep(fn func(*pdpb.RegionHeartbeatResponse)) { c.step.Store(&fn) }
