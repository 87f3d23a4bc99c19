package rafttransport

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/replpb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// optional draws a value or its absence: raftpb tells zero from not set.
func optional[V any](t *rapid.T, g *rapid.Generator[V], name string) *V {
	if !rapid.Bool().Draw(t, name+" set") {
		return nil
	}
	return new(g.Draw(t, name))
}

func drawBytes(t *rapid.T, name string) []byte {
	switch rapid.IntRange(0, 4).Draw(t, name+" kind") {
	case 0:
		return nil
	case 1:
		return []byte{}
	case 2:
		return bytes.Repeat([]byte{7}, rapid.IntRange(ownBytes-1, aliasBytes+1).Draw(t, name+" length"))
	}
	return rapid.SliceOfN(rapid.Byte(), 1, 40).Draw(t, name)
}

func drawPeer(t *rapid.T, name string) *kvpb.Peer {
	if !rapid.Bool().Draw(t, name) {
		return nil
	}
	return &kvpb.Peer{Id: rapid.Uint64().Draw(t, "id"), StoreId: rapid.Uint64().Draw(t, "store"), Role: kvpb.PeerRole(rapid.IntRange(0, 3).Draw(t, "role"))}
}

func drawMessage(t *rapid.T) Message {
	number := rapid.OneOf(rapid.Uint64(), rapid.Uint64Range(0, 300))
	m := Message{Kind: KindGone, RegionID: number.Draw(t, "region"), From: drawPeer(t, "from"), To: drawPeer(t, "to"), Low: number.Draw(t, "low")}
	if rapid.Bool().Draw(t, "epoch") {
		m.Epoch = &kvpb.RegionEpoch{ConfVer: number.Draw(t, "conf_ver"), Version: number.Draw(t, "version")}
	}
	if m.HasRange = rapid.Bool().Draw(t, "range"); m.HasRange {
		m.Start, m.End = []byte("a"), nil
	}
	switch rapid.IntRange(0, 3).Draw(t, "kind") {
	case 0:
		return m
	case 1:
		m.Kind, m.ClosedTS, m.ClosedIndex = KindClosed, number.Draw(t, "closed ts"), number.Draw(t, "closed index")
		return m
	}
	m.Kind = KindRaft
	types := rapid.SampledFrom([]raftpb.MessageType{raftpb.MsgApp, raftpb.MsgSnap, raftpb.MsgHeartbeat, raftpb.MsgVote, raftpb.MsgReadIndexResp})
	m.Raft = &raftpb.Message{
		Type: new(types.Draw(t, "type")), To: optional(t, number, "to"), From: optional(t, number, "from"), Term: optional(t, number, "term"),
		LogTerm: optional(t, number, "logTerm"), Index: optional(t, number, "index"), Commit: optional(t, number, "commit"), Vote: optional(t, number, "vote"),
		RejectHint: optional(t, number, "hint"), Reject: optional(t, rapid.Bool(), "reject"), Context: drawBytes(t, "context"),
	}
	for range rapid.IntRange(0, 5).Draw(t, "entries") {
		m.Raft.Entries = append(m.Raft.Entries, &raftpb.Entry{
			Type: optional(t, rapid.SampledFrom([]raftpb.EntryType{0, 1, 2}), "entry type"), Term: optional(t, number, "entry term"),
			Index: optional(t, number, "entry index"), Data: drawBytes(t, "data"),
		})
	}
	if rapid.Bool().Draw(t, "snapshot") {
		m.Raft.Snapshot = &raftpb.Snapshot{Data: drawBytes(t, "snapshot data"), Metadata: &raftpb.SnapshotMetadata{
			Index: optional(t, number, "snapshot index"), Term: optional(t, number, "snapshot term"),
			ConfState: &raftpb.ConfState{Voters: []uint64{1, 2}, Learners: []uint64{3}, VotersOutgoing: []uint64{4}, LearnersNext: []uint64{5}, AutoLeave: new(true)},
		}}
	}
	return m
}

func requireEqualMessages(t require.TestingT, want, got []Message) {
	require.Len(t, got, len(want))
	for i := range want {
		w, g := want[i], got[i]
		require.True(t, proto.Equal(w.Raft, g.Raft) && (w.Raft == nil) == (g.Raft == nil), "want %v\ngot  %v", w.Raft, g.Raft)
		require.True(t, proto.Equal(w.From, g.From) && proto.Equal(w.To, g.To) && proto.Equal(w.Epoch, g.Epoch), "want %v\ngot  %v", w, g)
		w.Raft, w.From, w.To, w.Epoch = nil, nil, nil, nil
		g.Raft, g.From, g.To, g.Epoch = nil, nil, nil, nil
		require.Equal(t, w, g)
	}
}

func TestWhatIsDecodedEqualsWhatWasEncoded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		msgs := rapid.SliceOfN(rapid.Custom(drawMessage), 0, 6).Draw(t, "messages")
		data, err := AppendMessages(nil, msgs)
		require.NoError(t, err)

		f := frame{msgs: msgs}
		for i := range msgs {
			size, err := messageSize(&msgs[i])
			require.NoError(t, err)
			f.bytes += size
		}
		buf := make([]byte, f.SizeVT())
		n, err := f.MarshalToSizedBufferVT(buf)
		require.NoError(t, err)
		require.Equal(t, len(buf), n, "the size announced")
		var batch replpb.MessageBatch
		require.NoError(t, proto.Unmarshal(buf, &batch), "a frame is a MessageBatch")
		require.Equal(t, checksum(batch.Messages), batch.Crc)
		if len(msgs) > 0 {
			require.Equal(t, data, batch.Messages)
		}

		got, err := DecodeMessages(data)
		require.NoError(t, err)
		requireEqualMessages(t, msgs, got)
		for cut := range min(len(data), 200) {
			_, err := DecodeMessages(data[:cut])
			require.ErrorIs(t, err, ErrBadMessage, "cut at %d of %d", cut, len(data))
		}
	})
}

// A version of raft with more fields needs another format.
func TestNoFieldIsForgotten(t *testing.T) {
	for m, want := range map[proto.Message]int{&raftpb.Message{}: numbers + 6, &raftpb.Entry{}: 4, &kvpb.Peer{}: 3, &kvpb.RegionEpoch{}: 2} {
		// Of a Message, besides the numbers: type, reject, context, snapshot, entries, and responses, which stay here.
		require.Equal(t, want, m.ProtoReflect().Descriptor().Fields().Len(), "%T", m)
	}
	require.Equal(t, 24, raftpb.MsgHup.Descriptor().Values().Len(), "types of messages")
	require.Equal(t, 3, raftpb.EntryNormal.Descriptor().Values().Len(), "types of entries")
}

func TestEntriesOfLargeBatchesDoNotKeepItAlive(t *testing.T) {
	m := appendOf(1, 1, bytes.Repeat([]byte{'v'}, aliasBytes))
	m.Raft.Entries = append(m.Raft.Entries, &raftpb.Entry{Data: []byte("small")})
	data, err := AppendMessages(nil, []Message{m})
	require.NoError(t, err)
	got, err := DecodeMessages(data)
	require.NoError(t, err)
	clear(data)
	requireEqualMessages(t, []Message{m}, got)
}

func TestMessagesThatAreNotForOtherStoresAreNotEncoded(t *testing.T) {
	for name, m := range map[string]Message{
		"no kind":          {},
		"no message":       {Kind: KindRaft},
		"gone with raft":   {Kind: KindGone, Raft: &raftpb.Message{Type: raftpb.MsgApp.Enum()}},
		"closed with raft": {Kind: KindClosed, Raft: &raftpb.Message{Type: raftpb.MsgApp.Enum()}},
		"unknown kind":     {Kind: KindClosed + 1},
		"local":            {Kind: KindRaft, Raft: &raftpb.Message{Type: raftpb.MsgStorageAppend.Enum()}},
		"hup":              {Kind: KindRaft, Raft: &raftpb.Message{}},
		"unknown type":     {Kind: KindRaft, Raft: &raftpb.Message{Type: raftpb.MessageType(99).Enum()}},
		"responses":        {Kind: KindRaft, Raft: &raftpb.Message{Type: raftpb.MsgApp.Enum(), Responses: []*raftpb.Message{{}}}},
		"entry type":       {Kind: KindRaft, Raft: &raftpb.Message{Type: raftpb.MsgApp.Enum(), Entries: []*raftpb.Entry{{Type: raftpb.EntryType(3).Enum()}}}},
	} {
		_, err := AppendMessages(nil, []Message{m})
		require.ErrorIs(t, err, ErrBadMessage, name)
	}
	_, err := AppendMessages(nil, make([]Message, MaxBatch+1))
	require.ErrorIs(t, err, ErrBadMessage)
}

func TestSmallInputDoesNotAllocateMuch(t *testing.T) {
	// One message that announces as many entries as a batch may have.
	data := []byte{1, byte(KindRaft), hasRaft, 1, 0x81, 0x40, byte(raftpb.MsgApp), 0x80, 0x80, 0x20}
	allocs := testing.AllocsPerRun(1, func() {
		_, err := DecodeMessages(data)
		require.ErrorIs(t, err, ErrBadMessage)
	})
	require.Less(t, allocs, 50.0)
}

func FuzzDecode(f *testing.F) {
	for _, m := range []Message{appendOf(1, 2, []byte("data")), heartbeatOf(3), {Kind: KindGone, RegionID: 3, To: &kvpb.Peer{Id: 2}}, {Kind: KindClosed, RegionID: 3, ClosedTS: 1 << 60, ClosedIndex: 9}} {
		data, err := AppendMessages(nil, []Message{m, m})
		require.NoError(f, err)
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		msgs, err := DecodeMessages(bytes.Clone(data))
		if err != nil {
			require.ErrorIs(t, err, ErrBadMessage)
			return
		}
		again, err := AppendMessages(nil, msgs)
		require.NoError(t, err)
		got, err := DecodeMessages(again)
		require.NoError(t, err)
		requireEqualMessages(t, msgs, got)
	})
}

func appendOf(region, index uint64, data []byte) Message {
	return Message{
		Kind: KindRaft, RegionID: region, From: &kvpb.Peer{Id: 101, StoreId: 1}, To: &kvpb.Peer{Id: 102, StoreId: 2},
		Epoch: &kvpb.RegionEpoch{ConfVer: 3, Version: 2}, Low: 17,
		Raft: &raftpb.Message{
			Type: raftpb.MsgApp.Enum(), To: new(uint64(102)), From: new(uint64(101)), Term: new(uint64(6)), LogTerm: new(uint64(6)), Index: new(index),
			Commit: new(index), Entries: []*raftpb.Entry{{Term: new(uint64(6)), Index: new(index + 1), Data: data}},
		},
	}
}

func heartbeatOf(region uint64) Message {
	m := appendOf(region, 0, nil)
	m.HasRange, m.Start, m.End = true, []byte("a"), []byte("m")
	m.Raft = &raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), To: new(uint64(102)), From: new(uint64(101)), Term: new(uint64(6)), Commit: new(uint64(9)), Context: []byte("ctx")}
	return m
}

func BenchmarkCodec(b *testing.B) {
	for _, c := range []struct {
		name string
		m    Message
	}{{"heartbeat", heartbeatOf(1)}, {"append300B", appendOf(1, 1, make([]byte, 300))}} {
		msgs := []Message{c.m}
		data, err := AppendMessages(nil, msgs)
		require.NoError(b, err)
		b.Run("encode/"+c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				data, _ = AppendMessages(data[:0], msgs)
			}
		})
		b.Run("decode/"+c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := DecodeMessages(data); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("protobuf/"+c.name, func(b *testing.B) { // what it replaces, both ways
			b.ReportAllocs()
			for b.Loop() {
				p, _ := proto.Marshal(c.m.Raft)
				if err := proto.Unmarshal(p, new(raftpb.Message)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
