package meta

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	// campaignPause is how often a member that cannot take leadership looks again, and
	// idlePause one that need not even try: it is told when that changes.
	campaignPause = 100 * time.Millisecond
	idlePause     = time.Second
	resignTimeout = time.Second
	// aloneFactor is how much longer the lease of a member without others is.
	aloneFactor = 10
)

// Term is a period of leadership of this member. It ends by itself when the lease
// cannot be renewed; Done tells.
type Term struct {
	store    *Store
	revision int64 // of the leader key

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
	for {
		// The channels are taken before looking, so that no change is missed.
		elected := s.etcd.Server.LeaderChangedNotify()
		rec, changed := s.observer.get()
		wait := idlePause
		if s.leadsEtcd() && s.healthy(ctx) {
			wait = time.Until(rec.over())
			if rec.leader.ID == s.self.ID || rec.leader.Term == 0 {
				// An earlier life of this member left the record: its directory is
				// locked, so that life is over.
				wait = 0
			}
			if wait <= 0 {
				t, err := s.tryLead(ctx, rec)
				if t != nil {
					return t, nil
				}
				if err != nil && ctx.Err() == nil {
					s.opts.Logger.Warn("campaign failed", "err", err)
				}
				wait = campaignPause
			}
		}
		timer := time.NewTimer(wait)
		select {
		case <-elected:
		case <-changed:
		case <-timer.C:
		case <-s.ctx.Done():
			timer.Stop()
			return nil, ErrClosed
		case <-s.gone:
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

// lease is for how long to lead without renewal.
func (s *Store) lease() time.Duration {
	if s.alone() {
		return aloneFactor * s.opts.Lease
	}
	return s.opts.Lease
}

func leaseValue(d time.Duration) string { return strconv.FormatInt(int64(d/time.Millisecond), 10) }

// tryLead takes leadership over from what rec says; nil, nil when somebody was faster.
func (s *Store) tryLead(ctx context.Context, rec record) (*Term, error) {
	ctx, cancel := context.WithTimeout(ctx, s.opts.Lease)
	defer cancel()
	value, err := json.Marshal(s.self)
	if err != nil {
		return nil, err
	}
	start, lease := time.Now(), s.lease()
	resp, err := s.client.Txn(ctx).
		If(
			clientv3.Compare(clientv3.ModRevision(leaderKey), "=", int64(rec.leader.Term)),
			clientv3.Compare(clientv3.ModRevision(leaseKey), "=", rec.leaseRev),
		).
		Then(clientv3.OpPut(leaderKey, string(value)), clientv3.OpPut(leaseKey, leaseValue(lease))).
		Commit()
	if err != nil {
		return nil, fmt.Errorf("meta: take leadership: %w", err)
	}
	if !resp.Succeeded {
		return nil, nil
	}
	life, stop := context.WithCancel(context.Background()) // the term's, ended by Resign
	t := &Term{store: s, revision: resp.Header.Revision, cancel: stop, done: make(chan struct{})}
	t.expires.Store(s.sinceBase(start.Add(lease)))
	s.metrics.leading.Set(1)
	t.wg.Add(1)
	go t.keep(life, lease)
	return t, nil
}

func (s *Store) sinceBase(at time.Time) int64 { return int64(at.Sub(s.base)) }

// keep renews the lease at a third of its life, until it is lost, etcd's leader is
// another member, or ctx is done.
func (t *Term) keep(ctx context.Context, lease time.Duration) {
	s := t.store
	defer t.wg.Done()
	defer close(t.done)
	defer s.metrics.leading.Set(0)
	defer t.expires.Store(0)
	next := time.Now().Add(lease / 3)
	for {
		changed := s.etcd.Server.LeaderChangedNotify()
		if !s.leadsEtcd() {
			s.opts.Logger.Warn("stepping down: etcd is led by another member")
			return
		}
		// A member that joined makes the lease short; look for one now and then.
		timer := time.NewTimer(min(time.Until(next), s.opts.Lease/3))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-changed:
			timer.Stop()
			continue
		case <-timer.C:
		}
		if now := s.lease(); now == lease && time.Now().Before(next) {
			continue
		} else {
			lease = now
		}
		err := t.renew(ctx, lease)
		if err == nil {
			next = time.Now().Add(lease / 3)
			continue
		}
		if ctx.Err() != nil {
			return
		}
		s.metrics.renewalsFailed.Inc()
		s.opts.Logger.Warn("cannot renew leadership", "err", err)
		if errors.Is(err, ErrNotLeader) {
			return
		}
		if !t.ValidAt(time.Now()) {
			s.opts.Logger.Warn("stepping down: the lease ended")
			s.StepAside()
			return
		}
		next = time.Now()
		pause(ctx, s.opts.Tick)
	}
}

// renew writes the lease once more.
func (t *Term) renew(ctx context.Context, lease time.Duration) error {
	s := t.store
	ctx, cancel := context.WithTimeout(ctx, s.opts.Lease/3)
	defer cancel()
	start := time.Now()
	end := s.sinceBase(start.Add(lease))
	// Others may see this renewal even if we never hear of it: it counts from now
	// on where it is the shorter one.
	t.expires.Store(min(end, t.expires.Load()))
	resp, err := s.client.Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(leaderKey), "=", t.revision)).
		Then(clientv3.OpPut(leaseKey, leaseValue(lease))).
		Commit()
	if err != nil {
		return err
	}
	if !resp.Succeeded {
		return ErrNotLeader
	}
	t.expires.Store(end)
	s.metrics.renewals.Observe(time.Since(start).Seconds())
	return nil
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
	t.stop()
	ctx, cancel := context.WithTimeout(context.Background(), resignTimeout)
	defer cancel()
	_, err := t.store.client.Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(leaderKey), "=", t.revision)).
		Then(clientv3.OpDelete(leaderKey), clientv3.OpDelete(leaseKey)).
		Commit()
	if err != nil {
		t.store.opts.Logger.Info("leadership ends with its lease", "err", err)
	}
}

// stop ends the term and leaves its record behind, as a crash would.
func (t *Term) stop() {
	t.expires.Store(0)
	t.cancel()
	t.wg.Wait()
}

// StepAside tells that this member could not write in time. Another one that is
// connected should lead; this one does not campaign until its disk answers.
func (s *Store) StepAside() {
	s.sick.Store(true)
	if !s.leadsEtcd() || s.alone() {
		return
	}
	s.wg.Go(func() {
		if err := s.etcd.Server.TryTransferLeadershipOnShutdown(); err != nil {
			s.opts.Logger.Warn("cannot hand etcd's leadership over", "err", err)
		}
	})
}

// healthy reports whether this member may campaign. One that stepped aside waits
// here until a write to its disk came back.
func (s *Store) healthy(ctx context.Context) bool {
	if !s.sick.Load() {
		return true
	}
	back := make(chan error, 1)
	go func() { // not waited for: nothing ends a write to a disk that hangs
		back <- writeFile(filepath.Join(s.opts.Dir, diskFile), "")
	}()
	select {
	case err := <-back:
		if err != nil {
			s.opts.Logger.Error("the disk does not take writes; this member does not lead", "err", err)
			return false
		}
		s.sick.Store(false)
		return true
	case <-ctx.Done():
	case <-s.ctx.Done():
	}
	return false
}

// markRemoved makes the directory refuse to start.
func (o *Options) markRemoved(why string) error {
	path := filepath.Join(o.Dir, removedFile)
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	return writeFile(path, why+"\n")
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
		If(clientv3.Compare(clientv3.ModRevision(leaderKey), "=", t.revision)).
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
