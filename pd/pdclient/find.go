package pdclient

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/cairndb/cairn/proto/pdpb"
)

const (
	// findRound bounds one look for the leader; whoever waits looks again.
	findRound = 2 * time.Second
	// newsWait is how long a member may hold its answer until something changes.
	newsWait = time.Second
	// probeBase and probeCap bound the pauses between questions to a member that
	// does not answer.
	probeBase = 15 * time.Millisecond
	probeCap  = 250 * time.Millisecond
	// refreshEvery is how often, on average, the members are learned anew.
	refreshEvery = 10 * time.Second
)

// finder is one look for the leader: all members are asked at once, those learned
// on the way too, and whoever says that it serves as leader is it.
type finder struct {
	r     *remote
	ctx   context.Context // of the round
	found chan target     // capacity 1
	wg    sync.WaitGroup

	mu     sync.Mutex // protects the fields below
	asked  map[string]bool
	others error // why the last one of those that answered with an error is of no use
}

// find looks for the leader for one round.
func (r *remote) find(ctx context.Context) (target, error) {
	ctx, cancel := context.WithTimeout(ctx, findRound)
	defer cancel()
	stop := context.AfterFunc(r.ctx, cancel)
	defer stop()
	f := &finder{r: r, ctx: ctx, found: make(chan target, 1), asked: make(map[string]bool)}
	defer f.wg.Wait()
	defer cancel()
	if h := r.opts.Local; h != nil {
		// First without waiting: most of the time it is this one, or it knows.
		if f.take(h.Leader(ctx, &pdpb.LeaderRequest{}), target{local: true}); len(f.found) > 0 {
			return r.accept(<-f.found), nil
		}
		f.wg.Go(func() {
			f.probe(target{local: true}, func(ctx context.Context, req *pdpb.LeaderRequest) (*pdpb.LeaderResponse, error) {
				return h.Leader(ctx, req), nil
			})
		})
	}
	r.mu.Lock()
	members := slices.Clone(r.mu.members)
	r.mu.Unlock()
	f.ask(members)
	select {
	case t := <-f.found:
		return r.accept(t), nil
	case <-ctx.Done():
	}
	if r.ctx.Err() != nil {
		return target{}, ErrClosed
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if errors.Is(f.others, ErrClusterMismatch) {
		return target{}, f.others
	}
	if f.others != nil {
		return target{}, fmt.Errorf("%w: %w", errUnreachable, f.others)
	}
	return target{}, errUnreachable
}

// accept makes t the leader that everybody uses.
func (r *remote) accept(t target) target {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.found++
	t.serial = r.mu.found
	r.mu.leader = t
	r.metrics.leaderFound.Inc()
	if !t.local {
		r.opts.Logger.Info("pd leader", "addr", t.addr, "cluster", r.mu.clusterID)
	}
	return t
}

// ask begins to ask the members that are not asked yet.
func (f *finder) ask(addrs []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, addr := range addrs {
		if addr == "" || f.asked[addr] {
			continue
		}
		f.asked[addr] = true
		f.wg.Go(func() {
			conn, err := f.r.conn(addr)
			if err != nil {
				f.note(err)
				return
			}
			members := pdpb.NewMembersClient(conn)
			f.probe(target{conn: conn, addr: addr}, func(ctx context.Context, req *pdpb.LeaderRequest) (*pdpb.LeaderResponse, error) {
				conn.ResetConnectBackoff()
				return members.Leader(ctx, req)
			})
		})
	}
}

func (f *finder) note(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !errors.Is(f.others, ErrClusterMismatch) && f.ctx.Err() == nil {
		f.others = err
	}
}

// probe asks one member until it serves as leader, is found to be of another
// cluster, or the round ends.
func (f *finder) probe(t target, leader func(context.Context, *pdpb.LeaderRequest) (*pdpb.LeaderResponse, error)) {
	req := &pdpb.LeaderRequest{}
	wait := probeBase
	for f.ctx.Err() == nil {
		ctx, cancel := context.WithTimeout(f.ctx, newsWait+time.Duration(req.WaitMs)*time.Millisecond)
		resp, err := leader(ctx, req)
		cancel()
		if err != nil {
			f.note(fmt.Errorf("%s: %w", t.addr, err))
			if sleep(f.ctx, wait/2+rand.N(wait)) != nil {
				return
			}
			wait = min(wait*3/2, probeCap)
			continue
		}
		if f.take(resp, t) {
			return
		}
		req = &pdpb.LeaderRequest{KnownTerm: resp.Term, WaitMs: uint32(newsWait / time.Millisecond)}
	}
}

// take learns from an answer; done when t needs not be asked again.
func (f *finder) take(resp *pdpb.LeaderResponse, t target) (done bool) {
	id := resp.GetHeader().GetClusterId()
	if id == 0 { // it just started
		return false
	}
	r := f.r
	r.mu.Lock()
	if r.mu.clusterID == 0 {
		r.mu.clusterID = id
	}
	if want := r.mu.clusterID; want != id {
		r.mu.Unlock()
		f.note(fmt.Errorf("%s: %w", t.addr, &Error{Code: pdpb.Error_CLUSTER_MISMATCH,
			Message: fmt.Sprintf("cluster %d, expected %d", id, want)}))
		return true
	}
	addrs := r.learnLocked(resp.Members)
	r.mu.Unlock()
	if resp.Serving {
		select {
		case f.found <- t:
		default:
		}
		return true
	}
	f.mu.Lock()
	if t.local {
		for _, m := range resp.Members {
			if m.Id == resp.Id {
				f.asked[memberInfo(m).Address] = true // it is asked without a connection
			}
		}
	}
	f.mu.Unlock()
	f.ask(addrs)
	return false
}

func (r *remote) learn(members []*pdpb.Member) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.learnLocked(members)
}

// refresh asks the leader now and then who the members are: a client that only knew
// one must not lose the cluster with it.
func (r *remote) refresh(ctx context.Context) {
	for sleep(ctx, refreshEvery/2+rand.N(refreshEvery)) == nil {
		t, err := r.known()
		if err != nil || t.conn == nil {
			continue
		}
		actx, cancel := context.WithTimeout(ctx, attemptTimeout)
		resp, err := pdpb.NewMembersClient(t.conn).Leader(actx, &pdpb.LeaderRequest{})
		cancel()
		if err == nil && resp.Serving {
			r.learn(resp.Members)
		}
	}
}

// learnLocked takes the members that an answer names. Those of Options stay: they
// are what is left when all that were learned have moved.
func (r *remote) learnLocked(members []*pdpb.Member) (addrs []string) {
	for _, m := range members {
		if addr := memberInfo(m).Address; addr != "" {
			addrs = append(addrs, addr)
		}
	}
	r.mu.members = slices.Clone(r.opts.Addrs)
	for _, addr := range addrs {
		if !slices.Contains(r.mu.members, addr) {
			r.mu.members = append(r.mu.members, addr)
		}
	}
	return addrs
}
