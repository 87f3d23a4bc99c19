package kvclient

import (
	"log/slog"
	"sync"
	"time"
)

// slowLog passes one line a second: when a store dies, everything in flight on it
// is slow, and one line about it says as much as a thousand.
type slowLog struct {
	mu      sync.Mutex
	next    time.Duration // by Client.clock
	dropped int
}

func (l *slowLog) take(now time.Duration) (dropped int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now < l.next {
		l.dropped++
		return 0, false
	}
	l.next = now + time.Second
	dropped, l.dropped = l.dropped, 0
	return dropped, true
}

// slow notes an operation that took long, or whose patience ran out.
func (c *Client) slow(s *sending, err error) {
	took := time.Since(s.began)
	if took < slowRequest {
		return
	}
	c.metrics.slow.Inc()
	dropped, ok := c.slowLog.take(c.clock())
	if !ok {
		return
	}
	attrs := []any{"op", s.bo.op, "region", s.target.GetId(), "took", took.Round(time.Millisecond), "attempts", s.attempts}
	if s.at != nil {
		attrs = append(attrs, "store", s.at.peer.StoreId)
	}
	for k := range s.bo.kinds {
		if slept := s.bo.kinds[k].slept; slept > 0 {
			attrs = append(attrs, slog.Duration("wait_"+backoffTable[k].name, slept.Round(time.Millisecond)))
		}
	}
	if dropped > 0 {
		attrs = append(attrs, "not_logged", dropped)
	}
	if err != nil {
		c.opts.Logger.Warn("kv request failed", append(attrs, "err", err)...)
		return
	}
	if n := len(s.bo.last); n > 0 {
		attrs = append(attrs, "last_err", s.bo.last[n-1])
	}
	c.opts.Logger.Info("kv request was slow", attrs...)
}
