package rafttransport

import (
	"errors"
	"sync"
	"syscall"

	"github.com/cairndb/cairn/proto/replpb"
)

// peer is another store.
type peer struct {
	n       *Network
	store   uint64
	links   [2]*link    // by stream, to the store
	inbound [2]*inbound // by stream, from the store

	mu struct {
		sync.Mutex
		open    int    // streams from the store
		reached bool   // the last attempt to connect to it succeeded
		refused bool   // it was refused
		addr    string // resolved last; empty: never
	}
}

func newPeer(n *Network, store uint64) *peer {
	p := &peer{n: n, store: store}
	for s := range p.links {
		p.links[s] = newLink(p, replpb.MessageStream(s))
		p.inbound[s] = &inbound{}
	}
	return p
}

// dialled notes the outcome of an attempt to connect to the store.
func (p *peer) dialled(err error) {
	p.mu.Lock()
	p.mu.reached = err == nil
	p.mu.refused = errors.Is(err, syscall.ECONNREFUSED)
	gone := p.goneLocked()
	p.mu.Unlock()
	p.lostIf(gone)
}

// reachable is whether the last attempt to connect succeeded.
func (p *peer) reachable() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.reached
}

// streams notes that a stream from the store was opened (1) or has ended (-1).
func (p *peer) streams(change int) {
	p.mu.Lock()
	p.mu.open += change
	gone := p.goneLocked()
	p.mu.Unlock()
	p.lostIf(gone)
	if change > 0 { // it lives: try again at once
		for _, l := range p.links {
			l.retry()
		}
	}
}

// goneLocked: nobody listens there, and no stream of the process is left.
func (p *peer) goneLocked() bool { return p.mu.refused && p.mu.open == 0 }

func (p *peer) lostIf(gone bool) {
	if gone && p.n.tracker.Refused(p.store) {
		p.n.kickMonitor()
	}
}
