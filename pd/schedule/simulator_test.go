package schedule

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/pd/cluster"
	"github.com/cairndb/cairn/pd/meta"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/pdpb"
)

// The simulator plays the stores: it reports as they do, carries steps out after a
// while, and checks that no step leaves a region without a majority. Time is virtual.

const (
	mb       = 1 << 20
	simTick  = 50 * time.Millisecond
	election = 2 * time.Second
	// A learner is there after catchUp, and a second for each copySpeed bytes.
	catchUp   = 200 * time.Millisecond
	copySpeed = 100 * mb
)

type memDisk map[string][]byte

func (d memDisk) Write(_ context.Context, ops ...meta.Op) error {
	for _, op := range ops {
		if op.Delete {
			delete(d, op.Key)
		} else {
			d[op.Key] = op.Value
		}
	}
	return nil
}

func (d memDisk) Get(_ context.Context, key string) ([]byte, bool, error) {
	v, ok := d[key]
	return v, ok, nil
}

func (d memDisk) List(_ context.Context, dir string, fn func(string, []byte) error) error {
	for _, k := range slices.Sorted(maps.Keys(d)) {
		if name, ok := strings.CutPrefix(k, dir); ok {
			if err := fn(name, d[k]); err != nil {
				return err
			}
		}
	}
	return nil
}

type simStore struct {
	meta  *kvpb.Store
	up    bool
	stats *pdpb.StoreStats // template
	beat  time.Time        // next
}

type simRegion struct {
	meta   *kvpb.Region
	leader uint64 // store
	term   uint64
	newest uint64 // greatest id of any peer it had
	bytes  uint64
	rates  pdpb.RegionHeartbeatRequest // per second
	from   map[uint64]float64          // part of the queries by the store they come from
	ready  map[uint64]time.Time        // peers that catch up until
	lost   time.Time                   // when the leader's store went
	silent map[uint64]time.Time        // peers not heard of, since
	report time.Time                   // next
	last   time.Time
	todo   *pdpb.RegionHeartbeatResponse
	todoAt time.Time
}

type sim struct {
	t       testing.TB
	now     time.Time
	rand    *rand.Rand
	disk    memDisk
	c       *cluster.Cluster
	co      *Coordinator
	stores  map[uint64]*simStore
	regions map[uint64]*simRegion
	maxPeer int // replicas a region may have at most
	odd     bool
	lossy   float64 // part of the messages that is lost
	strays  int     // transfers of leaders to dead stores
	ops     uint64  // of former coordinators
}

var ctx = context.Background()

// newSim makes a cluster of n regions of a size on the first of some stores.
func newSim(t testing.TB, stores, n int, bytes uint64, p *pdpb.Placement) *sim {
	s := &sim{
		t: t, now: time.Unix(1_700_000_000, 0), rand: rand.New(rand.NewPCG(42, 42)), disk: memDisk{},
		stores: make(map[uint64]*simStore), regions: make(map[uint64]*simRegion), maxPeer: 99,
	}
	s.lead()
	require.NoError(t, s.c.InitPlacement(ctx, p))
	first := &kvpb.Region{Id: 1000, Epoch: &kvpb.RegionEpoch{ConfVer: 1, Version: 1}, Peers: []*kvpb.Peer{{Id: 1001, StoreId: 1}}}
	require.NoError(t, s.c.Bootstrap(ctx, &kvpb.Store{Id: 1, Address: "s1"}, first))
	s.stores[1] = &simStore{meta: &kvpb.Store{Id: 1, Address: "s1"}, up: true, stats: new(pdpb.StoreStats)}
	for id := uint64(2); id <= uint64(stores); id++ {
		s.addStore(id)
	}
	_, err := s.c.AllocIDs(ctx, 10_000)
	require.NoError(t, err)
	for i := range n {
		m := &kvpb.Region{Id: 1000 + uint64(i), Epoch: &kvpb.RegionEpoch{ConfVer: 1, Version: uint64(n)}}
		if i > 0 {
			m.StartKey = fmt.Appendf(nil, "k%05d", i)
		}
		if i < n-1 {
			m.EndKey = fmt.Appendf(nil, "k%05d", i+1)
		}
		s.regions[m.Id] = &simRegion{meta: m, term: 6, bytes: bytes, leader: 1, ready: make(map[uint64]time.Time), silent: make(map[uint64]time.Time)}
		s.place(m.Id, 1)
	}
	return s
}

// lead begins a term of PD.
func (s *sim) lead() {
	var err error
	s.c, err = cluster.Load(ctx, s.now, s.disk, s.disk)
	require.NoError(s.t, err)
	if s.co != nil {
		s.ops += s.co.nextOp
	}
	s.co = New(Options{Model: s.c, Schedulers: DefaultSchedulers(), Seed: 7})
	for _, r := range s.regions { // the answer to the first heartbeat of the store asks for it
		r.report = s.now
	}
}

func (s *sim) addStore(id uint64, labels ...string) {
	m := &kvpb.Store{Id: id, Address: fmt.Sprintf("s%d", id)}
	for _, l := range labels {
		key, value, _ := strings.Cut(l, "=")
		m.Labels = append(m.Labels, &kvpb.StoreLabel{Key: key, Value: value})
	}
	require.NoError(s.t, s.c.PutStore(ctx, m))
	old := s.stores[id]
	s.stores[id] = &simStore{meta: m, up: true, stats: new(pdpb.StoreStats)}
	if old != nil {
		s.stores[id].stats = old.stats
	}
	s.beatStore(s.stores[id])
}

// place puts the replicas of a region on stores, the first of which leads.
func (s *sim) place(id uint64, stores ...uint64) {
	r := s.regions[id]
	r.meta.Peers = nil
	r.meta.Epoch.ConfVer++
	for _, st := range stores {
		r.newest = must(s.c.AllocIDs(ctx, 1))
		r.meta.Peers = append(r.meta.Peers, &kvpb.Peer{Id: r.newest, StoreId: st})
	}
	r.leader = stores[0]
	r.report = s.now
}

func (s *sim) placeAll(f func(i int) []uint64) {
	for i, id := range slices.Sorted(maps.Keys(s.regions)) {
		s.place(id, f(i)...)
	}
}

// Driving.

func (s *sim) step() {
	s.now = s.now.Add(simTick)
	for _, id := range slices.Sorted(maps.Keys(s.stores)) {
		if st := s.stores[id]; st.up && !s.now.Before(st.beat) {
			s.beatStore(st)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(s.regions)) {
		if r := s.regions[id]; r != nil {
			s.stepRegion(r)
		}
	}
	if s.now.UnixMilli()%100 == 0 {
		if s.co.Starved() {
			require.NoError(s.t, s.c.ReserveIDs(ctx, 256))
		}
		for _, resp := range s.co.Tick(s.now) {
			s.take(resp)
		}
	}
	if s.now.UnixMilli()%500 == 0 {
		ch := s.co.Chores(s.now)
		for _, id := range ch.Bury {
			require.NoError(s.t, s.c.Bury(ctx, id))
			s.stores[id].up = false
		}
		if ch.Replicated {
			require.NoError(s.t, s.c.MarkReplicated(ctx))
		}
	}
}

func (s *sim) run(d time.Duration) {
	for end := s.now.Add(d); s.now.Before(end); {
		s.step()
	}
}

// until runs until f holds, and fails after limit.
func (s *sim) until(limit time.Duration, what string, f func() bool) time.Duration {
	s.t.Helper()
	began := s.now
	s.run(5 * simTick) // let the stores report
	for !f() {
		if s.now.Sub(began) > limit {
			s.t.Fatalf("after %v: not %s\n%s", limit, what, s.dump())
		}
		s.step()
	}
	return s.now.Sub(began)
}

// quiet checks that nothing more is done.
func (s *sim) quiet(d time.Duration) {
	s.t.Helper()
	before := s.co.nextOp
	s.run(d)
	require.Equal(s.t, before, s.co.nextOp, "nothing oscillates\n%s", s.dump())
}

func (s *sim) idle() bool { return len(s.co.ops) == 0 }

func (s *sim) dump() string {
	var sb strings.Builder
	for _, d := range must(s.co.DescribeStores(s.now, nil)) {
		fmt.Fprintf(&sb, "store %d %v: %d leaders, %d regions, %s %v\n", d.Store.Id, d.Liveness, d.Leaders, d.Regions, d.Remarks, d.Drain)
	}
	for i, op := range s.co.Operators(s.now, 0, true) {
		if i > 12 {
			break
		}
		fmt.Fprintf(&sb, "operator %d region %d %s %q %s %s %v\n", op.Id, op.RegionId, op.Kind, op.Reason, op.State, op.Result, op.Steps)
	}
	for _, d := range s.co.Schedulers(s.now) {
		fmt.Fprintf(&sb, "%s: %s\n", d.Name, d.Last)
	}
	for i, d := range must(s.co.DescribeRegions(s.now, &pdpb.DescribeRegionsRequest{})) {
		if i > 12 {
			break
		}
		fmt.Fprintf(&sb, "region %d %v leader %d: %s %v\n", d.Region.Id, d.Region.Peers, d.Leader.GetStoreId(), d.Reason, d.Problems)
	}
	return sb.String()
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Stores.

func (s *sim) beatStore(st *simStore) {
	st.beat = s.now.Add(time.Second)
	stats := proto.CloneOf(st.stats)
	stats.StoreId = st.meta.Id
	if _, _, err := s.c.StoreHeartbeat(s.now, stats); err != nil {
		require.ErrorIs(s.t, err, cluster.ErrStoreTombstone)
		st.up = false
	}
}

func (s *sim) kill(id uint64)   { s.stores[id].up = false }
func (s *sim) revive(id uint64) { s.stores[id].up, s.stores[id].beat = true, s.now }

func (s *sim) stepRegion(r *simRegion) {
	for _, p := range r.meta.Peers {
		since, silent := r.silent[p.Id]
		if up := s.stores[p.StoreId].up; !up && !silent {
			r.silent[p.Id] = s.now
		} else if up && silent {
			delete(r.silent, p.Id)
			r.report = s.now
		} else if silent && s.now.Sub(since) > 5*time.Second && s.now.Sub(since) < 6*time.Second {
			r.report = s.now
		}
		if t, ok := r.ready[p.Id]; ok && s.stores[p.StoreId].up && !s.now.Before(t) {
			delete(r.ready, p.Id)
			r.report = s.now
		}
	}
	if !s.stores[r.leader].up {
		s.elect(r)
		return
	}
	r.lost = time.Time{}
	if r.todo != nil && !s.now.Before(r.todoAt) {
		resp := r.todo
		r.todo = nil
		s.execute(r, resp)
	}
	if s.regions[r.meta.Id] == r && !s.now.Before(r.report) {
		s.send(r)
	}
}

func (s *sim) elect(r *simRegion) {
	if r.lost.IsZero() {
		r.lost = s.now
	}
	if s.now.Sub(r.lost) < election || !s.quorum(r.meta) {
		return
	}
	var can []uint64
	for _, p := range r.meta.Peers {
		if s.stores[p.StoreId].up && (p.Role == kvpb.PeerRole_PEER_ROLE_VOTER || p.Role == kvpb.PeerRole_PEER_ROLE_INCOMING_VOTER) && r.ready[p.Id].IsZero() {
			can = append(can, p.StoreId)
		}
	}
	if len(can) == 0 {
		return
	}
	r.leader = can[s.rand.IntN(len(can))]
	r.term++
	r.todo, r.report = nil, s.now
}

// quorum says whether both halves of a region's configuration have a majority up.
func (s *sim) quorum(m *kvpb.Region) bool {
	var in, out [2]int // voters, of which up
	for _, p := range m.Peers {
		up := truth(s.stores[p.StoreId].up)
		if p.Role == kvpb.PeerRole_PEER_ROLE_VOTER || p.Role == kvpb.PeerRole_PEER_ROLE_INCOMING_VOTER {
			in[0], in[1] = in[0]+1, in[1]+up
		}
		if p.Role == kvpb.PeerRole_PEER_ROLE_VOTER || p.Role == kvpb.PeerRole_PEER_ROLE_DEMOTING_VOTER {
			out[0], out[1] = out[0]+1, out[1]+up
		}
	}
	return 2*in[1] > in[0] && (!inJoint(m) || 2*out[1] > out[0])
}

func (s *sim) send(r *simRegion) {
	span := s.now.Sub(r.last)
	if r.last.IsZero() {
		span = 0
	}
	r.last, r.report = s.now, s.now.Add(10*time.Second)
	secs := uint64(span.Seconds() * 1000)
	req := &pdpb.RegionHeartbeatRequest{
		Region: proto.CloneOf(r.meta), Leader: proto.CloneOf(peerOn(r.meta, r.leader)), Term: r.term,
		ApproximateBytes: r.bytes, ApproximateKeys: r.bytes / 100,
		WrittenBytes: r.rates.WrittenBytes * secs / 1000, WrittenKeys: r.rates.WrittenKeys * secs / 1000,
		ReadBytes: r.rates.ReadBytes * secs / 1000, ReadKeys: r.rates.ReadKeys * secs / 1000, Queries: r.rates.Queries * secs / 1000,
		IntervalMs: uint32(span.Milliseconds()),
	}
	for _, store := range slices.Sorted(maps.Keys(r.from)) {
		req.QueriesFrom = append(req.QueriesFrom, &pdpb.StoreQueries{StoreId: store, Queries: s.sampled(req.Queries, r.from[store])})
	}
	for _, p := range r.meta.Peers {
		if _, ok := r.ready[p.Id]; ok {
			req.PendingPeers = append(req.PendingPeers, p)
		}
		if since, ok := r.silent[p.Id]; ok && s.now.Sub(since) > 5*time.Second {
			req.DownPeers = append(req.DownPeers, &pdpb.DownPeer{Peer: p, DownSeconds: uint32(s.now.Sub(since) / time.Second)})
		}
	}
	region, changed, err := s.c.RegionHeartbeat(s.now, req)
	if err != nil {
		return
	}
	if resp := s.co.Heartbeat(s.now, region, changed); resp != nil {
		s.take(resp)
	}
}

// sampled is what a leader that looks at one query in sixteen makes of a part of them.
func (s *sim) sampled(queries uint64, part float64) uint64 {
	n := float64(queries) / 16
	return uint64(16 * max(n*part+s.rand.NormFloat64()*math.Sqrt(n*part*(1-part)), 0))
}

// take lets a region's leader begin with a step.
func (s *sim) take(resp *pdpb.RegionHeartbeatResponse) {
	if s.lossy > 0 && s.rand.Float64() < s.lossy {
		return
	}
	r := s.regions[resp.RegionId]
	if r == nil || r.todo != nil || r.leader != resp.TargetPeer.StoreId || !proto.Equal(resp.Epoch, r.meta.Epoch) {
		return
	}
	r.todo, r.todoAt = resp, s.now.Add(simTick)
}

func (s *sim) execute(r *simRegion, resp *pdpb.RegionHeartbeatResponse) {
	if !proto.Equal(resp.Epoch, r.meta.Epoch) || !s.quorum(r.meta) {
		return
	}
	r.report = s.now
	switch st := resp.Step.(type) {
	case *pdpb.RegionHeartbeatResponse_ChangePeers:
		s.changePeers(r, st.ChangePeers.Changes)
	case *pdpb.RegionHeartbeatResponse_TransferLeader:
		s.strays += truth(!slices.ContainsFunc(st.TransferLeader.Peers, func(p *kvpb.Peer) bool { return s.stores[p.StoreId].up }))
		for _, p := range st.TransferLeader.Peers {
			have := peerOn(r.meta, p.StoreId)
			require.NotNil(s.t, have, "a leader is one of the peers")
			require.True(s.t, votes(have), "a leader votes")
			if _, lagging := r.ready[p.Id]; s.stores[p.StoreId].up && !lagging {
				r.leader = p.StoreId
				r.term++
				return
			}
		}
	case *pdpb.RegionHeartbeatResponse_Split:
		s.split(r, st.Split.Keys)
	case *pdpb.RegionHeartbeatResponse_Merge:
		s.merge(r, st.Merge.Target)
	}
}

func (s *sim) changePeers(r *simRegion, changes []*pdpb.ChangePeer) {
	m := r.meta
	if len(changes) == 0 {
		require.True(s.t, inJoint(m), "only a joint configuration can be left")
	} else {
		require.False(s.t, inJoint(m), "one configuration at a time")
	}
	several := len(changes) > 1
	if len(changes) == 0 {
		for _, p := range m.Peers {
			switch p.Role {
			case kvpb.PeerRole_PEER_ROLE_INCOMING_VOTER:
				p.Role = kvpb.PeerRole_PEER_ROLE_VOTER
			case kvpb.PeerRole_PEER_ROLE_DEMOTING_VOTER:
				p.Role = kvpb.PeerRole_PEER_ROLE_LEARNER
			}
		}
	}
	for _, c := range changes {
		have := peerOn(m, c.Peer.StoreId)
		switch c.Type {
		case pdpb.ChangePeer_ADD_LEARNER:
			switch {
			case have == nil:
				require.Greater(s.t, c.Peer.Id, r.newest, "stores tell new peers from old ones by their ids")
				r.newest = c.Peer.Id
				m.Peers = append(m.Peers, &kvpb.Peer{Id: c.Peer.Id, StoreId: c.Peer.StoreId, Role: kvpb.PeerRole_PEER_ROLE_LEARNER})
				r.ready[c.Peer.Id] = s.now.Add(catchUp + time.Duration(r.bytes)*time.Second/copySpeed)
			case have.Role == kvpb.PeerRole_PEER_ROLE_LEARNER:
				return // asked for again
			case several:
				have.Role = kvpb.PeerRole_PEER_ROLE_DEMOTING_VOTER
			default:
				have.Role = kvpb.PeerRole_PEER_ROLE_LEARNER
			}
		case pdpb.ChangePeer_ADD_VOTER:
			require.NotNil(s.t, have, "voters have learned")
			require.Empty(s.t, r.ready[c.Peer.Id], "a voter has caught up")
			have.Role = kvpb.PeerRole_PEER_ROLE_VOTER
			if several {
				have.Role = kvpb.PeerRole_PEER_ROLE_INCOMING_VOTER
			}
		case pdpb.ChangePeer_REMOVE:
			require.NotEqual(s.t, r.leader, c.Peer.StoreId, "a leader is not removed")
			m.Peers = slices.DeleteFunc(m.Peers, func(p *kvpb.Peer) bool { return p.Id == c.Peer.Id })
			delete(r.ready, c.Peer.Id)
			delete(r.silent, c.Peer.Id)
		}
	}
	m.Epoch.ConfVer += uint64(max(len(changes), 1))
	require.True(s.t, s.quorum(m), "region %d has lost its majority: %v", m.Id, m.Peers)
	require.LessOrEqual(s.t, len(m.Peers), s.maxPeer, "region %d: %v", m.Id, m.Peers)
	voters := 0
	for _, p := range m.Peers {
		voters += truth(votes(p))
	}
	if s.odd && !inJoint(m) {
		require.Equal(s.t, 1, voters%2, "region %d: %v", m.Id, m.Peers)
	}
	require.True(s.t, votes(peerOn(m, r.leader)), "the leader votes")
}

func (s *sim) split(r *simRegion, keys [][]byte) {
	if len(keys) == 0 {
		keys = [][]byte{middle(r.meta.StartKey, r.meta.EndKey)}
	}
	ids, err := s.c.AskSplit(ctx, proto.CloneOf(r.meta), uint32(len(keys)))
	if err != nil {
		return
	}
	r.meta.Epoch.Version += uint64(len(keys))
	r.bytes /= uint64(len(keys) + 1)
	end := r.meta.EndKey
	r.meta.EndKey = keys[0]
	for i, id := range ids {
		m := proto.CloneOf(r.meta)
		m.Id, m.StartKey, m.EndKey = id.Region, keys[i], end
		if i+1 < len(keys) {
			m.EndKey = keys[i+1]
		}
		for j, p := range m.Peers {
			p.Id = id.Peers[j]
		}
		newest := slices.Max(id.Peers)
		s.regions[m.Id] = &simRegion{
			meta: m, leader: r.leader, term: 6, newest: newest, bytes: r.bytes, ready: make(map[uint64]time.Time), silent: make(map[uint64]time.Time), report: s.now,
		}
	}
}

func middle(start, end []byte) []byte {
	number := func(key []byte) uint64 {
		var b [8]byte
		copy(b[:], key)
		return binary.BigEndian.Uint64(b[:])
	}
	from, to := number(start), number(end)
	if len(end) == 0 {
		to = math.MaxUint64
	}
	return binary.BigEndian.AppendUint64(nil, from+(to-from)/2)
}

func (s *sim) merge(r *simRegion, target *kvpb.Region) {
	to := s.regions[target.Id]
	if to == nil || !proto.Equal(to.meta.Epoch, target.Epoch) || inJoint(r.meta) || inJoint(to.meta) {
		return
	}
	stores := func(m *kvpb.Region) []uint64 { return slices.Sorted(slices.Values(storesOf(m.Peers))) }
	require.Equal(s.t, stores(to.meta), stores(r.meta), "both regions of a merge are on the same stores")
	if to.leader != r.leader {
		return // it is to be led by the same
	}
	switch {
	case bytes.Equal(to.meta.EndKey, r.meta.StartKey) && len(r.meta.StartKey) > 0:
		to.meta.EndKey = r.meta.EndKey
	case bytes.Equal(to.meta.StartKey, r.meta.EndKey):
		to.meta.StartKey = r.meta.StartKey
	default:
		s.t.Fatalf("regions %d and %d are not neighbours", r.meta.Id, target.Id)
	}
	to.meta.Epoch.Version = max(to.meta.Epoch.Version, r.meta.Epoch.Version) + 1
	to.bytes += r.bytes
	to.report = s.now
	delete(s.regions, r.meta.Id)
}

// Looking.

func (s *sim) counts() (leaders, replicas map[uint64]int) {
	leaders, replicas = make(map[uint64]int), make(map[uint64]int)
	for _, r := range s.regions {
		leaders[r.leader]++
		for _, p := range r.meta.Peers {
			replicas[p.StoreId]++
		}
	}
	return leaders, replicas
}

// even says whether counts of the stores that are up are within a part of their average.
func (s *sim) even(counts map[uint64]int, within float64) bool {
	n, total := 0, 0
	for id, st := range s.stores {
		if st.up {
			n, total = n+1, total+counts[id]
		}
	}
	average := float64(total) / float64(n)
	for id, st := range s.stores {
		if d := float64(counts[id]) - average; st.up && max(d, -d) > max(within*average, 1) {
			return false
		}
	}
	return true
}

func (s *sim) spread(within float64) func() bool {
	return func() bool {
		leaders, replicas := s.counts()
		return s.even(leaders, within) && s.even(replicas, within) && s.idle()
	}
}

// replicated says whether every region has n voters on stores that are up, and
// nothing else.
func (s *sim) replicated(n int) func() bool {
	return func() bool {
		for _, r := range s.regions {
			if len(r.meta.Peers) != n || len(r.ready) > 0 {
				return false
			}
			for _, p := range r.meta.Peers {
				if p.Role != kvpb.PeerRole_PEER_ROLE_VOTER || !s.stores[p.StoreId].up {
					return false
				}
			}
		}
		return s.idle()
	}
}
