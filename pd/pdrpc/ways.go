package pdrpc

import (
	"sync"

	"github.com/cairndb/cairn/proto/pdpb"
)

// ways lead to the stores: whoever reported last for a store takes its steps. Safe
// for concurrent use.
type ways struct {
	mu      sync.Mutex
	byStore map[uint64]func(*pdpb.RegionHeartbeatResponse) bool
}

func (w *ways) remember(store uint64, deliver func(*pdpb.RegionHeartbeatResponse) bool) {
	if deliver == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.byStore == nil {
		w.byStore = make(map[uint64]func(*pdpb.RegionHeartbeatResponse) bool)
	}
	w.byStore[store] = deliver
}

// send hands a step to the store, if there is a way to it.
func (w *ways) send(store uint64, resp *pdpb.RegionHeartbeatResponse) {
	w.mu.Lock()
	deliver := w.byStore[store]
	w.mu.Unlock()
	if deliver == nil || deliver(resp) { // not under the lock: it may call back
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.byStore, store) // if a new way came meanwhile, its next report brings it back
}

// PushStep hands a step to the store of the peer it is meant for.
func (h *Handler) PushStep(l *Leadership, resp *pdpb.RegionHeartbeatResponse) {
	resp.Header = l.end(nil)
	h.ways.send(resp.GetTargetPeer().GetStoreId(), resp)
}
