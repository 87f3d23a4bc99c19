package meta

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
)

// transferTimeout bounds the hand-over to another leader.
const transferTimeout = 3 * time.Second

// ErrBehind: the learner has not caught up yet.
var ErrBehind = errors.New("meta: member has not caught up")

// Self is this member.
func (s *Store) Self() Member { return s.self }

// Members returns all members as this one knows them, by id. No round trip.
func (s *Store) Members() []Member {
	list := s.etcd.Server.Cluster().Members()
	out := make([]Member, len(list))
	for i, m := range list {
		out[i] = memberOf(m)
	}
	return out
}

func memberOf(m *membership.Member) Member {
	return Member{ID: uint64(m.ID), Name: m.Name, Address: addressOf(m.PeerURLs), Learner: m.IsLearner}
}

// alone reports whether there is no other member, with a vote or without.
func (s *Store) alone() bool { return len(s.etcd.Server.Cluster().Members()) == 1 }

// Position tells how much of the consensus log this member has applied, and which
// member it follows or is; 0 = none.
func (s *Store) Position() (applied, leader uint64) {
	return s.etcd.Server.AppliedIndex(), uint64(s.etcd.Server.Leader())
}

// Add makes a member of address part of the cluster. It has no vote, so this can
// never cost a majority.
func (s *Store) Add(ctx context.Context, address string) (Member, error) {
	resp, err := s.client.MemberAddAsLearner(ctx, []string{s.opts.peerURL(address)})
	if err != nil {
		return Member{}, fmt.Errorf("meta: add member: %w", err)
	}
	return Member{ID: resp.Member.ID, Address: address, Learner: true}, nil
}

// Remove takes a member out for good. That a majority of the rest is alive is the
// caller's to see to.
func (s *Store) Remove(ctx context.Context, id uint64) error {
	if _, err := s.client.MemberRemove(ctx, id); err != nil {
		return fmt.Errorf("meta: remove member: %w", err)
	}
	return nil
}

// Promote gives a learner its vote; ErrBehind when it is too early. That it is alive
// is the caller's to see to.
func (s *Store) Promote(ctx context.Context, id uint64) error {
	_, err := s.client.MemberPromote(ctx, id)
	if errors.Is(err, rpctypes.ErrMemberLearnerNotReady) {
		return ErrBehind
	}
	if err != nil {
		return fmt.Errorf("meta: promote member: %w", err)
	}
	return nil
}

// Transfer hands etcd's leadership, and with it PD's, to another member with a vote.
// Only the leader can.
func (s *Store) Transfer(ctx context.Context, id uint64) error {
	ctx, cancel := context.WithTimeout(ctx, transferTimeout)
	defer cancel()
	if err := s.etcd.Server.MoveLeader(ctx, s.self.ID, id); err != nil {
		return fmt.Errorf("meta: transfer leadership: %w", err)
	}
	return nil
}

// updateAddress makes a changed address of this member known to the others.
func (s *Store) updateAddress(ctx context.Context) error {
	want := s.opts.peerURL(s.opts.Address)
	m := s.etcd.Server.Cluster().Member(s.etcd.Server.MemberID())
	if m == nil || len(m.PeerURLs) == 1 && m.PeerURLs[0] == want {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if _, err := s.client.MemberUpdate(ctx, s.self.ID, []string{want}); err != nil {
		return fmt.Errorf("meta: tell the new address %s: %w", s.opts.Address, err)
	}
	s.opts.Logger.Info("address changed", "was", addressOf(m.PeerURLs), "is", s.opts.Address)
	return nil
}

// Gone is closed when this member was removed from the cluster. It serves no more
// and its directory refuses to start.
func (s *Store) Gone() <-chan struct{} { return s.gone }

// watchRemoval notices that etcd stopped by itself.
func (s *Store) watchRemoval() {
	select {
	case <-s.ctx.Done():
		return
	case <-s.etcd.Server.StopNotify():
	}
	if s.ctx.Err() != nil { // Close stops etcd too
		return
	}
	err := s.stopped()
	s.opts.Logger.Error("placement driver member stopped", "err", err)
	close(s.gone)
}

// stopped is the reason why etcd stopped by itself. If the member was removed, its
// directory is marked.
func (s *Store) stopped() error {
	if !s.removed.Load() && !s.etcd.Server.IsIDRemoved(s.self.ID) {
		return errors.New("meta: the member stopped by itself; the log tells more")
	}
	var others []string
	for _, m := range s.Members() {
		if m.ID != s.self.ID && m.Address != "" {
			others = append(others, m.Address)
		}
	}
	why := fmt.Sprintf("member %s (%016x) of the cluster at %v was removed; to join again, start with an empty directory",
		s.self.Name, s.self.ID, others)
	return errors.Join(fmt.Errorf("%w: %s", ErrRemoved, why), s.opts.markRemoved(why))
}
