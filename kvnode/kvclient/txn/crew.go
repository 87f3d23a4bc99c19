package txn

import "sync"

// idleWorkers is how many goroutines a crew keeps waiting for work.
const idleWorkers = 64

// crew runs functions in goroutines that it keeps: a request to the KV tier of
// the same process goes deep, and a goroutine that has to grow its stack for
// one of them spends as much on that as on the request.
type crew struct {
	work chan func() // unbuffered: a send succeeds when somebody waits
	stop chan struct{}
	all  sync.WaitGroup

	mu     sync.Mutex
	idle   int  // protected by mu
	closed bool // protected by mu
}

func newCrew() *crew { return &crew{work: make(chan func()), stop: make(chan struct{})} }

// run calls fn in another goroutine and does not wait; after close it calls fn
// itself.
func (c *crew) run(fn func()) {
	select {
	case c.work <- fn:
		return
	default:
	}
	c.mu.Lock()
	closed := c.closed
	if !closed {
		c.all.Go(func() { c.serve(fn) })
	}
	c.mu.Unlock()
	if closed {
		fn()
	}
}

func (c *crew) serve(fn func()) {
	for fn != nil {
		fn()
		fn = c.next()
	}
}

// next waits for work; nil means that enough others do.
func (c *crew) next() func() {
	c.mu.Lock()
	if c.idle >= idleWorkers || c.closed {
		c.mu.Unlock()
		return nil
	}
	c.idle++
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		c.idle--
		c.mu.Unlock()
	}()
	select {
	case fn := <-c.work:
		return fn
	case <-c.stop:
		return nil
	}
}

// close ends the goroutines that wait and waits for all. It may be called again.
func (c *crew) close() {
	c.mu.Lock()
	if !c.closed {
		c.closed = true
		close(c.stop)
	}
	c.mu.Unlock()
	c.all.Wait()
}
