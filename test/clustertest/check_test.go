package clustertest

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/cairndb/cairn/kvnode/engine"
	"github.com/cairndb/cairn/kvnode/replica"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/pdpb"
)

const (
	// settleTimeout bounds how long a cluster takes to come to rest once all is well again.
	settleTimeout = 90 * time.Second
	settlePoll    = 100 * time.Millisecond
	// settleLooks is how often in a row it has to look at rest: what was asked for last may still be on its way.
	settleLooks = 10
)

// settle waits until every region of PD has a leader, all its peers have everything, and
// nothing else is left on any store.
func (c *cluster) settle() {
	calm := 0
	for end := c.now() + settleTimeout; ; time.Sleep(settlePoll) {
		why := c.unsettled()
		if why != "" {
			calm = 0
		} else if calm++; calm == settleLooks {
			return
		}
		if why != "" && c.now() > end {
			c.fail("not settled: %s\n%s", why, c.describe())
		}
	}
}

// unsettled says what settle waits for, "" for nothing.
func (c *cluster) unsettled() string {
	at := []byte{}
	regions := c.pd.all()
	copies := 0
	for i, r := range regions {
		m := r.GetRegion()
		if string(m.GetStartKey()) != string(at) || (len(m.GetEndKey()) == 0) != (i == len(regions)-1) {
			return fmt.Sprintf("PD does not know the region at %q", at)
		}
		at = m.GetEndKey()
		copies += len(m.GetPeers())
		if slices.ContainsFunc(m.GetPeers(), func(p *kvpb.Peer) bool {
			return p.GetRole() == kvpb.PeerRole_PEER_ROLE_INCOMING_VOTER || p.GetRole() == kvpb.PeerRole_PEER_ROLE_DEMOTING_VOTER
		}) {
			c.leaveJoint(r)
			return fmt.Sprintf("region %d is in a joint configuration", m.GetId())
		}
		if why := c.unequal(m); why != "" {
			return why
		}
	}
	if len(at) > 0 || len(regions) == 0 {
		return "PD does not know the last region"
	}
	have := 0
	c.replicas(func(*node, *replica.Replica) { have++ })
	if have != copies {
		return fmt.Sprintf("the stores have %d replicas, PD knows of %d", have, copies)
	}
	return ""
}

// unequal says how the replicas of a region differ, "" if they do not.
func (c *cluster) unequal(m *kvpb.Region) string {
	leaders := 0
	var applied []uint64
	for _, p := range m.GetPeers() {
		r := c.replica(p.GetStoreId(), m.GetId())
		if r == nil || r.Peer().GetId() != p.GetId() {
			return fmt.Sprintf("region %d has no peer %d on store %d", m.GetId(), p.GetId(), p.GetStoreId())
		}
		v := r.View()
		e, want := v.Meta().GetEpoch(), m.GetEpoch()
		if e.GetVersion() != want.GetVersion() || e.GetConfVer() != want.GetConfVer() || v.Merging() {
			return fmt.Sprintf("region %d is another on store %d", m.GetId(), p.GetStoreId())
		}
		if v.Leading() {
			leaders++
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			if err := v.ReadReady(ctx); err != nil {
				cancel()
				return fmt.Sprintf("region %d does not serve: %v", m.GetId(), err)
			}
			cancel()
		}
		applied = append(applied, r.AppliedIndex())
	}
	if leaders != 1 {
		return fmt.Sprintf("region %d has %d leaders", m.GetId(), leaders)
	}
	if slices.Min(applied) != slices.Max(applied) {
		return fmt.Sprintf("region %d has applied %v", m.GetId(), applied)
	}
	return ""
}

func (c *cluster) replica(store, region uint64) *replica.Replica {
	for _, n := range c.nodes {
		if p := n.run.Load(); p != nil && n.id == store {
			var found *replica.Replica
			p.store.EachReplica(func(r *replica.Replica) bool {
				if r.ID() == region {
					found = r
				}
				return found == nil
			})
			return found
		}
	}
	return nil
}

// checkCopies compares all replicas of all regions, by their hashes and by what they have in the registers.
func (c *cluster) checkCopies() {
	for _, r := range c.pd.all() {
		m := r.GetRegion()
		c.await(fmt.Sprintf("hashes of region %d", m.GetId()), 10*time.Second, func() bool { return c.sameHashes(m) })
	}
	for _, key := range keys {
		for _, r := range c.pd.all() {
			if !contains(r.GetRegion(), []byte(key)) {
				continue
			}
			var values []string
			for _, p := range r.GetRegion().GetPeers() {
				values = append(values, c.stored(p.GetStoreId(), key))
			}
			if slices.Min(values) != slices.Max(values) {
				c.fail("key %s has %v on the stores of %s", key, values, describeRegion(r.GetRegion()))
			}
		}
	}
}

// sameHashes computes the hashes of a region's copies and fails when two of the same index differ.
func (c *cluster) sameHashes(m *kvpb.Region) bool {
	for _, p := range m.GetPeers() {
		if r := c.replica(p.GetStoreId(), m.GetId()); r != nil && r.View().Leading() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			if r.View().ProposeHash(ctx) != nil {
				return false
			}
		}
	}
	time.Sleep(300 * time.Millisecond)
	byIndex := map[uint64]replica.Hash{}
	for _, p := range m.GetPeers() {
		r := c.replica(p.GetStoreId(), m.GetId())
		if r == nil {
			return false
		}
		h := r.Hash()
		if h.Err != nil {
			c.fail("hash: %v", h.Err)
		}
		if other, ok := byIndex[h.Index]; ok && (other.Sum != h.Sum || other.Keys != h.Keys) {
			c.fail("region %d on store %d at %d: %d keys, hash %x; elsewhere %d keys, hash %x", m.GetId(), p.GetStoreId(), h.Index, h.Keys, h.Sum, other.Keys, other.Sum)
		}
		byIndex[h.Index] = h
	}
	_, none := byIndex[0]
	return len(byIndex) == 1 && !none
}

// stored is what a store's database has in a register.
func (c *cluster) stored(store uint64, key string) string {
	for _, n := range c.nodes {
		if p := n.run.Load(); p != nil && n.id == store {
			v, _, err := p.store.Engine().GetVersioned(engine.CFWrite, []byte(key), 1)
			if err != nil {
				c.fail("store %d: %v", store, err)
			}
			return register(v)
		}
	}
	return "store is down"
}

// checkHistory has porcupine judge what clients saw, with a last read of every register.
func (c *cluster) checkHistory(h *history) {
	for _, key := range keys {
		for _, r := range c.pd.all() {
			if contains(r.GetRegion(), []byte(key)) {
				h.add(op{client: 1000, key: key, call: c.now(), done: c.now() + 1, value: c.stored(r.GetLeader().GetStoreId(), key)})
			}
		}
	}
	reads := map[string]time.Duration{} // value -> when it was first read
	for _, o := range h.ops {
		if at, ok := reads[o.key+o.value]; !o.write && (!ok || o.done < at) {
			reads[o.key+o.value] = o.done
		}
	}
	byKey := map[string][]porcupine.Operation{}
	for _, o := range h.ops {
		if o.unknown {
			// A write that nobody saw may have happened last or never. One that was seen had
			// happened by then.
			at, seen := reads[o.key+o.value]
			if !seen {
				continue
			}
			o.done = max(at, o.call)
		}
		byKey[o.key] = append(byKey[o.key], porcupine.Operation{ClientId: o.client, Input: o, Output: o, Call: int64(o.call), Return: int64(o.done)})
	}
	model := porcupine.Model{
		Init: func() any { return "" },
		Step: func(state, input, _ any) (bool, any) {
			o := input.(op)
			if o.write {
				return true, o.value
			}
			return state == o.value, state
		},
	}
	for key, ops := range byKey {
		switch porcupine.CheckOperationsTimeout(model, ops, 20*time.Second) {
		case porcupine.Illegal:
			c.fail("the history of %s is not linearizable:\n%s", key, explain(h, key))
		case porcupine.Unknown:
			c.counts.add("histories not judged", 1)
		}
	}
}

// explain prints what is known of a key around its first stale or invented read.
func explain(h *history, key string) string {
	var ops []op
	for _, o := range h.ops {
		if o.key == key {
			ops = append(ops, o)
		}
	}
	sort.Slice(ops, func(i, j int) bool { return ops[i].call < ops[j].call })
	written := map[string]op{}
	for _, o := range ops {
		if o.write {
			written[o.value] = o
		}
	}
	var b strings.Builder
	suspect := time.Duration(-1)
	for _, o := range ops {
		if o.write {
			continue
		}
		w, ok := written[o.value]
		if !ok && o.value != "" {
			fmt.Fprintf(&b, "INVENTED: %+v\n", o)
			suspect = o.call
		}
		for _, later := range ops {
			if later.write && !later.unknown && later.call > w.done && later.done < o.call && (w.done > 0 || o.value == "") {
				fmt.Fprintf(&b, "STALE: %+v after %+v\n", o, later)
				suspect = o.call
				break
			}
		}
		if suspect >= 0 {
			break
		}
	}
	for _, o := range ops {
		if suspect < 0 || o.done > suspect-3*time.Second && o.call < suspect+time.Second {
			fmt.Fprintf(&b, "%+v\n", o)
		}
	}
	return b.String()
}

func describeRegion(m *kvpb.Region) string {
	var peers []string
	for _, p := range m.GetPeers() {
		peers = append(peers, fmt.Sprintf("%d@%d%s", p.GetId(), p.GetStoreId(), map[kvpb.PeerRole]string{
			kvpb.PeerRole_PEER_ROLE_LEARNER: "L", kvpb.PeerRole_PEER_ROLE_INCOMING_VOTER: "+", kvpb.PeerRole_PEER_ROLE_DEMOTING_VOTER: "-",
		}[p.GetRole()]))
	}
	return fmt.Sprintf("region %d [%s,%s) v%d c%d %v", m.GetId(), m.GetStartKey(), m.GetEndKey(), m.GetEpoch().GetVersion(), m.GetEpoch().GetConfVer(), peers)
}

func changeStep(changes ...*pdpb.ChangePeer) *pdpb.RegionHeartbeatResponse {
	return &pdpb.RegionHeartbeatResponse{Step: &pdpb.RegionHeartbeatResponse_ChangePeers{ChangePeers: &pdpb.ChangePeersStep{Changes: changes}}}
}
