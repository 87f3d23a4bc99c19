package kvclient

import (
	"bytes"
	"context"
	"math"
	"slices"
	"time"

	"github.com/cairndb/cairn/proto/kvpb"
)

// Reads that may go to another replica than the leader (Context.replica_read) go like
// this:
//
//  1. A replica is chosen. If that is the leader, or none, the read is like any other.
//  2. The leader is asked to close the read's timestamp, unless what it closed last is
//     kept with the region's route and covers it, or the timestamp is so old that the replica
//     may have been told. It may leave keys open that are being committed: reads of these
//     go to the leader.
//  3. The replica is asked, once. Whatever it answers but a result, the leader is asked
//     then: this door heals nothing, and so needs no patience of its own.

// oldAge is how old a timestamp is that a replica may know to be closed.
const oldAge = 2 * time.Second

// replicaSlice bounds the time for a replica's answer.
const replicaSlice = 600 * time.Millisecond

// lagPause is for how long the leader gets the reads of a region after a replica could not
// serve one: most likely it would keep the next ones waiting as well.
const lagPause = time.Second

// lagging says whether a replica of the region failed to serve a read lately.
func (c *Client) lagging(e *entry) bool {
	until := e.lagUntil.Load()
	return until != 0 && int64(c.clock()) < until
}

// Who serves a read that may go to any replica.
const (
	nearReplica = iota
	nearPast
	nearLeader
	nearFailed
	nearOutcomes
)

var nearOutcomeNames = [nearOutcomes]string{"replica", "past", "leader", "failed"}

// closed says that a timestamp is closed in a region's log at an index, for all keys but a few.
type closed struct {
	ts, index uint64
	open      [][]byte // the others, in order: commits of them were under way
}

// covers says whether the timestamp is closed for all that req reads.
func (cl *closed) covers(req *kvpb.Request) bool {
	if len(cl.open) == 0 {
		return true
	}
	switch c := req.GetCmd().(type) {
	case *kvpb.Request_Get:
		_, open := slices.BinarySearchFunc(cl.open, c.Get.Key, bytes.Compare)
		return !open
	case *kvpb.Request_BatchGet:
		return !slices.ContainsFunc(c.BatchGet.Keys, func(k []byte) bool {
			_, open := slices.BinarySearchFunc(cl.open, k, bytes.Compare)
			return open
		})
	case *kvpb.Request_Scan:
		i, _ := slices.BinarySearchFunc(cl.open, c.Scan.StartKey, bytes.Compare)
		return i == len(cl.open) || len(c.Scan.EndKey) > 0 && bytes.Compare(cl.open[i], c.Scan.EndKey) >= 0
	}
	return false
}

// readTS returns the read timestamp of a request that may go to any replica.
func readTS(req *kvpb.Request) (ts uint64, ok bool) {
	switch c := req.GetCmd().(type) {
	case *kvpb.Request_Get:
		ts = c.Get.ReadTs
	case *kvpb.Request_BatchGet:
		ts = c.BatchGet.ReadTs
	case *kvpb.Request_Scan:
		ts = c.Scan.ReadTs
	}
	return ts, ts != 0 && ts != math.MaxUint64
}

// sendNearest sends a read to a replica that the request's context allows; nil if it
// has to go to the leader. The context is as it was then.
func (c *Client) sendNearest(ctx context.Context, op operation, e *entry, kctx *kvpb.Context, req *kvpb.Request) *kvpb.Response {
	ts, ok := readTS(req)
	if !ok {
		return nil
	}
	var rt *route
	if !c.lagging(e) {
		rt = c.replicaRoute(e, kctx.ReplicaRead)
	}
	if rt == nil {
		c.metrics.replicaReads[nearLeader].Inc()
		return nil
	}
	defer func() { kctx.ReadIndex = 0 }()
	cl := e.closed.Load()
	known := cl != nil && cl.ts >= ts
	old := time.Since(time.UnixMilli(int64(ts>>18))) > oldAge
	if !known && old {
		kctx.ReadIndex = 0
		if resp := c.readReplica(ctx, op, e, rt, kctx, req); resp != nil {
			c.metrics.replicaReads[nearPast].Inc()
			return resp
		}
	}
	if !known {
		if cl = c.closeTS(ctx, e, ts, old); cl == nil {
			c.metrics.replicaReads[nearFailed].Inc()
			return nil
		}
	}
	if !cl.covers(req) {
		c.metrics.replicaReads[nearLeader].Inc()
		return nil
	}
	kctx.ReadIndex = cl.index
	resp := c.readReplica(ctx, op, e, rt, kctx, req)
	if resp == nil {
		e.lagUntil.Store(int64(c.clock() + lagPause))
		c.metrics.replicaReads[nearFailed].Inc()
		return nil
	}
	c.metrics.replicaReads[nearReplica].Inc()
	return resp
}

// readReplica asks one replica once. Nil means that it did not serve the read.
func (c *Client) readReplica(ctx context.Context, op operation, e *entry, rt *route, kctx *kvpb.Context, req *kvpb.Request) *kvpb.Response {
	resp, err := c.attempt(ctx, e, rt, min(replicaSlice, c.opts.AttemptTimeout), kctx, req)
	if err != nil {
		return nil
	}
	if re, ok := regionErrorOf(op, resp); !ok || re != nil {
		return nil
	}
	return resp
}

// closeTS has the leader close a timestamp. Nil means that the leader has to serve the
// read, or find out what is wrong.
func (c *Client) closeTS(ctx context.Context, e *entry, ts uint64, keep bool) *closed {
	req := &kvpb.ReadIndexRequest{ReadTs: ts, KeepClosing: keep, AllowOpenKeys: !keep, Context: &kvpb.Context{}}
	resp, err := c.attempt(ctx, e, e.route.Load(), c.opts.AttemptTimeout, req.Context, &kvpb.Request{Cmd: &kvpb.Request_ReadIndex{ReadIndex: req}})
	if err != nil {
		return nil
	}
	got := resp.GetReadIndex()
	if got == nil || got.RegionError != nil || got.Error != nil {
		return nil
	}
	slices.SortFunc(got.OpenKeys, bytes.Compare)
	next := &closed{ts, got.Index, got.OpenKeys}
	for {
		old := e.closed.Load()
		if old != nil && old.ts >= ts || e.closed.CompareAndSwap(old, next) {
			return next
		}
	}
}

// replicaRoute chooses a replica that is not the leader; nil if there is none that
// answers, or the leader is as near as any.
func (c *Client) replicaRoute(e *entry, mode kvpb.ReplicaRead) *route {
	leader := e.route.Load()
	closest := mode == kvpb.ReplicaRead_REPLICA_READ_CLOSEST
	if c.opts.FromStore != 0 && peerAt(e.meta, c.opts.FromStore) == nil {
		c.refresh(e, peersEvery) // the store here may have got a replica meanwhile
	}
	var best *route
	bestRank := -1
	if closest && !leader.store.isDown() {
		bestRank = c.nearness(leader.store)
	}
	first := int(c.nextReplica.Add(1) % 1024) // equals take turns
	for i := range e.meta.Peers {
		p := e.meta.Peers[(first+i)%len(e.meta.Peers)]
		if p.Id == leader.peer.Id {
			continue
		}
		rt, err := c.routeTo(p)
		if err != nil || rt.store.isDown() {
			continue
		}
		rank := 0
		if closest {
			rank = c.nearness(rt.store)
		}
		if rank > bestRank {
			best, bestRank = rt, rank
		}
	}
	return best
}

// nearest is the rank of the store in this process.
const nearest = 1 << 20

// nearness ranks stores: that of this process, then those that share the most labels
// with it, from the first on.
func (c *Client) nearness(s *store) int {
	if s.id == c.opts.FromStore && s.id != 0 {
		return nearest
	}
	own := c.opts.Labels
	if len(own) == 0 && c.opts.FromStore != 0 {
		if here, err := c.store(c.opts.FromStore); err == nil {
			own = here.labelsNow()
		}
	}
	if len(own) == 0 {
		return 0
	}
	n, theirs := 0, s.labelsNow()
	for n < len(own) && slices.ContainsFunc(theirs, func(l *kvpb.StoreLabel) bool {
		return l.GetKey() == own[n].GetKey() && l.GetValue() == own[n].GetValue()
	}) {
		n++
	}
	return n
}

// labelsEvery is how often PD is asked for the labels of a store.
const labelsEvery = time.Minute

// labelsNow returns the labels of the store as far as they are known, and has them
// asked for in the background.
func (s *store) labelsNow() []*kvpb.StoreLabel {
	last, now := s.labelled.Load(), int64(s.c.clock())
	if (last == 0 || now-last > int64(labelsEvery)) && s.labelled.CompareAndSwap(last, now) {
		s.c.goFunc(func() {
			ctx, cancel := context.WithTimeout(s.c.ctx, refreshTimeout)
			defer cancel()
			if meta, err := s.c.opts.PD.GetStore(ctx, s.id); err == nil {
				s.labels.Store(&meta.Labels)
			}
		})
	}
	if p := s.labels.Load(); p != nil {
		return *p
	}
	return nil
}
