package txn

import (
	"context"
	"sync"
	"time"

	"github.com/cairndb/cairn/proto/kvpb"
)

// maxBeats is how many beats may be out at once.
const maxBeats = 16

// heartbeat is a timer that refreshes the primary lock of a transaction, three times in the life of a
// lock, and arms itself again.
//
// It does not wait for the answers. A beat that has arrived holds the latch of the primary
// until it is applied, so who asks for the fate of the transaction afterwards asks after it. What
// counts is that beats arrive in time, however long the node, which may be busy with
// what the transaction writes, takes to carry them out.
type heartbeat struct {
	s       *Store
	primary []byte
	startTS uint64
	ttl     time.Duration // that the lock has left after a beat

	mu      sync.Mutex
	ctx     context.Context // ends with the heartbeat; nil before the first beat; protected by mu
	cancel  context.CancelFunc
	stopped bool        // protected by mu
	timer   *time.Timer // protected by mu
	out     int         // beats without an answer; protected by mu
	beats   sync.WaitGroup
}

// startHeartbeat refreshes the lock of primary until stop is called. It may begin before
// the lock is written.
func (s *Store) startHeartbeat(primary []byte, startTS uint64) *heartbeat {
	h := &heartbeat{s: s, primary: primary, startTS: startTS, ttl: s.lockTTL}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.armLocked()
	return h
}

func (h *heartbeat) armLocked() {
	h.beats.Add(1)
	h.timer = time.AfterFunc(h.ttl/3, func() {
		defer h.beats.Done()
		ctx := h.next()
		if ctx == nil {
			return
		}
		again := h.send(ctx)
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.out--; !again {
			h.ceaseLocked()
		}
	})
}

// next arms the timer for the next beat and returns the context of this one, nil if it is not to be sent.
func (h *heartbeat) next() context.Context {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stopped {
		return nil
	}
	h.armLocked()
	if h.out >= maxBeats {
		return nil
	}
	h.out++
	if h.ctx == nil { // most transactions end before
		h.ctx, h.cancel = context.WithCancel(h.s.life)
	}
	return h.ctx
}

// send reports whether the next beat makes sense.
func (h *heartbeat) send(ctx context.Context) bool {
	found, err := h.s.refresh(ctx, h.primary, h.startTS, h.ttl)
	if err != nil {
		return ctx.Err() == nil
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

// ceaseLocked begins no further beats.
func (h *heartbeat) ceaseLocked() {
	h.stopped = true
	if h.timer.Stop() {
		h.beats.Done()
	}
}

// stop ends the beats and waits for those that are out.
func (h *heartbeat) stop() {
	h.mu.Lock()
	if h.cancel != nil {
		h.cancel()
	}
	h.ceaseLocked()
	h.mu.Unlock()
	h.beats.Wait()
}
