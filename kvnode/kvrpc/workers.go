package kvrpc

import "sync"

// maxIdle workers stay around when there is nothing to do.
const maxIdle = 64

// workers runs functions on goroutines that live on: a fresh goroutine would grow
// its stack through the storage engine again for every request, which costs more
// than the hand-over. There is no limit on how many run; callers bound themselves.
type workers struct {
	tasks chan func() // unbuffered: a send succeeds only if a worker is idle

	mu     sync.Mutex
	idle   int
	closed bool
	wg     sync.WaitGroup
}

func newWorkers() *workers { return &workers{tasks: make(chan func())} }

// run executes f on some goroutine and does not wait for it. Not to be called
// after close.
func (w *workers) run(f func()) {
	select {
	case w.tasks <- f:
	default:
		w.wg.Add(1)
		go w.work(f)
	}
}

func (w *workers) work(f func()) {
	defer w.wg.Done()
	for {
		f()
		if !w.stay() {
			return
		}
		next, ok := <-w.tasks
		w.mu.Lock()
		w.idle--
		w.mu.Unlock()
		if !ok {
			return
		}
		f = next
	}
}

func (w *workers) stay() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || w.idle >= maxIdle {
		return false
	}
	w.idle++
	return true
}

// close waits for what runs. The caller makes sure that run is not called any more.
func (w *workers) close() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	close(w.tasks)
	w.wg.Wait()
}
