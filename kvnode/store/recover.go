package store

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/kvnode/engine"
	"github.com/cairndb/cairn/kvnode/replica"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/replpb"
)

// RecoverOptions of UnsafeRecover.
type RecoverOptions struct {
	Dir string
	FS  vfs.FS // nil = the operating system's
	// Lost are the stores that will never come back.
	Lost []uint64
	// Apply changes the directory. Without it UnsafeRecover only tells what it would do.
	Apply bool
}

// Recovery is what UnsafeRecover did, or would do.
type Recovery struct {
	Store   uint64
	Regions int               // with a replica here
	Changed []RecoveredRegion // those whose majority is lost
}

// RecoveredRegion is a region that goes on with what is left of it.
type RecoveredRegion struct {
	Before, After *kvpb.Region
}

// recoveredConfVer is how much newer a recovered membership is than the one it
// replaces: newer than whatever the lost replicas, and PD by them, may have known.
const recoveredConfVer = 1000

// UnsafeRecover lets the regions of a store that is not running go on without the
// stores that are lost. Regions that still have a majority are left alone: PD
// repairs them. In the others the surviving replicas become all there is; writes
// that only the lost ones had acknowledged are gone, and should a lost store ever
// run again, both sides take writes.
//
// With several survivors of a region, all of their directories must be changed in
// the same way before any of them starts.
func UnsafeRecover(o RecoverOptions) (_ *Recovery, err error) {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if _, err := o.FS.Stat(o.FS.PathJoin(o.Dir, "state")); err != nil {
		return nil, fmt.Errorf("store: %s is not a store: %w", o.Dir, err)
	}
	lock, err := pebble.LockDirectory(o.Dir, o.FS)
	if err != nil {
		return nil, fmt.Errorf("store: data directory %s is in use by another process; stop it first: %w", o.Dir, err)
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	db, err := engine.Open(engine.Options{Dir: o.FS.PathJoin(o.Dir, "state"), FS: o.FS})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return recoverRegions(&Store{o: Options{Dir: o.Dir}, engine: db}, o)
}

func recoverRegions(s *Store, o RecoverOptions) (*Recovery, error) {
	ident, err := s.loadIdent()
	if err != nil {
		return nil, err
	}
	if ident == nil {
		return nil, fmt.Errorf("store: %s was never part of a cluster", o.Dir)
	}
	r := &Recovery{Store: ident.GetStoreId()}
	if slices.Contains(o.Lost, r.Store) {
		return nil, fmt.Errorf("store: %s is store %d, which is said to be lost", o.Dir, r.Store)
	}
	live, _, err := replica.LoadStates(s.engine)
	if err != nil {
		return nil, err
	}
	r.Regions = len(live)
	err = s.commitLocal(func(b *engine.Batch) error {
		for _, state := range live {
			after := survivors(state.GetRegion(), o.Lost)
			if after == nil {
				continue
			}
			r.Changed = append(r.Changed, RecoveredRegion{Before: state.GetRegion(), After: after})
			next := proto.CloneOf(state)
			next.Region = after
			if err := setIf(o.Apply, b, next); err != nil {
				return err
			}
		}
		return nil
	})
	return r, err
}

func setIf(apply bool, b *engine.Batch, state *replpb.RegionState) error {
	if !apply {
		return nil
	}
	return replica.SetState(b, state)
}

// survivors is the region without the replicas on lost stores, all that could
// vote as voters; nil when it still has its majority.
func survivors(region *kvpb.Region, lost []uint64) *kvpb.Region {
	if quorum(region, lost, kvpb.PeerRole_PEER_ROLE_INCOMING_VOTER) && quorum(region, lost, kvpb.PeerRole_PEER_ROLE_DEMOTING_VOTER) {
		return nil
	}
	after := proto.CloneOf(region)
	after.Peers = slices.DeleteFunc(after.Peers, func(p *kvpb.Peer) bool { return slices.Contains(lost, p.StoreId) })
	learnersOnly := !slices.ContainsFunc(after.Peers, func(p *kvpb.Peer) bool { return p.Role != kvpb.PeerRole_PEER_ROLE_LEARNER })
	for _, p := range after.Peers {
		if learnersOnly || p.Role != kvpb.PeerRole_PEER_ROLE_LEARNER {
			p.Role = kvpb.PeerRole_PEER_ROLE_VOTER
		}
	}
	after.Epoch.ConfVer += recoveredConfVer
	return after
}

// quorum reports whether the voters, counting those with the role also, have a
// majority on stores that are not lost.
func quorum(region *kvpb.Region, lost []uint64, also kvpb.PeerRole) bool {
	all, alive := 0, 0
	for _, p := range region.GetPeers() {
		if p.Role == kvpb.PeerRole_PEER_ROLE_VOTER || p.Role == also {
			all++
			if !slices.Contains(lost, p.StoreId) {
				alive++
			}
		}
	}
	return alive > all/2
}
