package store

import (
	"sync"
	"time"

	"github.com/cairndb/cairn/kvnode/replica"
)

// ticker ticks the replicas that are awake, and sleeps when there are none.
type ticker struct {
	every time.Duration
	wake  chan struct{} // holds a token when the first replica has woken up

	mu    sync.Mutex // protects awake
	awake map[*replica.Replica]struct{}
}

func newTicker(every time.Duration) *ticker {
	return &ticker{every: every, wake: make(chan struct{}, 1), awake: make(map[*replica.Replica]struct{})}
}

func (t *ticker) setAwake(r *replica.Replica, awake bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !awake {
		delete(t.awake, r)
		return
	}
	t.awake[r] = struct{}{}
	if len(t.awake) == 1 {
		select {
		case t.wake <- struct{}{}:
		default:
		}
	}
}

func (t *ticker) run(stop <-chan struct{}) {
	for {
		select {
		case <-t.wake:
		case <-stop:
			return
		}
		if !t.tickWhileAwake(stop) {
			return
		}
	}
}

// tickWhileAwake returns false when it was stopped.
func (t *ticker) tickWhileAwake(stop <-chan struct{}) bool {
	clock := time.NewTicker(t.every)
	defer clock.Stop()
	var due []*replica.Replica
	for {
		select {
		case <-clock.C:
		case <-stop:
			return false
		}
		due = due[:0]
		t.mu.Lock()
		for r := range t.awake {
			due = append(due, r)
		}
		t.mu.Unlock()
		if len(due) == 0 {
			return true
		}
		for _, r := range due {
			r.Tick()
		}
		clear(due)
	}
}
