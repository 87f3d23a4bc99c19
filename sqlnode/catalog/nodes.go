package catalog

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/cairndb/cairn/internal/keys"
	"github.com/cairndb/cairn/kvnode/kvclient/txn"
)

// nodeRecord is what a node tells the others. Times are physical milliseconds of PD's clock.
type nodeRecord struct {
	ID      string  `json:"id"`     // of the node, see Catalog.NodeID
	Loaded  int64   `json:"loaded"` // version of new transactions
	Oldest  int64   `json:"oldest"` // oldest version of open transactions
	Expires int64   `json:"expires"`
	Process process `json:"process"`
}

// physicalMillis is the clock part of a timestamp.
func physicalMillis(ts uint64) int64 { return int64(ts >> 18) }

// renew publishes the versions in use and extends the lease.
func (c *Catalog) renew(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.opts.Lease)
	defer cancel()
	c.mu.Lock()
	loaded, oldest := c.current.Load().snap.Version, c.oldestLocked()
	c.mu.Unlock()
	return c.publish(ctx, loaded, oldest)
}

// publish writes the node's record. The lease counts from before the request, so that this node stops first.
func (c *Catalog) publish(ctx context.Context, loaded, oldest int64) error {
	var sent time.Duration
	err := c.opts.KV.Update(ctx, func(tx Tx) error {
		sent = time.Since(c.base)
		expires := physicalMillis(tx.TS()) + c.opts.Lease.Milliseconds()
		return tx.Set(keys.Meta(nodePrefix+c.record), mustJSON(nodeRecord{ID: c.nodeID, Loaded: loaded, Oldest: oldest, Expires: expires, Process: c.process}))
	})
	if err != nil {
		return err
	}
	c.validUntil.Store(int64(sent + c.opts.Lease - min(leaseMargin, c.opts.Lease/2)))
	return nil
}

// nodes reads the records of the other live nodes and removes those that ran out.
func (c *Catalog) nodes(ctx context.Context) (live map[string]nodeRecord, err error) {
	live = map[string]nodeRecord{}
	var dead []string
	err = c.opts.KV.View(ctx, func(tx Tx) error {
		now := physicalMillis(tx.TS())
		start, end := keys.MetaPrefix(nodePrefix)
		return tx.Scan(ctx, start, end, txn.ScanOptions{}, func(k, v []byte) error {
			name, err := keys.DecodeMeta(k)
			if err != nil {
				return err
			}
			id := name[len(nodePrefix):]
			var r nodeRecord
			if err := json.Unmarshal(v, &r); err != nil {
				return fmt.Errorf("catalog: node record %s: %w", id, err)
			}
			switch {
			case id == c.record:
			case r.Expires < now || c.longDead(r):
				dead = append(dead, id)
			default:
				live[id] = r
			}
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	for _, id := range dead {
		if err := c.removeDead(ctx, id); err != nil {
			return nil, err
		}
	}
	return live, nil
}

// longDead says that a record's process was seen dead a while ago.
func (c *Catalog) longDead(r nodeRecord) bool {
	if !r.Process.knownDead(c.process) {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	seen, ok := c.mu.dead[r.ID]
	if !ok {
		c.mu.dead[r.ID] = time.Now()
		return false
	}
	return time.Since(seen) > deadGrace
}

// removeDead deletes a record unless its node came back in between.
func (c *Catalog) removeDead(ctx context.Context, id string) error {
	return c.opts.KV.Update(ctx, func(tx Tx) error {
		key := keys.Meta(nodePrefix + id)
		v, err := tx.Get(ctx, key)
		if err != nil || v == nil {
			return err
		}
		var r nodeRecord
		if err := json.Unmarshal(v, &r); err != nil || r.Expires >= physicalMillis(tx.TS()) && !c.longDead(r) {
			return err
		}
		return tx.Delete(key)
	})
}

// LiveNodes lists the ids of the other nodes (see NodeID) whose lease has not run out.
func (c *Catalog) LiveNodes(ctx context.Context) (ids []string, err error) {
	live, err := c.nodes(ctx)
	for _, r := range live {
		ids = append(ids, r.ID)
	}
	return ids, err
}

// WaitLoaded returns when every live node uses at least version for new transactions.
func (c *Catalog) WaitLoaded(ctx context.Context, version int64) error {
	return c.waitNodes(ctx, func(r nodeRecord) bool { return r.Loaded >= version })
}

// WaitDrained returns when no live node has an open transaction on a version older than version. The caller must not
// hold such a pin itself.
func (c *Catalog) WaitDrained(ctx context.Context, version int64) error {
	for {
		c.mu.Lock()
		oldest, changed := c.oldestLocked(), c.mu.changed
		c.mu.Unlock()
		if oldest >= version {
			break
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return c.waitNodes(ctx, func(r nodeRecord) bool { return r.Oldest >= version && r.Loaded >= version })
}

// Drained says, without waiting, whether WaitDrained would return at once.
func (c *Catalog) Drained(ctx context.Context, version int64) (bool, error) {
	c.mu.Lock()
	oldest := c.oldestLocked()
	c.mu.Unlock()
	if oldest < version {
		return false, nil
	}
	live, err := c.nodes(ctx)
	for _, r := range live {
		if r.Oldest < version {
			return false, err
		}
	}
	return err == nil, err
}

// waitNodes polls the other nodes' records until all satisfy ok. Nodes publish a change at once, after at most one
// poll interval of theirs.
func (c *Catalog) waitNodes(ctx context.Context, ok func(nodeRecord) bool) error {
	const firstDelay, maxDelay = 5 * time.Millisecond, 100 * time.Millisecond
	for delay := firstDelay; ; delay = min(2*delay, maxDelay) {
		live, err := c.nodes(ctx)
		if err != nil {
			return err
		}
		waiting := false
		for _, r := range live {
			waiting = waiting || !ok(r)
		}
		if !waiting {
			return nil
		}
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
