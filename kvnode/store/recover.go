package store

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cairndb/cairn/kvnode/engine"
	"github.com/cairndb/cairn/kvnode/replica"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/protobuf/proto"
)

// RecoverOptions of UnsafeRecover.
type RecoverOptions struct {
	// Dir is the data directory of a node that does not run. Required.
	Dir string
	// FS is where Dir lives. Nil means the operating system's file system.
	FS vfs.FS
	// FailedStores are lost for good: they must never start again.
	FailedStores []uint64
	// DryRun reports what would be done and changes nothing.
	DryRun bool
}

// Recovered is a region that has lost its majority, before and after.
type Recovered struct {
	Before, After *kvpb.Region
}

// UnsafeRecover gives regions that have lost their majority with FailedStores a new
// membership of what is left of them on other stores. It has to be done, with the same
// FailedStores, on every store that survives, while none of them runs.
//
// It is unsafe: writes that were acknowledged may be lost, when the replicas that are
// left had not got them, and transactions may be left half done.
func UnsafeRecover(o RecoverOptions) (out []Recovered, err error) {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.Dir == "" || len(o.FailedStores) == 0 {
		return nil, errors.New("store: a data directory and the failed stores are required")
	}
	state := o.FS.PathJoin(o.Dir, "state")
	if _, err := o.FS.Stat(state); err != nil {
		return nil, fmt.Errorf("store: %s is not the data directory of a KV node: %w", o.Dir, err)
	}
	lock, err := pebble.LockDirectory(o.Dir, o.FS)
	if err != nil {
		return nil, fmt.Errorf("store: %s is in use; stop its process first: %w", o.Dir, err)
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	db, err := engine.Open(engine.Options{Dir: state, FS: o.FS})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	live, _, err := replica.LoadStates(db)
	if err != nil {
		return nil, err
	}
	b := db.NewBatch()
	defer func() { err = errors.Join(err, b.Close()) }()
	for _, st := range live {
		after := withoutStores(st.GetRegion(), o.FailedStores)
		if after == nil {
			continue
		}
		out = append(out, Recovered{Before: st.GetRegion(), After: after})
		next := proto.CloneOf(st)
		next.Region = after
		if err := replica.SetState(b, next); err != nil {
			return nil, err
		}
	}
	if o.DryRun || len(out) == 0 {
		return out, nil
	}
	return out, db.Commit(b, true)
}

// withoutStores returns a region with the peers that are left when stores are lost,
// nil if it still has a majority, or nobody is left.
func withoutStores(region *kvpb.Region, failed []uint64) *kvpb.Region {
	lost := func(p *kvpb.Peer) bool { return slices.Contains(failed, p.GetStoreId()) }
	if !losesMajority(region, lost, kvpb.PeerRole_PEER_ROLE_INCOMING_VOTER) && !losesMajority(region, lost, kvpb.PeerRole_PEER_ROLE_DEMOTING_VOTER) {
		return nil
	}
	next := proto.CloneOf(region)
	next.Peers = slices.DeleteFunc(next.Peers, lost)
	if len(next.Peers) == 0 {
		return nil
	}
	voting := slices.DeleteFunc(slices.Clone(next.Peers), func(p *kvpb.Peer) bool { return p.GetRole() == kvpb.PeerRole_PEER_ROLE_LEARNER })
	for _, p := range next.Peers {
		if len(voting) == 0 || p.GetRole() != kvpb.PeerRole_PEER_ROLE_LEARNER {
			p.Role = kvpb.PeerRole_PEER_ROLE_VOTER
		}
	}
	next.Epoch.ConfVer += uint64(len(region.Peers)) // more than any change in flight
	return next
}

// losesMajority says whether the configuration of plain voters and those of a role
// has no majority without the lost ones.
func losesMajority(region *kvpb.Region, lost func(*kvpb.Peer) bool, role kvpb.PeerRole) bool {
	all, left := 0, 0
	for _, p := range region.GetPeers() {
		if p.GetRole() != kvpb.PeerRole_PEER_ROLE_VOTER && p.GetRole() != role {
			continue
		}
		all++
		if !lost(p) {
			left++
		}
	}
	return left <= all/2
}
