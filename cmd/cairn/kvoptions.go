package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cairndb/cairn/cmd/cairn/nosync"
	"github.com/cairndb/cairn/cmd/cairn/quantity"
	"github.com/cairndb/cairn/kvnode"
	"github.com/cairndb/cairn/pd/pdclient"
	"github.com/cairndb/cairn/proto/kvpb"
)

// kvKeys are the flags of every process with a KV node.
var kvKeys = []string{
	"cache-size", "labels", "raft-tick", "raft-heartbeat", "raft-election", "raft-lease", "region-split-size", "region-max-size", "region-split-qps", "unsafe-no-sync",
}

// checkKV refuses flags of the KV node that make no sense, before anything starts.
func (c *config) checkKV() error {
	if _, err := parseLabels(c.Labels); err != nil {
		return err
	}
	return c.raftOptions(&kvnode.Options{})
}

// kvOptions are the options of the KV node of this process. The flags were checked.
func (c *config) kvOptions(p *process, pdc pdclient.Client) (kvnode.Options, error) {
	o := kvnode.Options{
		DataDir: c.sub("kv"), Advertise: c.Advertise, PD: pdc, Version: version,
		CacheBytes: c.budget.Cache, MemTableBytes: c.budget.MemTable, Logger: p.log, Registerer: p.registry,
	}
	var err error
	if o.Labels, err = parseLabels(c.Labels); err != nil {
		return o, err
	}
	if err := c.raftOptions(&o); err != nil {
		return o, err
	}
	if c.UnsafeNoSync {
		const loud = "--unsafe-no-sync: what this process acknowledges is LOST when it or the machine dies; for tests only"
		fmt.Fprintln(os.Stderr, "cairn: WARNING: "+loud)
		p.log.Warn(loud)
		o.FS = nosync.FS(vfs.Default)
	}
	return o, nil
}

// raftOptions fills in the times of Raft and the sizes of regions. Raft counts in
// ticks; people say times.
func (c *config) raftOptions(o *kvnode.Options) error {
	o.Tick = cmp.Or(time.Duration(c.RaftTick), 100*time.Millisecond)
	heartbeat := cmp.Or(time.Duration(c.RaftHeartbeat), 2*o.Tick)
	election := cmp.Or(time.Duration(c.RaftElection), 5*heartbeat)
	o.Lease = time.Duration(c.RaftLease)
	switch {
	case o.Tick < time.Millisecond || o.Tick > 10*time.Second:
		return fmt.Errorf("--raft-tick %s is not between 1ms and 10s", o.Tick)
	case heartbeat%o.Tick != 0 || election%o.Tick != 0:
		return fmt.Errorf("--raft-heartbeat %s and --raft-election %s must be whole numbers of --raft-tick %s", heartbeat, election, o.Tick)
	case election < 3*heartbeat:
		return fmt.Errorf("--raft-election %s is less than three times --raft-heartbeat %s: a single lost message would begin an election", election, heartbeat)
	case o.Lease > election*8/10:
		return fmt.Errorf("--raft-lease %s is more than eight tenths of --raft-election %s: a new leader could be elected while the old one still reads", o.Lease, election)
	}
	o.HeartbeatTicks, o.ElectionTicks = int(heartbeat/o.Tick), int(election/o.Tick)
	const least = 64 << 10
	o.RegionSplitBytes, o.RegionMaxBytes = uint64(c.RegionSplitSize), uint64(c.RegionMaxSize)
	o.RegionSplitQPS = int(c.RegionSplitQPS)
	for flag, size := range map[string]quantity.Size{"region-split-size": c.RegionSplitSize, "region-max-size": c.RegionMaxSize} {
		if size != 0 && size < least {
			return fmt.Errorf("--%s %s is less than 64KiB: the cluster would do nothing but split", flag, &size)
		}
	}
	if c.RegionSplitSize != 0 && c.RegionMaxSize != 0 && c.RegionMaxSize < c.RegionSplitSize {
		return fmt.Errorf("--region-max-size %s is less than --region-split-size %s, the size of the pieces", &c.RegionMaxSize, &c.RegionSplitSize)
	}
	return nil
}

// evictLeaders hands the leadership of regions over before the process ends.
func evictLeaders(node *kvnode.Node) func(context.Context) error {
	return func(ctx context.Context) error {
		if left := node.EvictLeaders(ctx); left > 0 {
			return fmt.Errorf("%d regions are still led here; other nodes elect leaders when this one is gone", left)
		}
		return nil
	}
}

// parseLabels reads key=value pairs.
func parseLabels(texts []string) ([]*kvpb.StoreLabel, error) {
	var labels []*kvpb.StoreLabel
	seen := map[string]bool{}
	for _, text := range texts {
		key, value, ok := strings.Cut(text, "=")
		switch {
		case !ok || key == "" || value == "":
			return nil, fmt.Errorf("--labels: %q is not a label; write them as zone=a,host=h1", text)
		case strings.ContainsAny(text, " \t\n,"):
			return nil, fmt.Errorf("--labels: %q contains white space", text)
		case seen[key]:
			return nil, fmt.Errorf("--labels: %s is there twice", key)
		}
		seen[key] = true
		labels = append(labels, &kvpb.StoreLabel{Key: key, Value: value})
	}
	return labels, nil
}
