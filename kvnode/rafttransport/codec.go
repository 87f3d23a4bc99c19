package rafttransport

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/bits"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/replpb"
)

// The byte format is drawn in docs/formats/transport.md.
const format = 1

const (
	// MaxBatch messages are in a batch at most.
	MaxBatch = 256
	// maxEntries are in a batch at most. It bounds what a decoder allocates for small
	// input.
	maxEntries = 1 << 19
)

// ErrBadMessage reports a message that cannot be encoded, or bytes that are none.
var ErrBadMessage = errors.New("rafttransport: bad message")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// Flags of a message.
const (
	hasFrom = 1 << iota
	hasTo
	hasEpoch
	hasRange
	hasLow
	hasRaft
	hasClosed
	unknownFlags
)

// Bits of the fields of a raftpb.Message. fieldTo to fieldRejectHint are numbers.
const (
	fieldType       = 0
	fieldTo         = 1
	fieldRejectHint = 8
	fieldReject     = 9
	fieldRejectTrue = 10
	fieldContext    = 11
	fieldSnapshot   = 12
	fieldEntries    = 13
	unknownField    = 14

	numbers = fieldRejectHint - fieldTo + 1
)

// Flags of an entry.
const (
	entryType    = 3 // mask
	entryHasType = 1 << (iota + 1)
	entryHasTerm
	entryHasIndex
	entryHasData
	unknownEntryFlags
)

// streams says which stream a type of message takes. Types that are not named never
// leave their store.
var streams = map[raftpb.MessageType]replpb.MessageStream{
	raftpb.MsgProp:           replpb.MessageStream_MESSAGE_STREAM_BULK,
	raftpb.MsgApp:            replpb.MessageStream_MESSAGE_STREAM_BULK,
	raftpb.MsgAppResp:        replpb.MessageStream_MESSAGE_STREAM_BULK,
	raftpb.MsgSnap:           replpb.MessageStream_MESSAGE_STREAM_BULK,
	raftpb.MsgTransferLeader: replpb.MessageStream_MESSAGE_STREAM_BULK,
	raftpb.MsgVote:           replpb.MessageStream_MESSAGE_STREAM_URGENT,
	raftpb.MsgVoteResp:       replpb.MessageStream_MESSAGE_STREAM_URGENT,
	raftpb.MsgPreVote:        replpb.MessageStream_MESSAGE_STREAM_URGENT,
	raftpb.MsgPreVoteResp:    replpb.MessageStream_MESSAGE_STREAM_URGENT,
	raftpb.MsgHeartbeat:      replpb.MessageStream_MESSAGE_STREAM_URGENT,
	raftpb.MsgHeartbeatResp:  replpb.MessageStream_MESSAGE_STREAM_URGENT,
	raftpb.MsgTimeoutNow:     replpb.MessageStream_MESSAGE_STREAM_URGENT,
	raftpb.MsgReadIndex:      replpb.MessageStream_MESSAGE_STREAM_URGENT,
	raftpb.MsgReadIndexResp:  replpb.MessageStream_MESSAGE_STREAM_URGENT,
}

// streamByType is streams, indexed; -1 where there is none.
var streamByType = func() (t [raftpb.MsgForgetLeader + 1]int8) {
	for i := range t {
		t[i] = -1
		if s, ok := streams[raftpb.MessageType(i)]; ok {
			t[i] = int8(s)
		}
	}
	return t
}()

// StreamOf returns the stream that carries m, false when m is none to send.
func StreamOf(m *Message) (replpb.MessageStream, bool) {
	if m.Kind != KindRaft {
		return replpb.MessageStream_MESSAGE_STREAM_URGENT, true
	}
	t := m.Raft.GetType()
	if t < 0 || int(t) >= len(streamByType) || streamByType[t] < 0 {
		return 0, false
	}
	return replpb.MessageStream(streamByType[t]), true
}

// AppendMessages appends a batch of at most MaxBatch messages.
func AppendMessages(dst []byte, msgs []Message) ([]byte, error) {
	entries := 0
	for i := range msgs {
		if _, err := messageSize(&msgs[i]); err != nil {
			return dst, err
		}
		entries += len(msgs[i].Raft.GetEntries())
	}
	if len(msgs) > MaxBatch || entries > maxEntries {
		return dst, fmt.Errorf("%w: a batch of %d messages, %d entries", ErrBadMessage, len(msgs), entries)
	}
	dst = binary.AppendUvarint(dst, uint64(len(msgs)))
	for i := range msgs {
		dst = appendMessage(dst, &msgs[i])
	}
	return dst, nil
}

func uvarintLen(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }

func bytesLen(b []byte) int { return uvarintLen(uint64(len(b))) + len(b) }

// messageSize is the length of an encoded message, or the reason why it has none.
func messageSize(m *Message) (int, error) {
	n := 2 + uvarintLen(m.RegionID) + peerSize(m.From) + peerSize(m.To)
	if m.Epoch != nil {
		n += uvarintLen(m.Epoch.ConfVer) + uvarintLen(m.Epoch.Version)
	}
	if m.HasRange {
		n += bytesLen(m.Start) + bytesLen(m.End)
	}
	if m.Low != 0 {
		n += uvarintLen(m.Low)
	}
	switch {
	case m.Kind == KindGone && m.Raft == nil:
		return n, nil
	case m.Kind == KindClosed && m.Raft == nil:
		return n + uvarintLen(m.ClosedTS) + uvarintLen(m.ClosedIndex), nil
	case m.Kind != KindRaft || m.Raft == nil:
		return 0, fmt.Errorf("%w: kind %d, Raft message %v", ErrBadMessage, m.Kind, m.Raft != nil)
	}
	size, err := raftSize(m)
	return n + size, err
}

func peerSize(p *kvpb.Peer) int {
	if p == nil {
		return 0
	}
	return uvarintLen(p.Id) + uvarintLen(p.StoreId) + uvarintLen(uint64(p.Role))
}

func raftSize(msg *Message) (int, error) {
	m := msg.Raft
	if _, ok := StreamOf(msg); !ok || len(m.Responses) > 0 {
		return 0, fmt.Errorf("%w: %v is not for other stores", ErrBadMessage, m.GetType())
	}
	if len(m.Entries) > maxEntries {
		return 0, fmt.Errorf("%w: %d entries", ErrBadMessage, len(m.Entries))
	}
	n := uvarintLen(presentFields(m))
	if m.Type != nil {
		n++
	}
	for _, v := range numberFields(m) {
		if v != nil {
			n += uvarintLen(*v)
		}
	}
	if m.Context != nil {
		n += bytesLen(m.Context)
	}
	if m.Snapshot != nil {
		size := proto.Size(m.Snapshot)
		n += uvarintLen(uint64(size)) + size
	}
	if len(m.Entries) > 0 {
		n += uvarintLen(uint64(len(m.Entries)))
	}
	for _, e := range m.Entries {
		if t := e.GetType(); t < 0 || t > raftpb.EntryConfChangeV2 {
			return 0, fmt.Errorf("%w: entry of type %d", ErrBadMessage, t)
		}
		n += entrySize(e)
	}
	return n, nil
}

func entrySize(e *raftpb.Entry) int {
	n := 1
	if e.Term != nil {
		n += uvarintLen(*e.Term)
	}
	if e.Index != nil {
		n += uvarintLen(*e.Index)
	}
	if e.Data != nil {
		n += bytesLen(e.Data)
	}
	return n
}

// numberFields are the fields from fieldTo to fieldRejectHint.
func numberFields(m *raftpb.Message) [numbers]*uint64 {
	return [numbers]*uint64{m.To, m.From, m.Term, m.LogTerm, m.Index, m.Commit, m.Vote, m.RejectHint}
}

func presentFields(m *raftpb.Message) uint64 {
	var p uint64
	if m.Type != nil {
		p |= 1 << fieldType
	}
	for i, v := range numberFields(m) {
		if v != nil {
			p |= 1 << (fieldTo + i)
		}
	}
	if m.Reject != nil {
		p |= 1 << fieldReject
		if *m.Reject {
			p |= 1 << fieldRejectTrue
		}
	}
	if m.Context != nil {
		p |= 1 << fieldContext
	}
	if m.Snapshot != nil {
		p |= 1 << fieldSnapshot
	}
	if len(m.Entries) > 0 {
		p |= 1 << fieldEntries
	}
	return p
}

// appendMessage appends a message that has a size.
func appendMessage(dst []byte, m *Message) []byte {
	flags := len(dst) + 1
	dst = append(dst, byte(m.Kind), 0)
	dst = binary.AppendUvarint(dst, m.RegionID)
	if m.From != nil {
		dst[flags] |= hasFrom
		dst = appendPeer(dst, m.From)
	}
	if m.To != nil {
		dst[flags] |= hasTo
		dst = appendPeer(dst, m.To)
	}
	if m.Epoch != nil {
		dst[flags] |= hasEpoch
		dst = binary.AppendUvarint(dst, m.Epoch.ConfVer)
		dst = binary.AppendUvarint(dst, m.Epoch.Version)
	}
	if m.HasRange {
		dst[flags] |= hasRange
		dst = appendBytes(dst, m.Start)
		dst = appendBytes(dst, m.End)
	}
	if m.Low != 0 {
		dst[flags] |= hasLow
		dst = binary.AppendUvarint(dst, m.Low)
	}
	if m.Raft != nil {
		dst[flags] |= hasRaft
		dst = appendRaft(dst, m.Raft)
	}
	if m.Kind == KindClosed {
		dst[flags] |= hasClosed
		dst = binary.AppendUvarint(dst, m.ClosedTS)
		dst = binary.AppendUvarint(dst, m.ClosedIndex)
	}
	return dst
}

func appendPeer(dst []byte, p *kvpb.Peer) []byte {
	dst = binary.AppendUvarint(dst, p.Id)
	dst = binary.AppendUvarint(dst, p.StoreId)
	return binary.AppendUvarint(dst, uint64(p.Role))
}

func appendBytes(dst, b []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(b))), b...)
}

func appendRaft(dst []byte, m *raftpb.Message) []byte {
	dst = binary.AppendUvarint(dst, presentFields(m))
	if m.Type != nil {
		dst = append(dst, byte(*m.Type))
	}
	for _, v := range numberFields(m) {
		if v != nil {
			dst = binary.AppendUvarint(dst, *v)
		}
	}
	if m.Context != nil {
		dst = appendBytes(dst, m.Context)
	}
	if m.Snapshot != nil {
		dst = binary.AppendUvarint(dst, uint64(proto.Size(m.Snapshot)))
		// It fails only for strings that are not UTF-8 and required fields that are missing;
		// a snapshot has neither.
		dst, _ = proto.MarshalOptions{}.MarshalAppend(dst, m.Snapshot)
	}
	if len(m.Entries) > 0 {
		dst = binary.AppendUvarint(dst, uint64(len(m.Entries)))
	}
	for _, e := range m.Entries {
		dst = appendEntry(dst, e)
	}
	return dst
}

func appendEntry(dst []byte, e *raftpb.Entry) []byte {
	flags := len(dst)
	dst = append(dst, byte(e.GetType()))
	if e.Type != nil {
		dst[flags] |= entryHasType
	}
	if e.Term != nil {
		dst[flags] |= entryHasTerm
		dst = binary.AppendUvarint(dst, *e.Term)
	}
	if e.Index != nil {
		dst[flags] |= entryHasIndex
		dst = binary.AppendUvarint(dst, *e.Index)
	}
	if e.Data != nil {
		dst[flags] |= entryHasData
		dst = appendBytes(dst, e.Data)
	}
	return dst
}
