package kvclient

import (
	"bytes"
	"context"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/cairndb/cairn/pd/pdclient"
	"github.com/cairndb/cairn/proto/kvpb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakePD knows regions and stores; everything else of the interface panics.
type fakePD struct {
	pdclient.Client
	mu      sync.Mutex
	regions []*kvpb.Region
	leaders map[uint64]*kvpb.Peer
	addrs   map[uint64]string
	labels  map[uint64][]*kvpb.StoreLabel
	asked   int
}

func (p *fakePD) set(regions ...*kvpb.Region) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.regions = regions
}

func (p *fakePD) GetRegion(ctx context.Context, key []byte) (*kvpb.Region, *kvpb.Peer, error) {
	return p.find(func(m *kvpb.Region) bool { return contains(m, key) })
}

func (p *fakePD) GetRegionBefore(ctx context.Context, key []byte) (*kvpb.Region, *kvpb.Peer, error) {
	return p.find(func(m *kvpb.Region) bool {
		if len(key) == 0 {
			return len(m.EndKey) == 0
		}
		return bytes.Compare(m.StartKey, key) < 0 && (len(m.EndKey) == 0 || bytes.Compare(key, m.EndKey) <= 0)
	})
}

func (p *fakePD) find(ok func(*kvpb.Region) bool) (*kvpb.Region, *kvpb.Peer, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked++
	for _, m := range p.regions {
		if ok(m) {
			return m, p.leaders[m.Id], nil
		}
	}
	return nil, nil, pdclient.ErrRegionNotFound
}

// lookups is how often PD was asked for a region.
func (p *fakePD) lookups() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked
}

func (p *fakePD) GetStore(_ context.Context, id uint64) (*kvpb.Store, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	addr, ok := p.addrs[id]
	if !ok && p.labels[id] == nil {
		return nil, pdclient.ErrStoreNotFound
	}
	return &kvpb.Store{Id: id, Address: addr, Labels: p.labels[id]}, nil
}

// region makes a region with voters on the stores; peer ids are id*100+store.
func region(id uint64, start, end string, version uint64, stores ...uint64) *kvpb.Region {
	if len(stores) == 0 {
		stores = []uint64{1}
	}
	m := &kvpb.Region{Id: id, StartKey: []byte(start), EndKey: []byte(end), Epoch: &kvpb.RegionEpoch{ConfVer: 1, Version: version}}
	for _, s := range stores {
		m.Peers = append(m.Peers, &kvpb.Peer{Id: id*100 + s, StoreId: s})
	}
	return m
}

// handlerFunc executes requests of one store.
type handlerFunc func(ctx context.Context, req *kvpb.Request) *kvpb.Response

func (f handlerFunc) Execute(ctx context.Context, req *kvpb.Request) *kvpb.Response {
	return f(ctx, req)
}

func (f handlerFunc) SplitRegion(context.Context, *kvpb.SplitRegionRequest) *kvpb.SplitRegionResponse {
	panic("not expected")
}

// local makes a client whose stores 1 to 3 are all this handler.
func local(t testing.TB, pd *fakePD, h Handler) *Client {
	c := New(Options{PD: pd, Local: func(uint64) Handler { return h }})
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

func getRequest(key string) *kvpb.Request {
	return &kvpb.Request{Cmd: &kvpb.Request_Get{Get: &kvpb.GetRequest{Key: []byte(key), ReadTs: 10}}}
}

func commitRequest(key string) *kvpb.Request {
	return &kvpb.Request{Cmd: &kvpb.Request_Commit{Commit: &kvpb.CommitRequest{Keys: [][]byte{[]byte(key)}, StartTs: 5, CommitTs: 9}}}
}

func prewriteRequest(key string, onePC bool) *kvpb.Request {
	return &kvpb.Request{Cmd: &kvpb.Request_Prewrite{Prewrite: &kvpb.PrewriteRequest{
		Mutations: []*kvpb.Mutation{{Key: []byte(key), Value: []byte("v")}}, StartTs: 5, TryOnePc: onePC}}}
}

// respond answers any of the requests above: with a region error, or well.
func respond(req *kvpb.Request, re *kvpb.RegionError) *kvpb.Response {
	switch c := req.Cmd.(type) {
	case *kvpb.Request_Get:
		return &kvpb.Response{Cmd: &kvpb.Response_Get{Get: &kvpb.GetResponse{RegionError: re, Value: append([]byte("v-"), c.Get.Key...)}}}
	case *kvpb.Request_Commit:
		return &kvpb.Response{Cmd: &kvpb.Response_Commit{Commit: &kvpb.CommitResponse{RegionError: re, CommitTs: c.Commit.CommitTs}}}
	case *kvpb.Request_Prewrite:
		return &kvpb.Response{Cmd: &kvpb.Response_Prewrite{Prewrite: &kvpb.PrewriteResponse{RegionError: re}}}
	}
	panic("unexpected request")
}
