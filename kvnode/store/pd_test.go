package store

import (
	"context"
	"sync"

	"github.com/cairndb/cairn/pd/pdclient"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/pdpb"
)

// fakePD is a placement driver that remembers, and survives what it is asked to.
type fakePD struct {
	cluster uint64

	mu      sync.Mutex
	nextID  uint64
	regions map[uint64]*kvpb.Region // newest epoch reported
	stores  map[uint64]*kvpb.Store
	booted  bool
	beats   chan struct{} // receives a token per region heartbeat, when there is room
	fail    map[string]error
}

func newFakePD(cluster uint64) *fakePD {
	return &fakePD{
		cluster: cluster, nextID: 1, regions: map[uint64]*kvpb.Region{}, stores: map[uint64]*kvpb.Store{},
		beats: make(chan struct{}, 1), fail: map[string]error{},
	}
}

func (p *fakePD) ClusterID() uint64 { return p.cluster }

func (p *fakePD) IsBootstrapped(context.Context) (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.booted, p.fail["IsBootstrapped"]
}

func (p *fakePD) Bootstrap(_ context.Context, store *kvpb.Store, region *kvpb.Region) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.fail["Bootstrap"]; err != nil {
		return err
	}
	if p.booted {
		return pdclient.ErrAlreadyBootstrapped
	}
	p.booted = true
	p.stores[store.GetId()] = store
	p.regions[region.GetId()] = region
	return p.fail["BootstrapAnswer"]
}

func (p *fakePD) AllocIDs(_ context.Context, n int) (uint64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	first := p.nextID
	p.nextID += uint64(n)
	return first, nil
}

func (p *fakePD) PutStore(_ context.Context, store *kvpb.Store) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stores[store.GetId()] = store
	return nil
}

func (p *fakePD) GetRegionByID(_ context.Context, id uint64) (*kvpb.Region, *kvpb.Peer, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r := p.regions[id]; r != nil {
		return r, nil, nil
	}
	return nil, nil, pdclient.ErrRegionNotFound
}

func (p *fakePD) GetRegion(_ context.Context, key []byte) (*kvpb.Region, *kvpb.Peer, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.regions {
		if string(r.GetStartKey()) <= string(key) && (len(r.GetEndKey()) == 0 || string(key) < string(r.GetEndKey())) {
			return r, nil, nil
		}
	}
	return nil, nil, pdclient.ErrRegionNotFound
}

func (p *fakePD) OnRegionStep(fn func(*pdpb.RegionHeartbeatResponse)) {}

func (p *fakePD) AskSplit(_ context.Context, region *kvpb.Region, n int) ([]*pdpb.SplitID, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var ids []*pdpb.SplitID
	for range n {
		id := &pdpb.SplitID{RegionId: p.nextID}
		p.nextID++
		for range region.GetPeers() {
			id.PeerIds = append(id.PeerIds, p.nextID)
			p.nextID++
		}
		ids = append(ids, id)
	}
	return ids, p.fail["AskSplit"]
}

func (p *fakePD) StoreHeartbeat(context.Context, *pdpb.StoreStats) (*pdpb.StoreHeartbeatResponse, error) {
	return &pdpb.StoreHeartbeatResponse{}, nil
}

func (p *fakePD) RegionHeartbeat(_ context.Context, req *pdpb.RegionHeartbeatRequest) error {
	p.mu.Lock()
	p.regions[req.GetRegion().GetId()] = req.GetRegion()
	p.mu.Unlock()
	select {
	case p.beats <- struct{}{}:
	default:
	}
	return nil
}

func (p *fakePD) region(id uint64) *kvpb.Region {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.regions[id]
}
