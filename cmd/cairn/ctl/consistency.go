package ctl

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/cairndb/cairn/internal/rpc"
	"github.com/cairndb/cairn/proto/pdpb"
	"github.com/cairndb/cairn/proto/replpb"
)

// storeAdmin is what is asked of a store itself, past the placement driver.
type storeAdmin interface {
	Replicas(ctx context.Context, req *replpb.ReplicasRequest, opts ...grpc.CallOption) (*replpb.ReplicasResponse, error)
	HashRegion(ctx context.Context, req *replpb.HashRegionRequest, opts ...grpc.CallOption) (*replpb.HashRegionResponse, error)
}

// stores are connections to stores, made when they are needed.
type stores struct {
	dial func(addr string) (storeAdmin, func() error, error)

	mu    sync.Mutex // protects what follows
	open  map[string]storeAdmin
	close []func() error
}

func newStores(config *tls.Config) *stores {
	return &stores{open: map[string]storeAdmin{}, dial: func(addr string) (storeAdmin, func() error, error) {
		conn, err := rpc.Dial(addr, rpc.DialOptions{TLS: config})
		if err != nil {
			return nil, nil, err
		}
		return replpb.NewStoreAdminClient(conn), conn.Close, nil
	}}
}

func (s *stores) at(addr string) (storeAdmin, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.open[addr]; a != nil {
		return a, nil
	}
	a, done, err := s.dial(addr)
	if err != nil {
		return nil, err
	}
	s.open[addr], s.close = a, append(s.close, done)
	return a, nil
}

func (s *stores) done() {
	for _, f := range s.close {
		_ = f()
	}
}

// Consistency is what is printed of the check of a region as JSON.
type Consistency struct {
	Region uint64 `json:"region"`
	// Verdict is consistent, different, or unknown, with the reason in Problem.
	Verdict string        `json:"verdict"`
	Problem string        `json:"problem,omitempty"`
	Index   uint64        `json:"index"` // of the log, at which the replicas were compared
	Copies  []ReplicaHash `json:"copies"`
}

// ReplicaHash is one replica's data as a number.
type ReplicaHash struct {
	Store uint64 `json:"store"`
	Keys  uint64 `json:"keys"`
	Hash  string `json:"hash"` // hexadecimal
}

// errDifferent ends the command with an error after its table.
var errDifferent = errors.New("replicas differ")

func (c *ctl) consistencyCommand() *cobra.Command {
	var w which
	parallel, wait := 4, time.Minute
	cmd := &cobra.Command{
		Use: "check-consistency [REGION ...]", Short: "Compare the replicas of regions, all of them or those named", Args: cobra.ArbitraryArgs,
		Long: `Check-consistency makes all replicas of a region hash their data as it is at one
point of the log, and compares the hashes. It reads all data once, on every store,
beside what else they do; --parallel bounds how many regions at once.`,
		RunE: c.run(func(s *session, args []string) error {
			if parallel < 1 || parallel > 64 {
				return fmt.Errorf("--parallel %d is not between 1 and 64", parallel)
			}
			want, err := ids("region", args)
			if err != nil {
				return err
			}
			all, _, err := s.regions(&w, 0)
			if err != nil {
				return err
			}
			if len(want) > 0 {
				all = slices.DeleteFunc(all, func(r Region) bool { return !slices.Contains(want, r.ID) })
				if len(all) < len(want) {
					return fmt.Errorf("%d of the regions do not exist; see 'cairn ctl regions'", len(want)-len(all))
				}
			}
			return s.checkConsistency(all, parallel, wait)
		}),
	}
	w.flags(cmd)
	cmd.Flags().IntVar(&parallel, "parallel", parallel, "regions at once")
	cmd.Flags().DurationVar(&wait, "wait", wait, "for the replicas of one region to be hashed")
	return cmd
}

func (s *session) checkConsistency(all []Region, parallel int, wait time.Duration) error {
	addrs, err := s.storeAddrs()
	if err != nil {
		return err
	}
	results := make([]Consistency, len(all))
	slots := make(chan struct{}, parallel)
	var work sync.WaitGroup
	for i, r := range all {
		slots <- struct{}{}
		work.Go(func() {
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(s.ctx, wait)
			defer cancel()
			results[i] = s.compare(ctx, r, addrs)
		})
	}
	work.Wait()
	return s.showConsistency(results)
}

// storeAddrs are the addresses of the stores.
func (s *session) storeAddrs() (map[uint64]string, error) {
	ctx, cancel := s.request()
	defer cancel()
	list, err := s.pd.DescribeStores(ctx)
	if err != nil {
		return nil, err
	}
	addrs := map[uint64]string{}
	for _, d := range list {
		addrs[d.GetStore().GetId()] = d.GetStore().GetAddress()
	}
	return addrs, nil
}

// leaderWait is how long a region's leader is looked for where the placement driver says it is:
// it hears of a new one a moment later.
const leaderWait = 5 * time.Second

// compare has the replicas of one region hashed and compares them.
func (s *session) compare(ctx context.Context, r Region, addrs map[uint64]string) Consistency {
	for begin := time.Now(); ; {
		c, moved := s.compareLedBy(ctx, r, addrs)
		if !moved || time.Since(begin) > leaderWait {
			return c
		}
		select {
		case <-time.After(hashPoll):
		case <-ctx.Done():
			return c
		}
		now, err := s.pd.DescribeRegions(ctx, &pdpb.DescribeRegionsRequest{RegionIds: []uint64{r.ID}})
		if err != nil || len(now) != 1 {
			return c // it may have been merged away
		}
		r = regionOf(now[0])
	}
}

// compareLedBy is compare if the leader is the one that r names; else moved is true.
func (s *session) compareLedBy(ctx context.Context, r Region, addrs map[uint64]string) (c Consistency, moved bool) {
	c = Consistency{Region: r.ID, Verdict: "unknown", Copies: []ReplicaHash{}}
	unknown := func(format string, args ...any) (Consistency, bool) {
		c.Problem = fmt.Sprintf(format, args...)
		return c, moved
	}
	if r.Leader == 0 {
		return unknown("it has no leader")
	}
	leader, err := s.stores.at(addrs[r.Leader])
	if err != nil {
		return unknown("store %d: %v", r.Leader, err)
	}
	before, err := hashOf(ctx, leader, r.ID)
	if err != nil {
		return unknown("store %d: %v", r.Leader, err)
	}
	resp, err := leader.HashRegion(ctx, &replpb.HashRegionRequest{RegionId: r.ID})
	if err != nil {
		return unknown("store %d: %v", r.Leader, err)
	}
	if e := resp.GetRegionError(); e != nil {
		moved = e.GetNotLeader() != nil
		return unknown("store %d: %s", r.Leader, strings.Join(strings.Fields(e.String()), " "))
	}
	own, err := awaitHash(ctx, leader, r.ID, before.GetIndex()+1)
	if err != nil {
		return unknown("store %d: %v", r.Leader, err)
	}
	c.Index = own.GetIndex()
	c.Verdict = "consistent"
	for _, p := range r.Peers {
		h := own
		if p.Store != r.Leader {
			if h, err = s.peerHash(ctx, addrs[p.Store], r.ID, c.Index); err != nil {
				c.Verdict = "unknown"
				return unknown("store %d: %v", p.Store, err)
			}
		}
		c.Copies = append(c.Copies, ReplicaHash{Store: p.Store, Keys: h.GetKeys(), Hash: fmt.Sprintf("%016x", h.GetSum())})
		switch {
		case h.GetIndex() != c.Index:
			c.Verdict = "unknown"
			return unknown("somebody else has the region checked at the same time; try again")
		case h.GetSum() != own.GetSum() || h.GetKeys() != own.GetKeys():
			c.Verdict = "different"
		}
	}
	return c, false
}

func (s *session) peerHash(ctx context.Context, addr string, region, index uint64) (*replpb.ReplicaHash, error) {
	store, err := s.stores.at(addr)
	if err != nil {
		return nil, err
	}
	return awaitHash(ctx, store, region, index)
}

const hashPoll = 50 * time.Millisecond

// awaitHash waits for the replica's hash at index or later.
func awaitHash(ctx context.Context, store storeAdmin, region, index uint64) (*replpb.ReplicaHash, error) {
	tick := time.NewTicker(hashPoll)
	defer tick.Stop()
	for {
		h, err := hashOf(ctx, store, region)
		switch {
		case err != nil:
			return nil, err
		case h.GetIndex() >= index && h.GetError() != "":
			return nil, errors.New(h.GetError())
		case h.GetIndex() >= index:
			return h, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("no hash in time; --wait gives it longer")
		}
	}
}

// hashOf is the last hash of a replica; nil when there was none yet.
func hashOf(ctx context.Context, store storeAdmin, region uint64) (*replpb.ReplicaHash, error) {
	resp, err := store.Replicas(ctx, &replpb.ReplicasRequest{RegionIds: []uint64{region}})
	if err != nil {
		return nil, err
	}
	if len(resp.GetReplicas()) != 1 {
		return nil, errors.New("it has no replica of the region")
	}
	return resp.Replicas[0].GetHash(), nil
}

func (s *session) showConsistency(results []Consistency) error {
	t := newTable("", "region>", "verdict", "keys by store", "problem")
	count := map[string]int{}
	for _, c := range results {
		count[c.Verdict]++
		if c.Verdict == "consistent" {
			continue
		}
		var copies []string
		for _, h := range c.Copies {
			copies = append(copies, fmt.Sprintf("%d: %d %s", h.Store, h.Keys, h.Hash))
		}
		t.row(c.Region, c.Verdict, strings.Join(copies, ", "), c.Problem)
	}
	if s.json {
		if err := s.show(results, nil); err != nil {
			return err
		}
	} else {
		if t.rows > 0 {
			t.render(s.out)
		}
		fmt.Fprintf(s.out, "%s checked: %d consistent, %d different, %d unknown.\n",
			counted(len(results), "region"), count["consistent"], count["different"], count["unknown"])
	}
	if count["different"] > 0 {
		return errDifferent
	}
	if count["unknown"] > 0 {
		return fmt.Errorf("%s could not be checked", counted(count["unknown"], "region"))
	}
	return nil
}
