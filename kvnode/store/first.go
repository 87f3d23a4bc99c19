package store

import (
	"sync"

	"github.com/cairndb/cairn/kvnode/replica"
)

// firstWatch tells that another store may lead the first region.
type firstWatch struct {
	mu      sync.Mutex // protects changed
	changed chan struct{}
}

func (w *firstWatch) next() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.changed == nil {
		w.changed = make(chan struct{})
	}
	return w.changed
}

func (w *firstWatch) tell() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.changed != nil {
		close(w.changed)
		w.changed = nil
	}
}

// FirstRegion returns which store leads the first region, the one that contains the
// smallest key, as its replica here knows; 0 when that does not know or there is none. The
// channel is closed when the answer may be another.
func (s *Store) FirstRegion() (leader uint64, changed <-chan struct{}) {
	changed = s.first.next()
	s.mu.RLock()
	r, ok := s.byStart.Get("")
	s.mu.RUnlock()
	if !ok {
		return 0, changed
	}
	v := r.View()
	if len(v.Meta().GetStartKey()) > 0 { // a split is under way
		return 0, changed
	}
	if v.Leading() {
		return s.meta.GetId(), changed
	}
	if leader = v.Leader().GetStoreId(); leader == s.meta.GetId() {
		leader = 0 // not any more
	}
	return leader, changed
}

// firstMayBe tells those who watch the first region if r is, or was, a replica of it.
func (s *Store) firstMayBe(r *replica.Replica) {
	if len(r.View().Meta().GetStartKey()) == 0 {
		s.first.tell()
		return
	}
	s.mu.RLock()
	first, ok := s.byStart.Get("")
	s.mu.RUnlock()
	if ok && first == r {
		s.first.tell()
	}
}
