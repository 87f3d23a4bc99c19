package raftlog

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// owner collects what became durable.
type owner struct{ durable chan *raftpb.Message }

func newOwner() *owner                      { return &owner{durable: make(chan *raftpb.Message, 1024)} }
func (o *owner) Appended(m *raftpb.Message) { o.durable <- m }

func openLog(t testing.TB, fs vfs.FS) *DB {
	t.Helper()
	d, err := Open(Options{Dir: "raft", FS: fs, MemTableBytes: 1 << 20})
	require.NoError(t, err)
	return d
}

func load(t testing.TB, d *DB, region, applied uint64, o Owner) *Storage {
	t.Helper()
	s, err := d.Load(LoadOptions{Region: region, Applied: applied, Conf: &raftpb.ConfState{Voters: []uint64{1}}, Owner: o})
	require.NoError(t, err)
	return s
}

func entry(index, term uint64, data string) *raftpb.Entry {
	e := &raftpb.Entry{Index: &index, Term: &term}
	if data != "" {
		e.Data = []byte(data)
	}
	return e
}

// appendMsg is what Raft asks to be made durable.
func appendMsg(h *hardState, entries ...*raftpb.Entry) *raftpb.Message {
	m := &raftpb.Message{
		Type: raftpb.MsgStorageAppend.Enum(), Entries: entries,
		Responses: []*raftpb.Message{{Type: raftpb.MsgStorageAppendResp.Enum()}},
	}
	if h != nil {
		m.Term, m.Vote, m.Commit = &h.term, &h.vote, &h.commit
	}
	return m
}

// texts writes entries as index/term:data.
func texts(entries []*raftpb.Entry) []string {
	var out []string
	for _, e := range entries {
		out = append(out, fmt.Sprintf("%d/%d:%s", e.GetIndex(), e.GetTerm(), e.GetData()))
	}
	return out
}

func TestANewRegionStartsAfterTheInitialEntry(t *testing.T) {
	d := openLog(t, vfs.NewMem())
	defer func() { require.NoError(t, d.Close()) }()
	s := load(t, d, 1, InitialIndex, newOwner())
	first, _ := s.FirstIndex()
	last, _ := s.LastIndex()
	require.Equal(t, [2]uint64{6, 5}, [2]uint64{first, last})
	term, err := s.Term(5)
	require.NoError(t, err)
	require.Equal(t, uint64(5), term)
	_, err = s.Term(4)
	require.ErrorIs(t, err, raft.ErrCompacted)
	_, err = s.Term(6)
	require.ErrorIs(t, err, raft.ErrUnavailable)
	hs, cs, err := s.InitialState()
	require.NoError(t, err)
	require.Equal(t, [3]uint64{5, 0, 5}, [3]uint64{hs.GetTerm(), hs.GetVote(), hs.GetCommit()})
	require.Equal(t, []uint64{1}, cs.GetVoters())
}

func TestEntriesAreReadFromMemoryAndDisk(t *testing.T) {
	fs := vfs.NewMem()
	d := openLog(t, fs)
	o := newOwner()
	s := load(t, d, 1, InitialIndex, o)
	s.Submit(appendMsg(&hardState{6, 1, 5}, entry(6, 6, ""), entry(7, 6, "seven"), entry(8, 6, "eight")), false)
	<-o.durable
	check := func(what string) {
		for _, c := range []struct {
			lo, hi, max uint64
			want        []string
		}{
			{6, 9, 1 << 20, []string{"6/6:", "7/6:seven", "8/6:eight"}},
			{7, 8, 1 << 20, []string{"7/6:seven"}},
			{6, 9, 0, []string{"6/6:"}},
			{7, 9, 8, []string{"7/6:seven"}},
		} {
			got, err := s.Entries(c.lo, c.hi, c.max)
			require.NoError(t, err, what)
			require.Equal(t, c.want, texts(got), "%s: [%d,%d) up to %d bytes", what, c.lo, c.hi, c.max)
		}
		_, err := s.Entries(5, 7, 1)
		require.ErrorIs(t, err, raft.ErrCompacted)
		_, err = s.Entries(6, 10, 1)
		require.ErrorIs(t, err, raft.ErrUnavailable)
	}
	check("from memory")
	s.Applied(7, false)
	require.Equal(t, uint64(8), s.cacheFirst())
	check("half from disk")
	require.NoError(t, d.Close())
	d = openLog(t, fs)
	defer func() { require.NoError(t, d.Close()) }()
	s = load(t, d, 1, 8, o)
	check("after a restart")
	hs, _, _ := s.InitialState()
	require.Equal(t, [3]uint64{6, 1, 8}, [3]uint64{hs.GetTerm(), hs.GetVote(), hs.GetCommit()},
		"the commit index is at least the applied one")
}

func TestAnOverwrittenTailIsGone(t *testing.T) {
	fs := vfs.NewMem()
	d := openLog(t, fs)
	o := newOwner()
	s := load(t, d, 1, InitialIndex, o)
	s.Submit(appendMsg(&hardState{6, 1, 5}, entry(6, 6, "a"), entry(7, 6, "b"), entry(8, 6, "c"), entry(9, 6, "d")), false)
	s.Submit(appendMsg(&hardState{7, 2, 5}, entry(7, 7, "x")), false)
	<-o.durable
	<-o.durable
	last, _ := s.LastIndex()
	require.Equal(t, uint64(7), last)
	require.NoError(t, d.Close())
	d = openLog(t, fs)
	defer func() { require.NoError(t, d.Close()) }()
	s = load(t, d, 1, InitialIndex, o)
	got, err := s.Entries(6, 8, 1<<20)
	require.NoError(t, err)
	require.Equal(t, []string{"6/6:a", "7/7:x"}, texts(got))
	last, _ = s.LastIndex()
	require.Equal(t, uint64(7), last)
}

func TestTruncationDropsEntriesForGood(t *testing.T) {
	fs := vfs.NewMem()
	d := openLog(t, fs)
	o := newOwner()
	s := load(t, d, 1, InitialIndex, o)
	s.Submit(appendMsg(&hardState{6, 1, 5}, entry(6, 6, "a"), entry(7, 6, "b"), entry(8, 6, "c")), false)
	<-o.durable
	require.Error(t, s.Truncate(9), "after the end")
	require.NoError(t, s.Truncate(7))
	require.NoError(t, s.Truncate(6), "older than the last truncation")
	_, err := s.Entries(7, 8, 1)
	require.ErrorIs(t, err, raft.ErrCompacted)
	require.NoError(t, d.Close())
	d = openLog(t, fs)
	defer func() { require.NoError(t, d.Close()) }()
	s = load(t, d, 1, 8, o)
	first, _ := s.FirstIndex()
	require.Equal(t, uint64(8), first)
	term, err := s.Term(7)
	require.NoError(t, err)
	require.Equal(t, uint64(6), term)
	_, err = d.Load(LoadOptions{Region: 1, Applied: 6, Conf: &raftpb.ConfState{}, Owner: o})
	require.ErrorIs(t, err, ErrCorrupt, "a state older than the log")
	_, err = d.Load(LoadOptions{Region: 1, Applied: 9, Conf: &raftpb.ConfState{}, Owner: o})
	require.ErrorIs(t, err, ErrCorrupt, "a state newer than the log")
}

func TestACommitIndexAloneWaitsForTheNextAppend(t *testing.T) {
	fs := vfs.NewMem()
	d := openLog(t, fs)
	o := newOwner()
	s := load(t, d, 1, InitialIndex, o)
	s.Submit(appendMsg(&hardState{6, 1, 5}, entry(6, 6, "a")), false)
	<-o.durable
	term, vote, commit := uint64(6), uint64(1), uint64(6)
	s.Submit(&raftpb.Message{Type: raftpb.MsgStorageAppend.Enum(), Term: &term, Vote: &vote, Commit: &commit}, false)
	require.True(t, s.hsDirty)
	s.Submit(appendMsg(nil, entry(7, 6, "b")), false)
	<-o.durable
	require.False(t, s.hsDirty)
	require.NoError(t, d.Close())
	d = openLog(t, fs)
	defer func() { require.NoError(t, d.Close()) }()
	hs, _, _ := load(t, d, 1, InitialIndex, o).InitialState()
	require.Equal(t, uint64(6), hs.GetCommit())
}

// counter is the value of a counter that is there.
func counter(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatalf("there is no %s", name)
	return 0
}

// News of a commit has nothing to be made durable: its answer waits for what was submitted before, and costs no fsync.
func TestNewsOfACommitCostsNoFsync(t *testing.T) {
	reg := prometheus.NewRegistry()
	d, err := Open(Options{Dir: "raft", FS: vfs.NewMem(), Registerer: reg})
	require.NoError(t, err)
	defer func() { require.NoError(t, d.Close()) }()
	o := newOwner()
	s := load(t, d, 1, InitialIndex, o)
	for i := range uint64(20) {
		s.Submit(appendMsg(&hardState{6, 1, 5 + i}, entry(6+i, 6, "a")), false)
		first := appendMsg(&hardState{6, 1, 6 + i})
		s.Submit(first, false)
		require.Len(t, (<-o.durable).Entries, 1)
		require.Same(t, first, <-o.durable)
		alone := appendMsg(&hardState{6, 1, 6 + i})
		s.Submit(alone, false)
		require.Same(t, alone, <-o.durable)
	}
	s.Submit(appendMsg(&hardState{7, 2, 25}), false) // a vote has to last
	<-o.durable
	require.Equal(t, 21.0, counter(t, reg, "cairn_raftlog_fsyncs_total"))
}

func TestOneWriteServesAllRegions(t *testing.T) {
	reg := prometheus.NewRegistry()
	d, err := Open(Options{Dir: "raft", FS: vfs.NewMem(), Registerer: reg})
	require.NoError(t, err)
	o := newOwner()
	for region := uint64(1); region <= 50; region++ {
		s := load(t, d, region, InitialIndex, o)
		s.Submit(appendMsg(&hardState{6, 1, 5}, entry(6, 6, "a")), false)
	}
	for range 50 {
		<-o.durable
	}
	require.Equal(t, 50.0, counter(t, reg, "cairn_raftlog_entries_total"))
	require.NoError(t, d.Close())
	families, err := reg.Gather()
	require.NoError(t, err)
	require.Empty(t, families)
}

// TestAcknowledgedAppendsSurviveACrash appends, overwrites and truncates at
// random in several regions, crashes at a random moment, and compares what is
// there with what was acknowledged and what was submitted.
func TestAcknowledgedAppendsSurviveACrash(t *testing.T) {
	start := rand.Uint64()
	for i := range uint64(60) {
		crashOnce(t, start+i)
	}
}

// model is a region's log as submitted, and how much of it is acknowledged.
type model struct {
	s       *Storage
	o       *owner
	log     []*raftpb.Entry // from index 6 on
	term    uint64
	pending [][]*raftpb.Entry // logs after each unacknowledged append
	acked   []*raftpb.Entry
	trunc   uint64
}

func (m *model) append(rng *rand.Rand) {
	keep := len(m.log)
	if rng.IntN(4) == 0 && keep > 0 { // a new leader overwrites a tail
		m.term++
		keep -= rng.IntN(min(keep, 3) + 1)
		keep = max(keep, int(m.trunc-InitialIndex))
	}
	m.log = append([]*raftpb.Entry(nil), m.log[:keep]...)
	var add []*raftpb.Entry
	for range rng.IntN(3) + 1 {
		add = append(add, entry(InitialIndex+1+uint64(keep+len(add)), m.term, fmt.Sprint(rng.Uint32())))
	}
	m.log = append(m.log, add...)
	m.pending = append(m.pending, m.log)
	m.s.Submit(appendMsg(&hardState{m.term, 1, InitialIndex}, add...), false)
}

func (m *model) collect() {
	for {
		select {
		case <-m.o.durable:
			m.acked, m.pending = m.pending[0], m.pending[1:]
		default:
			return
		}
	}
}

func crashOnce(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 2))
	fs := vfs.NewCrashableMem()
	d := openLog(t, fs)
	var models []*model
	for region := range uint64(3) {
		m := &model{o: newOwner(), term: 6, trunc: InitialIndex}
		m.s = load(t, d, region+1, InitialIndex, m.o)
		models = append(models, m)
	}
	for range rng.IntN(60) + 5 {
		m := models[rng.IntN(len(models))]
		m.append(rng)
		m.collect()
		if n := len(m.acked); rng.IntN(8) == 0 && n > 2 && len(m.pending) == 0 {
			m.trunc = max(m.trunc, InitialIndex+uint64(n-2))
			require.NoError(t, m.s.Truncate(m.trunc))
		}
	}
	for _, m := range models {
		m.collect()
	}
	after := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
	require.NoError(t, d.Close())
	d = openLog(t, after)
	for region, m := range models {
		s, err := d.Load(LoadOptions{Region: uint64(region) + 1, Applied: max(m.trunc, InitialIndex), Conf: &raftpb.ConfState{}, Owner: m.o})
		require.NoError(t, err, "seed %d", seed)
		last, _ := s.LastIndex()
		first, _ := s.FirstIndex()
		var got []string
		if last >= first {
			entries, err := s.Entries(first, last+1, 1<<30)
			require.NoError(t, err, "seed %d", seed)
			got = texts(entries)
		}
		// One of the states from the last acknowledged one on, cut at the truncation it had.
		ok := false
		for _, candidate := range append([][]*raftpb.Entry{m.acked}, m.pending...) {
			from := min(int(first-InitialIndex-1), len(candidate))
			ok = ok || fmt.Sprint(texts(candidate[from:])) == fmt.Sprint(got)
		}
		require.True(t, ok, "seed %d, region %d: after the crash %v, acknowledged %v, submitted %v",
			seed, region+1, got, texts(m.acked), texts(m.log))
	}
	require.NoError(t, d.Close())
}

func FuzzEntryDecode(f *testing.F) {
	f.Add(uint64(7), appendEntry(nil, entry(7, 6, "data")))
	f.Add(uint64(1), []byte{0, 1})
	f.Add(uint64(1), []byte{2, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, index uint64, value []byte) {
		e, err := decodeEntry(index, value)
		if err != nil {
			return
		}
		again := appendEntry(nil, e)
		if len(again) != entrySize(e) {
			t.Fatalf("entrySize %d, encoded %d", entrySize(e), len(again))
		}
		e2, err := decodeEntry(index, again)
		if err != nil || e2.GetTerm() != e.GetTerm() || e2.GetType() != e.GetType() || !bytes.Equal(e2.GetData(), e.GetData()) {
			t.Fatalf("%x decodes to %v, which encodes to %x, %v", value, e, again, err)
		}
	})
}

func FuzzHardStateDecode(f *testing.F) {
	f.Add(appendHardState(nil, hardState{6, 1, 9}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := decodeHardState(b); err == nil {
			h2, err := decodeHardState(appendHardState(nil, h))
			if err != nil || h2 != h {
				t.Fatalf("%v becomes %v, %v", h, h2, err)
			}
		}
		_, _ = decodeMark(b)
	})
}

// BenchmarkAppend measures the log alone: one append of one entry at a time.
func BenchmarkAppend(b *testing.B) {
	d, err := Open(Options{Dir: b.TempDir()})
	require.NoError(b, err)
	o := newOwner()
	s := load(b, d, 1, InitialIndex, o)
	data := make([]byte, 300)
	b.ReportAllocs()
	for i := uint64(6); b.Loop(); i++ {
		s.Submit(appendMsg(nil, &raftpb.Entry{Index: &i, Term: new(uint64(6)), Data: data}), false)
		<-o.durable
		s.Applied(i, false)
	}
	require.NoError(b, d.Close())
}
