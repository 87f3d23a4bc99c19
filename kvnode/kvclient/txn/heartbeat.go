package txn

import (
	"context"
	"sync"
	"time"

	"github.com/cairndb/cairn/proto/kvpb"
)

// heartbeat is a timer that refreshes the primary lock of a transaction and arms itself
// again.
type heartbeat struct {
	s       *Store
	primary []byte
	startTS uint64
	ttl     time.Duration // that the lock has left after a beat
	every   time.Duration

	ctx    context.Context // ends with the heartbeat
	cancel context.CancelFunc

	mu      sync.Mutex
	stopped bool        // protected by mu
	timer   *time.Timer // protected by mu
	beat    sync.WaitGroup
}

// startHeartbeat refreshes the lock of primary until stop is called.
func (s *Store) startHeartbeat(primary []byte, startTS uint64, ttl, every time.Duration) *heartbeat {
	h := &heartbeat{s: s, primary: primary, startTS: startTS, ttl: ttl, every: every}
	h.ctx, h.cancel = context.WithCancel(s.life)
	h.arm()
	return h
}

func (h *heartbeat) arm() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stopped {
		return
	}
	h.beat.Add(1)
	h.timer = time.AfterFunc(h.every, func() {
		defer h.beat.Done()
		if h.send() {
			h.arm()
		}
	})
}

// send reports whether the next beat makes sense.
func (h *heartbeat) send() bool {
	found, err := h.s.refresh(h.ctx, h.primary, h.startTS, h.ttl)
	if err != nil {
		return h.ctx.Err() == nil
	}
	return found
}

// refresh makes the primary lock of a transaction live for ttl from now on. found is false
// when the transaction is over.
func (s *Store) refresh(ctx context.Context, primary []byte, startTS uint64, ttl time.Duration) (found bool, err error) {
	now, err := s.CurrentTS(ctx)
	if err != nil {
		return false, err
	}
	age := max(0, int64(now>>18)-int64(startTS>>18))
	resp, err := s.sendKey(ctx, primary, &kvpb.Request{Cmd: &kvpb.Request_TxnHeartBeat{
		TxnHeartBeat: &kvpb.TxnHeartBeatRequest{
			Primary: primary, StartTs: startTS,
			AdviseTtlMs: uint64(age) + uint64(ttl/time.Millisecond),
		}}})
	if err != nil {
		return false, err
	}
	// No primary yet: it is being written. Anything else: somebody rolled us back,
	// which the commit will find out.
	ke := resp.GetTxnHeartBeat().GetError()
	return ke == nil || ke.GetTxnNotFound() != nil, nil
}

// stop ends the beats and waits for one that is out.
func (h *heartbeat) stop() {
	h.cancel()
	h.mu.Lock()
	h.stopped = true
	if h.timer.Stop() {
		h.beat.Done()
	}
	h.mu.Unlock()
	h.beat.Wait()
}
