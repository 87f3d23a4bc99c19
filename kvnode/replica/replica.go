// Package replica is one copy of one region: a Raft group member, the state
// machine it feeds, and the rules under which the copy may be read and written.
//
// A Replica has no goroutine. Whoever wants something of it leaves that in its
// inbox and asks the Host to schedule it; the Host calls Visit from one goroutine
// at a time. A visit does, in this order: at most one tick, what became durable,
// messages, reads, proposals (all of them in one Raft message); then it hands on
// what Raft is ready with: entries to the log writer first, messages to the
// transport, committed entries to the state machine, which it applies itself, so
// that the way of a write is
//
//	proposer -> visit -> log writer (fsync) -> visit (applies) -> proposer.
//
// Commands are admitted through a View: what the region is (epoch, term, lock
// index) as long as this replica leads it unchanged. A new view is published
// before anything that contradicts the old one becomes visible, so a reader that
// finds its view still current after opening an iterator has read under it.
//
// A write was evaluated before it was proposed. It is valid only in the term and
// region version it was evaluated under, which its entry names and every replica
// checks when it applies; an entry that fails the check changes nothing but the
// applied index.
package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cairndb/cairn/kvnode/engine"
	"github.com/cairndb/cairn/kvnode/mvcc"
	"github.com/cairndb/cairn/kvnode/raftlog"
	"github.com/cairndb/cairn/kvnode/rafttransport"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/replpb"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

const (
	initialIndex = raftlog.InitialIndex
	initialTerm  = raftlog.InitialTerm
)

// Host is what a replica needs of its store. All methods may be called during a
// visit and must not visit a replica themselves.
type Host interface {
	// Admit lets a write pass, perhaps after a while, or says why not. It is called
	// by proposers. Done tells that a write let pass, of n bytes, is over.
	Admit(ctx context.Context, b *engine.Batch) *kvpb.RegionError
	Done(n int)
	// Schedule asks for a visit of r, soon, and again if one is running.
	Schedule(r *Replica)
	// Send passes messages on to other stores. They may be lost. The host owns msgs.
	Send(msgs []rafttransport.Message)
	// SendSnapshot sends m, a MsgSnap, with the state that goes with it, closes that, and
	// tells SnapshotSent what became of it.
	SendSnapshot(r *Replica, m rafttransport.Message, state *engine.RangeSnapshot)
	// Install calls r.Install, from a goroutine of its own, for the snapshot that Raft
	// has accepted. DropSnapshot tells that Raft did not want what was received.
	Install(r *Replica, s *replpb.SnapshotMeta)
	DropSnapshot(r *Replica)
	// Installed tells that r.Install is done and the region has a new range.
	Installed(r *Replica, before *kvpb.Region)
	// Merging tells, again and again, that r is the source of a merge. The host has a
	// leader of the target on this store propose c, or r roll the merge back.
	Merging(r *Replica, m *replpb.PrepareMerge, c *replpb.CommitMerge)
	// Absorb calls Absorb of the source's replica. Merged tells that target has taken
	// source over, whose replica has ended.
	Absorb(target *Replica, c *replpb.CommitMerge)
	Merged(target *Replica, before, source *kvpb.Region)
	// Superseded says whether the store knows of a later replica of a region than the
	// given peer: one that waits for a snapshot, or the tombstone of one that was removed.
	Superseded(region, peer uint64) bool
	// Silent says whether nothing is heard of a store; StoreFound tells when that ends.
	Silent(store uint64) bool
	// Background runs fn on a goroutine of the host, with a context that ends with it.
	Background(fn func(ctx context.Context))
	// Remove tells that the replica is not a member of its region any more and has
	// ended. The host calls Destroy and forgets it.
	Remove(r *Replica)
	// Split opens replicas for the regions that a split of r, from before, made. Their state is durable.
	// The view of r has the new range, and does not serve yet.
	Split(r *Replica, before *kvpb.Region, children []Child)
	// Changed tells that the region or its leadership changed.
	Changed(r *Replica)
	// SetAwake asks for ticks, or does without.
	SetAwake(r *Replica, awake bool)
	// Fatal tells that the replica cannot go on. It does not return normally.
	Fatal(r *Replica, err error)
}

// Child is a region that a split made, with its locks.
type Child struct {
	State *replpb.RegionState
	Locks *mvcc.LockIndex
}

// Region is the child's.
func (c Child) Region() *kvpb.Region { return c.State.GetRegion() }

// Options of Open. All fields are required unless said otherwise.
type Options struct {
	// State is the durable state of the region. Taken over. A replica that waits for
	// its first snapshot has a region with an id only.
	State   *replpb.RegionState
	StoreID uint64
	// Peer is this replica, for one that waits for its first snapshot. Else it is found in the region.
	Peer    *kvpb.Peer
	Host    Host
	Engine  *engine.DB
	Log     *raftlog.DB
	Metrics *Metrics
	Logger  *slog.Logger
	// LockMemory bounds the pessimistic locks that this replica, when it leads, keeps in
	// memory only. Nil means none.
	LockMemory *mvcc.MemBudget
	// Locks is the lock index when the caller has it already (split). Nil means
	// it is loaded from the engine.
	Locks *mvcc.LockIndex
	// ElectionTicks and HeartbeatTicks are Raft's timeouts in ticks.
	ElectionTicks, HeartbeatTicks int
	// Tick is the length of a tick.
	Tick time.Duration
	// Lease is how long a leader may serve reads after it last heard of a quorum;
	// less than the election timeout.
	Lease time.Duration
	// Started is when the process began to serve, by Now, or when the replica was put
	// in another's place. Promises given before are forgotten; see forgottenPromise.
	Started time.Duration
	// Now is a clock that never goes back and runs while the machine sleeps.
	Now func() time.Duration
	// QuietTicks is after how many ticks without work a group stops ticking. 0 means never.
	QuietTicks int
	// Reluctant says whether another replica should rather lead. Nil means never.
	Reluctant func() bool
	// DownAfter is after how long without a word a peer is reported as down.
	DownAfter time.Duration
	// MaxLogBytes is the size of the log above which it is cut although a replica
	// still needs it; that one gets a snapshot.
	MaxLogBytes int64
}

// Replica is one copy of one region. See the package comment for what may be
// called from where.
type Replica struct {
	// Slot belongs to the Host's scheduler.
	Slot Slot

	id     uint64
	peer   *kvpb.Peer                // for visits; self is for others
	self   atomic.Pointer[kvpb.Peer] // = peer
	o      Options
	log    *slog.Logger
	host   Host
	nextID atomic.Uint64 // of proposals
	spare  sync.Pool     // of proposals with their buffers

	view    atomic.Pointer[View]
	applied atomic.Uint64 // index; written during visits only
	// refusals counts, from 1, proposals with queued that were refused; written during visits only.
	refusals atomic.Uint64
	// safePoint and collected are those of state, for readers.
	safePoint, collected atomic.Uint64
	awaited              awaited
	closed               atomic.Pointer[closedTS] // what the leader told last; nil = nothing yet
	closing              atomic.Int64             // time of Options.Now until which others are told of closed timestamps
	load                 loadCounters
	resting              atomic.Bool   // = quiet
	ready                chan struct{} // closed when this replica first serves as leader
	ended                chan struct{} // closed when no visit will do anything any more

	destroying atomic.Bool // it has ended, and Host.Remove is told

	hash    atomic.Pointer[Hash]
	peers   atomic.Pointer[PeerHealth]    // as the leader sees them
	changed atomic.Pointer[chan struct{}] // closed at the next publish

	in struct { // what a visit takes
		mu        sync.Mutex // protects the fields below
		durable   []*raftpb.Message
		msgs      []rafttransport.Message
		calls     []func()
		proposals []*proposal
		reads     []*read
		ticks     bool
		campaign  bool
		truncate  uint64
		installed *installation
		absorbed  *absorbed
		closed    bool
	}

	// The fields below belong to the goroutine that visits.

	rn           *raft.RawNode
	storage      *raftlog.Storage
	state        *replpb.RegionState // immutable value
	region       *kvpb.Region        // of state
	parts        []*kvpb.Region      // cut off by the split that made region's version; nil if none did
	locks        *mvcc.LockIndex
	mem          memory
	term         uint64
	lead         uint64
	leading      bool
	appliedTerm  uint64
	inflight     []*proposal // given to Raft, in log order
	cutting      int         // of inflight: those with cuts
	reading      []*read     // waiting for the quorum or for the state machine
	nextRead     uint64
	appliedKey   []byte                   // of the apply state
	quiet        bool                     // needs no ticks
	sinceMerging int                      // ticks since this region became the source of a merge
	idleTicks    int                      // since anything happened
	silentTicks  int                      // since the leader was heard of
	barred       uint64                   // term in which no lease is granted any more
	removed      bool                     // not a member of the region any more
	installing   *raftpb.Message          // a MsgStorageAppend whose snapshot is being installed
	installed    *installation            // set when that is done
	absorbing    *absorption              // a merge that waits for its source
	outgoing     []outgoing               // snapshots Raft has asked for
	sending      map[uint64]bool          // peers that a snapshot is on its way to
	strangers    map[uint64]*kvpb.Peer    // senders that are not in the region, by id
	low          uint64                   // log index that every replica has, as the leader has told
	lastSeen     map[uint64]time.Duration // of other peers, while leading
	checkTicks   int                      // since lastSeen was looked at
	lost         lostLeader
	leaderHeard  time.Duration // when the leader was heard of last; 0 = never
	taken        taken
	news         news
	ab           applyBatch
	over         bool // no visit does anything any more
}

// Slot is a replica's place in its host's scheduler. The scheduler's lock protects it.
type Slot struct {
	Shard          int
	Queued, Again  bool
	Running, Ended bool
}

// Open makes the replica of a region from its durable state. It is passive until
// it is first scheduled.
func Open(o Options) (*Replica, error) {
	region := o.State.GetRegion()
	r := &Replica{
		id: region.GetId(), o: o, host: o.Host, state: o.State, region: region, locks: o.Locks, peer: o.Peer,
		log:   o.Logger.With("region", region.GetId()),
		ready: make(chan struct{}),
		ended: make(chan struct{}),
	}
	r.safePoint.Store(o.State.GetGcSafePoint())
	r.collected.Store(o.State.GetGcCollected())
	r.nextID.Store(rand.Uint64())
	r.refusals.Store(1)
	r.spare.New = newProposal
	r.changed.Store(new(make(chan struct{})))
	r.peers.Store(&PeerHealth{})
	r.appliedKey = localKey(r.id, kindApplied)
	if p := peerOn(region, o.StoreID); p != nil {
		r.peer = p
	}
	if r.peer == nil {
		return nil, fmt.Errorf("replica: region %d has no peer on store %d", r.id, o.StoreID)
	}
	r.setPeer(r.peer)
	if r.initialised() {
		index, term, err := loadApplyState(o.Engine, r.id)
		if err != nil {
			return nil, err
		}
		r.applied.Store(index)
		r.appliedTerm = term
		if r.locks == nil {
			if r.locks, err = loadLocks(o.Engine, region); err != nil {
				return nil, err
			}
		}
	} else {
		r.locks = mvcc.NewLockIndex(o.Engine)
	}
	if err := r.openRaft(); err != nil {
		return nil, err
	}
	r.term = r.rn.BasicStatus().GetTerm()
	r.publish()
	r.in.campaign = r.alone()
	return r, nil
}

// openRaft opens the log and the Raft group's member.
func (r *Replica) openRaft() (err error) {
	applied := r.applied.Load()
	r.storage, err = r.o.Log.Load(raftlog.LoadOptions{
		Region: r.id, Owner: r, Conf: confState(r.region), Applied: applied, AppliedTerm: r.appliedTerm,
		AppliedAlone: applied > 0 && (applied == r.state.GetSnapshotIndex() || applied == r.state.GetMergeIndex()),
		Snapshot:     r.makeSnapshot,
	})
	if err != nil {
		return err
	}
	r.rn, err = raft.NewRawNode(&raft.Config{
		ID:                        r.peer.GetId(),
		ElectionTick:              r.o.ElectionTicks,
		HeartbeatTick:             r.o.HeartbeatTicks,
		Storage:                   r.storage,
		Applied:                   applied,
		AsyncStorageWrites:        true,
		MaxSizePerMsg:             512 << 10,
		MaxCommittedSizePerReady:  4 << 20,
		MaxUncommittedEntriesSize: 64 << 20,
		MaxInflightMsgs:           256,
		MaxInflightBytes:          16 << 20,
		CheckQuorum:               true,
		PreVote:                   true,
		ReadOnlyOption:            raft.ReadOnlySafe,
		DisableProposalForwarding: true,
		StepDownOnRemoval:         true,
		Logger:                    raftLogger{r.log},
	})
	if err != nil {
		return fmt.Errorf("replica: region %d: %w", r.id, err)
	}
	return nil
}

// initialised says whether the replica has a state; without one it waits for a snapshot.
func (r *Replica) initialised() bool { return len(r.region.GetPeers()) > 0 }

// loadLocks reads the lock index of a region's range.
func loadLocks(db *engine.DB, region *kvpb.Region) (*mvcc.LockIndex, error) {
	locks := mvcc.NewLockIndex(db)
	it, err := db.NewIter(engine.IterOptions{CF: engine.CFLock, Lower: region.GetStartKey(), Upper: region.GetEndKey()})
	if err != nil {
		return nil, fmt.Errorf("replica: region %d: %w", region.GetId(), err)
	}
	if err := errors.Join(locks.Load(it), it.Close()); err != nil {
		return nil, fmt.Errorf("replica: region %d: %w", region.GetId(), err)
	}
	return locks, nil
}

// ID returns the region's id.
func (r *Replica) ID() uint64 { return r.id }

// Peer returns this copy's place in the region. Its role may be out of date: the
// region in View knows.
func (r *Replica) Peer() *kvpb.Peer { return r.self.Load() }

func (r *Replica) setPeer(p *kvpb.Peer) {
	r.peer = p
	r.self.Store(p)
}

// Resting says whether the replica does without ticks.
func (r *Replica) Resting() bool { return r.resting.Load() }

// Changed returns a channel that is closed when View changes. Take it before View.
func (r *Replica) Changed() <-chan struct{} { return *r.changed.Load() }

// View returns how commands see the region now.
func (r *Replica) View() *View { return r.view.Load() }

// AppliedIndex returns the index of the last applied entry.
func (r *Replica) AppliedIndex() uint64 { return r.applied.Load() }

// WrittenBytes returns the bytes of all writes applied since Open.
func (r *Replica) WrittenBytes() uint64 { return r.load.writtenBytes.Load() }

// Ready is closed when the replica first serves as a leader.
func (r *Replica) Ready() <-chan struct{} { return r.ready }

// Ended is closed when the replica was closed and has answered everybody.
func (r *Replica) Ended() <-chan struct{} { return r.ended }

// Destroying says whether a replica that has ended did so because it is not a member
// of its region: then it is being destroyed, and its range may not be used yet.
func (r *Replica) Destroying() bool { return r.destroying.Load() }

// alone says whether this replica is the only voter: then it is its own quorum,
// needs no clock for its lease and no ticks once it leads.
func (r *Replica) alone() bool {
	peers := r.region.GetPeers()
	return len(peers) == 1 && peers[0].GetId() == r.peer.GetId() && peers[0].GetRole() == kvpb.PeerRole_PEER_ROLE_VOTER
}

// raftLogger passes Raft's own log on; it narrates, so all but trouble is debug.
type raftLogger struct{ l *slog.Logger }

func (l raftLogger) Debug(v ...any)                 { l.l.Debug(fmt.Sprint(v...)) }
func (l raftLogger) Debugf(format string, v ...any) { l.debugf(format, v) }
func (l raftLogger) Info(v ...any)                  { l.l.Debug(fmt.Sprint(v...)) }
func (l raftLogger) Infof(format string, v ...any)  { l.debugf(format, v) }
func (l raftLogger) Warning(v ...any)               { l.l.Warn(fmt.Sprint(v...)) }
func (l raftLogger) Warningf(format string, v ...any) {
	l.l.Warn(fmt.Sprintf(format, v...))
}
func (l raftLogger) Error(v ...any)                 { l.l.Error(fmt.Sprint(v...)) }
func (l raftLogger) Errorf(format string, v ...any) { l.l.Error(fmt.Sprintf(format, v...)) }
func (l raftLogger) Fatal(v ...any)                 { panic(fmt.Sprint(v...)) }
func (l raftLogger) Fatalf(format string, v ...any) { panic(fmt.Sprintf(format, v...)) }
func (l raftLogger) Panic(v ...any)                 { panic(fmt.Sprint(v...)) }
func (l raftLogger) Panicf(format string, v ...any) { panic(fmt.Sprintf(format, v...)) }

func (l raftLogger) debugf(format string, v []any) {
	if l.l.Enabled(context.Background(), slog.LevelDebug) {
		l.l.Debug(fmt.Sprintf(format, v...))
	}
}
