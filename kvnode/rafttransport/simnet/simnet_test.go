package simnet

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/goleak"

	"github.com/cairndb/cairn/kvnode/rafttransport"
	"github.com/cairndb/cairn/proto/kvpb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// store writes down what it is told.
type store struct {
	*Endpoint
	start time.Time
	begin func(rafttransport.Message) (rafttransport.IncomingSnapshot, error)

	guard sync.Mutex // protects the fields below
	msgs  []rafttransport.Message
	log   []string
}

func (s *store) logf(format string, args ...any) {
	s.guard.Lock()
	defer s.guard.Unlock()
	s.log = append(s.log, fmt.Sprintf("%v ", time.Since(s.start))+fmt.Sprintf(format, args...))
}

func (s *store) Receive(msgs []rafttransport.Message) {
	for _, m := range msgs {
		s.logf("%v %d of region %d", m.Raft.GetType(), m.Raft.GetIndex(), m.RegionID)
	}
	s.guard.Lock()
	defer s.guard.Unlock()
	s.msgs = append(s.msgs, msgs...)
}

func (s *store) BeginSnapshot(m rafttransport.Message) (rafttransport.IncomingSnapshot, error) {
	return s.begin(m)
}
func (s *store) Unreachable(region, peer uint64)          { s.logf("unreachable %d of region %d", peer, region) }
func (s *store) StoreLost(id uint64, heard time.Duration) { s.logf("lost %d, heard %v", id, heard) }
func (s *store) StoreFound(id uint64)                     { s.logf("found %d", id) }

// story takes what was told since the last call.
func (s *store) story() []string {
	synctest.Wait()
	s.guard.Lock()
	defer s.guard.Unlock()
	log := s.log
	s.log = nil
	return log
}

func open(n *Net, id uint64) *store {
	s := &store{Endpoint: n.Endpoint(), start: time.Now()}
	s.Start(7, id, s)
	return s
}

func inBubble(t *testing.T, o Options, f func(t *testing.T, n *Net, a, b *store)) {
	synctest.Test(t, func(t *testing.T) {
		n := New(o)
		defer n.Close()
		f(t, n, open(n, 1), open(n, 2))
	})
}

func message(from, to, region, index uint64, typ raftpb.MessageType) rafttransport.Message {
	return rafttransport.Message{
		Kind: rafttransport.KindRaft, RegionID: region, From: &kvpb.Peer{Id: 100 + from, StoreId: from}, To: &kvpb.Peer{Id: 100 + to, StoreId: to},
		Raft: &raftpb.Message{Type: typ.Enum(), Index: new(index), Entries: []*raftpb.Entry{{Data: []byte("data")}}},
	}
}

func send(s *store, to, region uint64, indexes ...uint64) {
	for _, i := range indexes {
		s.Send([]rafttransport.Message{message(s.store, to, region, i, raftpb.MsgApp)})
	}
}

func indexes(s *store) (out []uint64) {
	synctest.Wait()
	s.guard.Lock()
	defer s.guard.Unlock()
	for _, m := range s.msgs {
		out = append(out, m.Raft.GetIndex())
	}
	s.msgs, s.log = nil, nil
	return out
}

func TestMessagesArriveAfterTheLatencyAndShareNothing(t *testing.T) {
	inBubble(t, Options{Latency: 3 * time.Millisecond}, func(t *testing.T, n *Net, a, b *store) {
		m := message(1, 2, 4, 9, raftpb.MsgApp)
		a.Send([]rafttransport.Message{m})
		time.Sleep(2 * time.Millisecond)
		require.Empty(t, b.story())
		time.Sleep(time.Millisecond)
		require.Equal(t, []string{"3ms MsgApp 9 of region 4"}, b.story())
		m.Raft.Entries[0].Data[0] = 'X'
		require.Equal(t, "data", string(b.msgs[0].Raft.Entries[0].Data))
		require.Equal(t, Counts{Sent: 1, Delivered: 1}, n.Counts())
	})
}

func TestRulesHitWhatTheyName(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, n *Net, a, b *store) {
		f := n.Add(Rule{Match: Match{Regions: []uint64{4}, To: []uint64{2}, Types: []raftpb.MessageType{raftpb.MsgApp}}, Drop: 1})
		send(a, 2, 4, 1)
		send(a, 2, 5, 2)
		send(b, 1, 4, 3)
		a.Send([]rafttransport.Message{message(1, 2, 4, 4, raftpb.MsgHeartbeat)})
		require.Equal(t, []uint64{2, 4}, indexes(b))
		require.Equal(t, []uint64{3}, indexes(a))
		require.Equal(t, 1, f.Hits())
		f.Remove()
		send(a, 2, 4, 5)
		require.Equal(t, []uint64{5}, indexes(b))

		n.Add(Rule{Match: Match{Where: func(m *rafttransport.Message) bool { return m.Raft.GetIndex() > 5 }, Skip: 1, Limit: 2}, Drop: 1})
		send(a, 2, 4, 1, 6, 7, 8, 9, 10)
		require.Equal(t, []uint64{1, 6, 9, 10}, indexes(b))
	})
}

func TestFaultsDependOnTheSeedOnly(t *testing.T) {
	run := func(seed uint64) (got []uint64, c Counts) {
		inBubble(t, Options{Seed: seed, Latency: time.Millisecond}, func(t *testing.T, n *Net, a, b *store) {
			n.Add(Rule{Match: Match{Regions: []uint64{4}}, Drop: 0.2, Duplicate: 0.2, Reorder: 0.2, Window: 10 * time.Millisecond})
			for i := range uint64(100) {
				send(a, 2, 4, i)
				time.Sleep(time.Millisecond)
			}
			time.Sleep(time.Second)
			got, c = indexes(b), n.Counts()
		})
		return got, c
	}
	first, counts := run(1)
	again, _ := run(1)
	require.Equal(t, first, again)
	other, _ := run(2)
	require.NotEqual(t, first, other)
	require.Equal(t, 100, counts.Sent)
	require.Equal(t, counts.Sent-counts.Dropped+counts.Duplicated, counts.Delivered)
	for _, c := range []int{counts.Dropped, counts.Duplicated, counts.Reordered} {
		require.InDelta(t, 20, c, 15)
	}
	require.NotEqual(t, len(first), ascending(first))
}

func ascending(v []uint64) int {
	n := 1
	for i := 1; i < len(v); i++ {
		if v[i] > v[i-1] {
			n++
		}
	}
	return n
}

func TestDelayKeepsTheOrder(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, n *Net, a, b *store) {
		n.Add(Rule{Match: Match{Regions: []uint64{4}}, Delay: time.Millisecond, Jitter: 50 * time.Millisecond})
		var want []uint64
		for i := range uint64(50) {
			send(a, 2, 4, i)
			want = append(want, i)
		}
		time.Sleep(51*time.Millisecond + 1)
		require.Equal(t, want, indexes(b))
		require.Equal(t, 50, n.Counts().Delayed)
	})
}

func TestPartitionedStoreIsLostAndFoundOnce(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, n *Net, a, b *store) {
		send(a, 2, 4, 1)
		time.Sleep(10*time.Second + 100*time.Millisecond)
		require.Empty(t, a.story())
		require.Len(t, b.story(), 1)
		heal := n.PartitionOneWay([]uint64{2}, []uint64{1})
		time.Sleep(10 * time.Second)
		require.Equal(t, []string{"11.5s lost 2, heard 10s"}, a.story())
		require.Empty(t, b.story(), "it hears of 1")
		require.Equal(t, 10*time.Second, a.LastHeard(2))
		heal()
		time.Sleep(time.Second)
		require.Equal(t, []string{"20.5s found 2"}, a.story())

		heal = n.Isolate(1)
		send(a, 2, 4, 2) // not told that it is lost
		time.Sleep(10 * time.Second)
		send(a, 2, 4, 3) // told
		require.Equal(t, []string{"22.5s lost 2, heard 21s", "31.1s unreachable 102 of region 4"}, a.story())
		require.Equal(t, []string{"22.5s lost 1, heard 21s"}, b.story())
		heal()
		time.Sleep(time.Second)
		require.Equal(t, []string{"31.5s found 2"}, a.story())
	})
}

func TestStoreThatStopsIsRefusedAndComesBack(t *testing.T) {
	inBubble(t, Options{Latency: time.Millisecond}, func(t *testing.T, n *Net, a, b *store) {
		send(a, 2, 4, 1)
		time.Sleep(100 * time.Millisecond)
		send(a, 2, 4, 2) // under way when it stops
		b.Close()
		time.Sleep(time.Second)
		require.Equal(t, []string{"101ms lost 2, heard 0s"}, a.story())
		send(a, 2, 4, 3)
		require.Equal(t, []string{"1.1s unreachable 102 of region 4"}, a.story())
		c := open(n, 2)
		time.Sleep(time.Second)
		require.Equal(t, []string{"1.601s found 2"}, a.story(), "it answers the sign of life of 1 with its own")
		send(a, 2, 4, 4)
		time.Sleep(time.Second)
		require.Equal(t, []uint64{4}, indexes(c))
		require.ErrorIs(t, b.SendSnapshot(t.Context(), rafttransport.OutgoingSnapshot{}), rafttransport.ErrClosed)
		require.Panics(t, func() { open(n, 2) })
	})
}

// incoming is a snapshot in memory.
type incoming struct {
	name              string
	got               bytes.Buffer
	finished, aborted int
}

func (i *incoming) Create(name string) (io.WriteCloser, error) { i.name += name + " "; return i, nil }
func (i *incoming) Write(b []byte) (int, error)                { return i.got.Write(b) }
func (i *incoming) Close() error                               { return nil }
func (i *incoming) Finish() error                              { i.finished++; return nil }
func (i *incoming) Abort()                                     { i.aborted++ }

func TestSnapshots(t *testing.T) {
	content := bytes.Repeat([]byte("cairn"), 600_000)
	out := rafttransport.OutgoingSnapshot{Message: message(1, 2, 4, 0, raftpb.MsgSnap), Write: func(create func(string) (io.WriteCloser, error)) error {
		for _, name := range []string{"a", "b"} {
			w, err := create(name)
			if err != nil {
				return err
			}
			if _, err := w.Write(content); err != nil {
				return err
			}
			w.Close()
		}
		return nil
	}}
	o := Options{SnapshotBytesPerSecond: 1_000_000, SnapshotReceives: 1}
	inBubble(t, o, func(t *testing.T, n *Net, a, b *store) {
		var in []*incoming
		b.begin = func(m rafttransport.Message) (rafttransport.IncomingSnapshot, error) {
			require.Equal(t, uint64(4), m.RegionID)
			in = append(in, &incoming{})
			return in[len(in)-1], nil
		}
		start := time.Now()
		require.NoError(t, a.SendSnapshot(t.Context(), out))
		require.InDelta(t, 6, time.Since(start).Seconds(), 0.01)
		require.Equal(t, "a b ", in[0].name)
		require.Equal(t, append(bytes.Clone(content), content...), in[0].got.Bytes())

		dup := n.Add(Rule{Match: Match{Types: []raftpb.MessageType{raftpb.MsgSnap}}, Duplicate: 1})
		require.NoError(t, a.SendSnapshot(t.Context(), out))
		require.Len(t, in, 3)
		require.Equal(t, 1, in[2].finished)
		dup.Remove()

		breaks := n.Add(Rule{Break: 1})
		require.ErrorIs(t, a.SendSnapshot(t.Context(), out), ErrInterrupted)
		require.Equal(t, []int{0, 1}, []int{in[3].finished, in[3].aborted})
		breaks.Remove()

		drop := n.Add(Rule{Match: Match{Types: []raftpb.MessageType{raftpb.MsgSnap}}, Drop: 1})
		require.ErrorIs(t, a.SendSnapshot(t.Context(), out), ErrInterrupted)
		drop.Remove()

		errs := make(chan error, 1)
		go func() { errs <- a.SendSnapshot(t.Context(), out) }()
		time.Sleep(2 * time.Second)
		err := a.SendSnapshot(t.Context(), out)
		require.ErrorIs(t, err, rafttransport.ErrRefused)
		require.ErrorContains(t, err, "1 snapshots are arriving")
		heal := n.PartitionOneWay([]uint64{2}, []uint64{1})
		require.ErrorIs(t, <-errs, ErrInterrupted)
		require.Equal(t, 1, in[4].aborted)
		heal()

		go func() { errs <- a.SendSnapshot(t.Context(), out) }()
		time.Sleep(time.Second)
		b.Close()
		require.Equal(t, 1, in[5].aborted, "before Close returns")
		require.ErrorIs(t, <-errs, ErrInterrupted)
		require.ErrorIs(t, a.SendSnapshot(t.Context(), out), ErrInterrupted)

		c := open(n, 3)
		c.begin = func(rafttransport.Message) (rafttransport.IncomingSnapshot, error) { return nil, errors.New("stale") }
		out.Message = message(1, 3, 4, 0, raftpb.MsgSnap)
		require.ErrorContains(t, a.SendSnapshot(t.Context(), out), "stale")
		require.Equal(t, 2, n.Counts().SnapshotsDelivered)
		require.Equal(t, 3, n.Counts().SnapshotsBroken)
	})
}

func BenchmarkMessages(b *testing.B) {
	n := New(Options{})
	defer n.Close()
	a, c := open(n, 1), &counter{done: make(chan struct{}), want: b.N}
	e := n.Endpoint()
	e.Start(7, 2, c)
	msgs := []rafttransport.Message{message(1, 2, 4, 1, raftpb.MsgApp)}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		a.Send(msgs)
		if i%1000 == 999 { // not more than are let through
			for int(c.n.Load()) < i-4000 {
				time.Sleep(10 * time.Microsecond)
			}
		}
	}
	<-c.done
}

type counter struct {
	store
	n    atomic.Int64
	want int
	done chan struct{}
}

func (c *counter) Receive(msgs []rafttransport.Message) {
	if int(c.n.Add(int64(len(msgs)))) == c.want {
		close(c.done)
	}
}
