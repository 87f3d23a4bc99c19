package meta

import (
	"context"
	"encoding/json"
	"strconv"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Leader is a member that leads.
type Leader struct {
	Member
	// Term grows with each change of leadership.
	Term uint64
}

// record is leadership as this member saw it.
type record struct {
	leader   Leader // Term = revision of the leader key; 0 = nobody leads
	leaseRev int64  // revision of the lease key; 0 = none
	lease    time.Duration
	seen     time.Time // when leaseRev was seen first
}

// over is when the lease is over for everybody: what the leader counts from an
// earlier moment, plus a margin for a clock that runs slower than ours.
func (r *record) over() time.Time { return r.seen.Add(r.lease + r.lease/16) }

// observer follows the leader key and its renewals.
type observer struct {
	s  *Store
	mu struct {
		sync.Mutex
		record
		lastTerm uint64        // of the last leader, also when it resigned
		changed  chan struct{} // closed when another leads, or nobody any more
	}
}

func newObserver(s *Store) *observer {
	o := &observer{s: s}
	o.mu.changed = make(chan struct{})
	return o
}

// get returns the record, and a channel that is closed when the leader changes.
func (o *observer) get() (record, <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.mu.record, o.mu.changed
}

// run watches until ctx ends.
func (o *observer) run(ctx context.Context) {
	for ctx.Err() == nil {
		rev, err := o.read(ctx)
		if err == nil {
			o.watch(ctx, rev+1)
		}
		if ctx.Err() == nil {
			// A watch ends when its revision was compacted away, which a second
			// does not bring about.
			o.s.opts.Logger.Debug("leader is read again", "err", err)
			pause(ctx, o.s.opts.Tick)
		}
	}
}

// read takes the keys as this member has them; that may be old news, and the watch
// brings the rest.
func (o *observer) read(ctx context.Context) (rev int64, err error) {
	resp, err := o.s.client.Get(ctx, leaderKey, clientv3.WithPrefix(), clientv3.WithSerializable())
	if err != nil {
		return 0, err
	}
	now := time.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	found := map[string]*mvccpb.KeyValue{}
	for _, kv := range resp.Kvs {
		found[string(kv.Key)] = kv
	}
	o.setLocked(now, leaderKey, found[leaderKey])
	o.setLocked(now, leaseKey, found[leaseKey])
	return resp.Header.Revision, nil
}

func (o *observer) watch(ctx context.Context, rev int64) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for resp := range o.s.client.Watch(ctx, leaderKey, clientv3.WithPrefix(), clientv3.WithRev(rev)) {
		now := time.Now()
		o.mu.Lock()
		for _, ev := range resp.Events {
			kv := ev.Kv
			if ev.Type == clientv3.EventTypeDelete {
				kv = nil
			}
			o.setLocked(now, string(ev.Kv.Key), kv)
		}
		o.mu.Unlock()
	}
}

// setLocked takes the state of a key, nil when it is not there.
func (o *observer) setLocked(now time.Time, key string, kv *mvccpb.KeyValue) {
	switch key {
	case leaseKey:
		if kv == nil {
			o.mu.leaseRev, o.mu.lease = 0, 0
			return
		}
		if kv.ModRevision == o.mu.leaseRev {
			return
		}
		ms, _ := strconv.ParseInt(string(kv.Value), 10, 64)
		o.mu.leaseRev, o.mu.lease, o.mu.seen = kv.ModRevision, time.Duration(ms)*time.Millisecond, now
	case leaderKey:
		var l Leader
		if kv != nil {
			if err := json.Unmarshal(kv.Value, &l.Member); err != nil {
				o.s.opts.Logger.Error("the record of the leader cannot be read", "err", err)
			}
			l.Term = uint64(kv.ModRevision)
		}
		if l.Term == o.mu.leader.Term {
			return
		}
		o.mu.leader, o.mu.seen = l, now
		o.mu.lastTerm = max(o.mu.lastTerm, l.Term)
		if l.Term != 0 {
			o.s.metrics.changes.Inc()
		}
		close(o.mu.changed)
		o.mu.changed = make(chan struct{})
	}
}

// Leader returns the member that leads, as this one knows it without asking
// anybody. ok is false when nobody does or the lease is over; the term is that of
// the last one then. changed is closed at the next change of the record, not when a
// lease ends.
func (s *Store) Leader() (l Leader, ok bool, changed <-chan struct{}) {
	o := s.observer
	o.mu.Lock()
	defer o.mu.Unlock()
	l, changed = o.mu.leader, o.mu.changed
	if l.Term == 0 || time.Now().After(o.mu.over()) {
		return Leader{Term: o.mu.lastTerm}, false, changed
	}
	return l, true, changed
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
