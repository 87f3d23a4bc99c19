package pd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/cairndb/cairn/internal/rpc"
	"github.com/cairndb/cairn/pd/meta"
	"github.com/cairndb/cairn/pd/pdrpc"
	"github.com/cairndb/cairn/proto/pdpb"
)

const (
	// pingTimeout bounds the question to one member how it is.
	pingTimeout = time.Second
	pingTries   = 3
	pingPause   = 20 * time.Millisecond
	// promoteEvery is how often the leader looks whether a learner may have a vote.
	promoteEvery = 250 * time.Millisecond
	// maxLag is how many entries of the log a learner may miss to get a vote.
	maxLag = 100
)

// roster changes who the members are. One change at a time, on the leader only.
type roster struct {
	meta      *meta.Store
	tls       *tls.Config // nil = plain
	maxVoters int
	logger    *slog.Logger

	change sync.Mutex // held during a change

	mu    sync.Mutex // protects conns
	conns map[string]*grpc.ClientConn
}

func newRoster(store *meta.Store, config *tls.Config, maxVoters int, l *slog.Logger) *roster {
	return &roster{meta: store, tls: config, maxVoters: maxVoters, logger: l, conns: make(map[string]*grpc.ClientConn)}
}

func (r *roster) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, conn := range r.conns {
		conn.Close()
	}
	clear(r.conns)
}

// state is a member and how it is.
type state struct {
	meta.Member
	healthy bool
	applied uint64 // of the consensus log
	why     string // not healthy
}

func (s *state) String() string {
	if s.Name == "" {
		return fmt.Sprintf("%016x at %s", s.ID, s.Address)
	}
	return fmt.Sprintf("%s (%016x) at %s", s.Name, s.ID, s.Address)
}

// ask returns all members and asks each how it is, at the same time.
func (r *roster) ask(ctx context.Context) []*state {
	members := r.meta.Members()
	out := make([]*state, len(members))
	var wg sync.WaitGroup
	for i, m := range members {
		out[i] = &state{Member: m}
		wg.Go(func() { r.askOne(ctx, out[i]) })
	}
	wg.Wait()
	return out
}

func (r *roster) askOne(ctx context.Context, s *state) {
	if s.ID == r.meta.Self().ID {
		var leader uint64
		s.applied, leader = r.meta.Position()
		s.healthy = leader != 0
		return
	}
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	conn, err := r.conn(s.Address)
	if err != nil {
		s.why = err.Error()
		return
	}
	resp, err := memberStatus(ctx, conn)
	switch {
	case err != nil:
		s.why = fmt.Sprintf("does not answer: %v", err)
	case resp.Id != s.ID:
		s.why = fmt.Sprintf("another member, %016x, answers at its address", resp.Id)
	case resp.ConsensusLeader == 0:
		s.why = "follows no leader"
	default:
		s.healthy, s.applied = true, resp.AppliedIndex
	}
}

// memberStatus asks up to three times: a connection that broke while nobody used it
// must first be made again, and one that is refused need not be waited for.
func memberStatus(ctx context.Context, conn *grpc.ClientConn) (resp *pdpb.MemberStatusResponse, err error) {
	for range pingTries {
		conn.ResetConnectBackoff()
		if resp, err = pdpb.NewMembersClient(conn).MemberStatus(ctx, &pdpb.MemberStatusRequest{}); err == nil {
			return resp, nil
		}
		select {
		case <-time.After(pingPause):
		case <-ctx.Done():
		}
	}
	return nil, err
}

func (r *roster) conn(address string) (*grpc.ClientConn, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if conn := r.conns[address]; conn != nil {
		return conn, nil
	}
	conn, err := rpc.Dial(address, rpc.DialOptions{TLS: r.tls})
	if err == nil {
		r.conns[address] = conn
	}
	return conn, err
}

func voters(list []*state) []*state {
	return slices.DeleteFunc(slices.Clone(list), func(s *state) bool { return s.Learner })
}

// List describes the members.
func (r *roster) List(ctx context.Context) []*pdpb.MemberDescription {
	list := r.ask(ctx)
	applied, _ := r.meta.Position()
	votes := len(voters(list))
	out := make([]*pdpb.MemberDescription, len(list))
	for i, s := range list {
		d := &pdpb.MemberDescription{Member: pdrpc.Member(s.Member), Learner: s.Learner, Healthy: s.healthy, Note: s.why,
			Leader: s.ID == r.meta.Self().ID}
		if s.healthy && s.applied < applied {
			d.Lag = applied - s.applied
		}
		switch {
		case !s.healthy || !s.Learner:
		case d.Lag > maxLag:
			d.Note = "catching up"
		case votes >= r.maxVoters:
			d.Note = "spare: gets a vote when a member with one is removed"
		case votes == 1:
			d.Note = "gets a vote when there is a third member: of two with a vote, none may fail"
		}
		out[i] = d
	}
	return out
}

// find returns the member with the id or, when it is 0, with the name or address.
func find(list []*state, id uint64, name string) (*state, error) {
	var found []*state
	for _, s := range list {
		if id != 0 && s.ID == id || id == 0 && (s.Name == name || s.Address == name) {
			found = append(found, s)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return nil, fmt.Errorf("%w: %d members are called %s; use the id", pdrpc.ErrUnsafe, len(found), name)
	case id != 0:
		return nil, fmt.Errorf("%w: no member has the id %016x", pdrpc.ErrUnsafe, id)
	}
	return nil, fmt.Errorf("%w: no member is called %q", pdrpc.ErrUnsafe, name)
}

// mayRemove refuses to take a vote away when the rest could not go on without it.
func mayRemove(list []*state, gone *state) error {
	if gone.Learner {
		return nil
	}
	rest := slices.DeleteFunc(voters(list), func(s *state) bool { return s.ID == gone.ID })
	if len(rest) == 0 {
		return fmt.Errorf("%w: %s is the only member with a vote", pdrpc.ErrUnsafe, gone)
	}
	var sick []string
	for _, s := range rest {
		if !s.healthy {
			sick = append(sick, fmt.Sprintf("%s: %s", s, s.why))
		}
	}
	if need := len(rest)/2 + 1; len(rest)-len(sick) < need {
		return fmt.Errorf("%w: without %s there would be %d members with a vote, of which %d must be healthy, but %d are; remove those that are not first (%s)",
			pdrpc.ErrUnsafe, gone, len(rest), need, len(rest)-len(sick), strings.Join(sick, "; "))
	}
	return nil
}

// Add makes a member that is about to start part of the cluster, without a vote.
func (r *roster) Add(ctx context.Context, name, address string) (meta.Member, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil || host == "" || port == "" || port == "0" {
		return meta.Member{}, fmt.Errorf("%w: the address of a new member must be host:port, not %q", pdrpc.ErrUnsafe, address)
	}
	if self := r.meta.Self(); self.Address == "" {
		return meta.Member{}, fmt.Errorf("%w: this placement driver serves its own process only", pdrpc.ErrUnsafe)
	}
	r.change.Lock()
	defer r.change.Unlock()
	if ctx.Err() != nil { // whoever asked may have asked again
		return meta.Member{}, ctx.Err()
	}
	for _, s := range r.meta.Members() {
		if s.Address == address {
			if err := r.makeRoom(ctx, s); err != nil {
				return meta.Member{}, err
			}
		}
	}
	m, err := r.meta.Add(ctx, address)
	if err == nil {
		r.logger.Info("member added", "name", name, "id", fmt.Sprintf("%016x", m.ID), "addr", address)
	}
	return m, err
}

// makeRoom removes a member whose address another one has now, with an empty
// directory: what the old one knew is lost, so it must not vote again.
func (r *roster) makeRoom(ctx context.Context, old meta.Member) error {
	list := r.ask(ctx)
	s, err := find(list, old.ID, "")
	if err != nil {
		return err
	}
	if s.healthy {
		return fmt.Errorf("%w: member %s is alive", pdrpc.ErrUnsafe, s)
	}
	if err := mayRemove(list, s); err != nil {
		return err
	}
	r.logger.Warn("member replaced: another one comes from its address", "member", s.String())
	return r.meta.Remove(ctx, old.ID)
}

// Remove takes a member out for good.
func (r *roster) Remove(ctx context.Context, id uint64, name string) (meta.Member, error) {
	r.change.Lock()
	defer r.change.Unlock()
	if ctx.Err() != nil {
		return meta.Member{}, ctx.Err()
	}
	list := r.ask(ctx)
	gone, err := find(list, id, name)
	if err != nil {
		return meta.Member{}, err
	}
	if err := mayRemove(list, gone); err != nil {
		return meta.Member{}, err
	}
	if gone.ID == r.meta.Self().ID {
		// The next leader is asked again, by the client.
		if _, err := r.transfer(ctx, list, 0, ""); err != nil {
			return meta.Member{}, err
		}
		return meta.Member{}, meta.ErrNotLeader
	}
	if err := r.meta.Remove(ctx, gone.ID); err != nil {
		return meta.Member{}, err
	}
	r.logger.Info("member removed", "member", gone.String())
	return gone.Member, nil
}

// Transfer makes another member lead; with neither id nor name any healthy one.
func (r *roster) Transfer(ctx context.Context, id uint64, name string) (meta.Member, error) {
	r.change.Lock()
	defer r.change.Unlock()
	return r.transfer(ctx, r.ask(ctx), id, name)
}

func (r *roster) transfer(ctx context.Context, list []*state, id uint64, name string) (meta.Member, error) {
	self := r.meta.Self().ID
	if id != 0 || name != "" {
		to, err := find(list, id, name)
		switch {
		case err != nil:
			return meta.Member{}, err
		case to.ID == self:
			return to.Member, nil
		case to.Learner:
			return meta.Member{}, fmt.Errorf("%w: member %s has no vote", pdrpc.ErrUnsafe, to)
		case !to.healthy:
			return meta.Member{}, fmt.Errorf("%w: member %s %s", pdrpc.ErrUnsafe, to, to.why)
		}
		return to.Member, r.meta.Transfer(ctx, to.ID)
	}
	var best *state
	for _, s := range voters(list) {
		if s.ID != self && s.healthy && (best == nil || s.applied > best.applied) {
			best = s
		}
	}
	if best == nil {
		return meta.Member{}, fmt.Errorf("%w: there is no other healthy member with a vote", pdrpc.ErrUnsafe)
	}
	return best.Member, r.meta.Transfer(ctx, best.ID)
}

// tend gives votes to learners that caught up, until ctx ends.
func (r *roster) tend(ctx context.Context) {
	t := time.NewTicker(promoteEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		members := r.meta.Members()
		votes := 0
		for _, m := range members {
			if !m.Learner {
				votes++
			}
		}
		if votes < len(members) && votes < r.maxVoters {
			r.promote(ctx)
		}
	}
}

func (r *roster) promote(ctx context.Context) {
	r.change.Lock()
	defer r.change.Unlock()
	list := r.ask(ctx)
	applied, _ := r.meta.Position()
	var ready []*state
	for _, s := range list {
		if s.Learner && s.healthy && s.applied+maxLag >= applied {
			ready = append(ready, s)
		}
	}
	for _, s := range ready[:newVotes(len(voters(list)), len(ready), r.maxVoters)] {
		err := r.meta.Promote(ctx, s.ID)
		if err != nil {
			if !errors.Is(err, meta.ErrBehind) && ctx.Err() == nil {
				r.logger.Warn("cannot give a member its vote", "member", s.String(), "err", err)
			}
			return
		}
		r.logger.Info("member has a vote", "member", s.String())
	}
}

// newVotes is how many of the members that are ready get a vote: as many as make
// the number of votes odd, for an even number survives no more failures than the
// odd one below it.
func newVotes(votes, ready, most int) int {
	want := min(most, votes+ready)
	want -= 1 - want%2
	return max(0, want-votes)
}
