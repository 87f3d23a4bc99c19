package clustertest

import (
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/cairndb/cairn/proto/kvpb"
)

// firstLeader is who leads the first region, as a store has told whoever follows it.
type firstLeader struct {
	told  atomic.Uint64
	ended chan struct{} // closed when it is not followed any more
}

// followFirst asks p who leads the first region whenever it says that this may have changed.
func (c *cluster) followFirst(p *process) {
	defer close(p.first.ended)
	for {
		leader, changed := p.store.FirstRegion()
		p.first.told.Store(leader)
		select {
		case <-changed:
		case <-p.disk.ended:
			return
		}
	}
}

// checkFirst makes sure that nobody has missed who leads the first region.
func (c *cluster) checkFirst() {
	var why string
	agree := func() bool {
		first := c.pd.all()[0]
		leads := first.GetLeader().GetStoreId()
		for _, n := range c.nodes {
			p := n.run.Load()
			if p == nil {
				continue
			}
			want := leads
			if !slices.ContainsFunc(first.GetRegion().GetPeers(), func(peer *kvpb.Peer) bool { return peer.GetStoreId() == n.id }) {
				want = 0
			}
			if now, _ := p.store.FirstRegion(); now != want || p.first.told.Load() != want {
				why = fmt.Sprintf("store %d says store %d, has told of store %d, it is store %d", n.id, now, p.first.told.Load(), want)
				return false
			}
		}
		return true
	}
	for end := c.now() + 10*time.Second; !agree(); time.Sleep(100 * time.Millisecond) {
		if c.now() > end {
			c.fail("who leads the first region: %s", why)
		}
	}
}
