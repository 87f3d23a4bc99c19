package store

import (
	"runtime"
	"sync"

	"github.com/cairndb/cairn/kvnode/replica"
)

// maxShards bounds the goroutines that visit replicas.
const maxShards = 8

// scheduler visits replicas that have something to do, each by one goroutine at
// a time. A replica belongs to one shard, a shard has one worker: replicas of
// different shards proceed in parallel, and a worker that falls behind finds
// more to do per visit.
type scheduler struct {
	shards []*shard
	wg     sync.WaitGroup
}

type shard struct {
	mu      sync.Mutex // protects the fields below and the Slots of its replicas
	work    sync.Cond
	queue   []*replica.Replica // FIFO
	stopped bool
}

func newScheduler() *scheduler {
	s := &scheduler{}
	for range min(runtime.GOMAXPROCS(0), maxShards) {
		sh := &shard{}
		sh.work.L = &sh.mu
		s.shards = append(s.shards, sh)
	}
	for _, sh := range s.shards {
		s.wg.Go(sh.run)
	}
	return s
}

// assign gives a replica its shard, before anybody schedules it.
func (s *scheduler) assign(r *replica.Replica) {
	r.Slot.Shard = int(r.ID() % uint64(len(s.shards)))
}

// schedule asks for a visit; if one is running, for another after it.
func (s *scheduler) schedule(r *replica.Replica) {
	sh := s.shards[r.Slot.Shard]
	sh.mu.Lock()
	wake := false
	switch {
	case sh.stopped || r.Slot.Queued:
	case r.Slot.Running:
		r.Slot.Again = true
	default:
		r.Slot.Queued = true
		sh.queue = append(sh.queue, r)
		wake = len(sh.queue) == 1
	}
	sh.mu.Unlock()
	if wake {
		sh.work.Signal()
	}
}

// stop ends the workers after they have done what is queued.
func (s *scheduler) stop() {
	for _, sh := range s.shards {
		sh.mu.Lock()
		sh.stopped = true
		sh.mu.Unlock()
		sh.work.Signal()
	}
	s.wg.Wait()
}

// run is a shard's worker. It takes all that is queued at a time.
func (sh *shard) run() {
	var batch []*replica.Replica
	sh.mu.Lock()
	for {
		for len(sh.queue) == 0 && !sh.stopped {
			sh.work.Wait()
		}
		if len(sh.queue) == 0 {
			sh.mu.Unlock()
			return
		}
		batch, sh.queue = sh.queue, batch[:0]
		for i, r := range batch {
			r.Slot.Queued, r.Slot.Running = false, true
			sh.mu.Unlock()
			r.Visit()
			sh.mu.Lock()
			r.Slot.Running = false
			if r.Slot.Again {
				r.Slot.Again, r.Slot.Queued = false, true
				sh.queue = append(sh.queue, r)
			}
			batch[i] = nil
		}
	}
}
