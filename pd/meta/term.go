package meta

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	// campaignPause is how often a member that cannot lead looks again.
	campaignPause = 100 * time.Millisecond
	resignTimeout = time.Second
)

// Term is a period of leadership of this member. It ends by itself when the lease
// cannot be renewed; Done tells.
type Term struct {
	store    *Store
	lease    clientv3.LeaseID
	revision int64 // creation revision of the leader key

	// expires is the local end of the lease in nanoseconds since store.base; 0 = over.
	expires atomic.Int64

	cancel context.CancelFunc // stops the renewal
	done   chan struct{}      // closed when the term is over
	wg     sync.WaitGroup
}

// Campaign waits until this member leads. It returns ErrClosed or the context's
// error otherwise. At most one term of a store exists at a time: the last one must
// be over.
func (s *Store) Campaign(ctx context.Context) (*Term, error) {
	published := false
	for {
		// The channel is taken before looking, so that no change is missed.
		changed := s.etcd.Server.LeaderChangedNotify()
		if !published {
			published = s.publish(ctx) == nil
		}
		if s.leadsEtcd() {
			t, err := s.tryLead(ctx)
			if err != nil {
				s.opts.Logger.Warn("campaign failed", "err", err)
			}
			if t != nil {
				return t, nil
			}
		}
		timer := time.NewTimer(campaignPause)
		select {
		case <-changed:
		case <-timer.C:
		case <-s.closed:
			timer.Stop()
			return nil, ErrClosed
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		}
		timer.Stop()
	}
}

func (s *Store) leadsEtcd() bool {
	return s.etcd.Server.Leader() == s.etcd.Server.MemberID()
}

// tryLead takes the leader key if it is free; nil, nil when another one has it.
func (s *Store) tryLead(ctx context.Context) (*Term, error) {
	ctx, cancel := context.WithTimeout(ctx, s.opts.Lease)
	defer cancel()
	if err := s.dropOwnLeftover(ctx); err != nil {
		return nil, err
	}
	value, err := json.Marshal(s.self)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	lease, err := s.client.Grant(ctx, int64((s.opts.Lease+time.Second-1)/time.Second))
	if err != nil {
		return nil, fmt.Errorf("meta: grant lease: %w", err)
	}
	resp, err := s.client.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision(leaderKey), "=", 0)).
		Then(clientv3.OpPut(leaderKey, string(value), clientv3.WithLease(lease.ID))).
		Commit()
	if err != nil {
		return nil, fmt.Errorf("meta: take leadership: %w", err)
	}
	if !resp.Succeeded {
		_, err := s.client.Revoke(ctx, lease.ID)
		return nil, err
	}
	life, stop := context.WithCancel(context.Background()) // the term's, ended by Resign
	t := &Term{store: s, lease: lease.ID, revision: resp.Header.Revision, cancel: stop, done: make(chan struct{})}
	t.extend(start)
	t.wg.Add(1)
	go t.renew(life)
	return t, nil
}

// dropOwnLeftover deletes the leader key if an earlier life of this member left
// it. The directory is locked, so that life is over.
func (s *Store) dropOwnLeftover(ctx context.Context) error {
	resp, err := s.client.Get(ctx, leaderKey)
	if err != nil {
		return fmt.Errorf("meta: read leader: %w", err)
	}
	if len(resp.Kvs) == 0 {
		return nil
	}
	var m Member
	if err := json.Unmarshal(resp.Kvs[0].Value, &m); err != nil {
		return fmt.Errorf("meta: read leader: %w", err)
	}
	if m.ID != s.self.ID {
		return nil
	}
	_, err = s.client.Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(leaderKey), "=", resp.Kvs[0].ModRevision)).
		Then(clientv3.OpDelete(leaderKey)).
		Commit()
	return err
}

// extend moves the local end of the lease for a renewal sent at start.
func (t *Term) extend(start time.Time) {
	t.expires.Store(int64(start.Add(t.store.opts.Lease).Sub(t.store.base)))
}

// renew keeps the lease alive at a third of its life, until it is lost, etcd's
// leader is another member, or ctx is done.
func (t *Term) renew(ctx context.Context) {
	defer t.wg.Done()
	defer close(t.done)
	defer t.expires.Store(0)
	every := t.store.opts.Lease / 3
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		changed := t.store.etcd.Server.LeaderChangedNotify()
		if !t.store.leadsEtcd() {
			t.store.opts.Logger.Warn("stepping down: etcd is led by another member")
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
			continue
		case <-ticker.C:
		}
		start := time.Now()
		rctx, cancel := context.WithTimeout(ctx, every)
		_, err := t.store.client.KeepAliveOnce(rctx, t.lease)
		cancel()
		if err == nil {
			t.extend(start)
			continue
		}
		if ctx.Err() != nil {
			return
		}
		t.store.opts.Logger.Warn("cannot renew leadership", "err", err)
		if !t.ValidAt(time.Now()) {
			t.store.opts.Logger.Warn("stepping down: the lease ended")
			return
		}
	}
}

// ValidAt reports whether leadership is sure at now, a reading of time.Now with
// its monotonic part. While it is true no other member can lead.
func (t *Term) ValidAt(now time.Time) bool {
	return int64(now.Sub(t.store.base)) < t.expires.Load()
}

// Done is closed when the term is over.
func (t *Term) Done() <-chan struct{} { return t.done }

// Resign ends the term, frees the leader key and waits for the renewal to stop.
func (t *Term) Resign() {
	t.expires.Store(0)
	t.cancel()
	t.wg.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), resignTimeout)
	defer cancel()
	if _, err := t.store.client.Revoke(ctx, t.lease); err != nil {
		t.store.opts.Logger.Info("leadership ends with its lease", "err", err)
	}
}

// Op is one change of a key.
type Op struct {
	Key    string
	Value  []byte
	Delete bool
}

// MaxOps is the number of changes in one Write at most.
const MaxOps = 100

// Write makes the changes, all or none, if this term still leads. ErrNotLeader
// when it does not. Any other error leaves open whether they were made: write the
// same again, or step down.
func (t *Term) Write(ctx context.Context, ops ...Op) error {
	if len(ops) > MaxOps {
		return fmt.Errorf("meta: %d changes in one write, at most %d", len(ops), MaxOps)
	}
	if !t.ValidAt(time.Now()) {
		return ErrNotLeader
	}
	list := make([]clientv3.Op, len(ops))
	for i, op := range ops {
		if op.Delete {
			list[i] = clientv3.OpDelete(prefix + op.Key)
		} else {
			list[i] = clientv3.OpPut(prefix+op.Key, string(op.Value))
		}
	}
	resp, err := t.store.client.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision(leaderKey), "=", t.revision)).
		Then(list...).
		Commit()
	if err != nil {
		return fmt.Errorf("meta: write: %w", err)
	}
	if !resp.Succeeded {
		return ErrNotLeader
	}
	return nil
}
