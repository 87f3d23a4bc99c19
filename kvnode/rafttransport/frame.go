package rafttransport

import (
	"encoding/binary"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// frame is a replpb.MessageBatch that encodes its messages directly into the pooled
// buffer that gRPC writes: there is no copy in between.
type frame struct {
	msgs  []Message
	bytes int // the sum of their sizes
}

// Field numbers of replpb.MessageBatch.
const (
	fieldMessages = 2
	fieldCRC      = 3
)

func (f *frame) reset() {
	clear(f.msgs)
	f.msgs, f.bytes = f.msgs[:0], 0
}

func (f *frame) messagesSize() int {
	if len(f.msgs) == 0 {
		return 0
	}
	return uvarintLen(uint64(len(f.msgs))) + f.bytes
}

// SizeVT is the encoded size.
func (f *frame) SizeVT() int {
	return protowire.SizeTag(fieldMessages) + protowire.SizeBytes(f.messagesSize()) +
		protowire.SizeTag(fieldCRC) + protowire.SizeFixed32()
}

// MarshalToSizedBufferVT encodes into buf, which has SizeVT bytes.
func (f *frame) MarshalToSizedBufferVT(buf []byte) (int, error) {
	b := protowire.AppendTag(buf[:0], fieldMessages, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(f.messagesSize()))
	start := len(b)
	if len(f.msgs) > 0 {
		b = binary.AppendUvarint(b, uint64(len(f.msgs)))
	}
	for i := range f.msgs {
		b = appendMessage(b, &f.msgs[i])
	}
	if len(b)-start != f.messagesSize() {
		return 0, fmt.Errorf("%w: changed after it was sent: %d bytes, announced %d", ErrBadMessage, len(b)-start, f.messagesSize())
	}
	crc := checksum(b[start:])
	b = protowire.AppendTag(b, fieldCRC, protowire.Fixed32Type)
	b = protowire.AppendFixed32(b, crc)
	return len(b), nil
}
