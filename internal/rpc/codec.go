package rpc

import (
	"fmt"

	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // registers the standard codec we fall back to
	"google.golang.org/grpc/mem"
)

// vtMarshaler is implemented by messages with generated vtproto code.
type vtMarshaler interface {
	SizeVT() int
	MarshalToSizedBufferVT([]byte) (int, error)
}

type vtUnmarshaler interface {
	UnmarshalVTUnsafe([]byte) error
}

// fenced is implemented by messages of which byte fields are written to after decoding.
// FenceFields is called before anybody sees the message.
type fenced interface {
	FenceFields()
}

// codec encodes messages with their generated vtproto code and everything else
// (health checks, reflection) with the standard codec. The bytes on the wire are
// the same protobuf either way.
//
// Encoding goes into a pooled buffer, released by gRPC once written. Decoding
// copies the frame once into memory of its own and lets byte and string fields
// alias it: one allocation for all fields of a message. A message that keeps one
// small field alive therefore keeps its frame alive; copy what outlives a request.
type codec struct {
	fallback encoding.CodecV2
}

// newCodec returns the codec; its name is that of the standard one, so a peer
// without it understands us.
func newCodec() codec { return codec{fallback: encoding.GetCodecV2("proto")} }

func (codec) Name() string { return "proto" }

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	m, ok := v.(vtMarshaler)
	if !ok {
		return c.fallback.Marshal(v)
	}
	size := m.SizeVT()
	if mem.IsBelowBufferPoolingThreshold(size) {
		buf := make([]byte, size)
		if err := marshalInto(m, buf); err != nil {
			return nil, err
		}
		return mem.BufferSlice{mem.SliceBuffer(buf)}, nil
	}
	pool := mem.DefaultBufferPool()
	buf := pool.Get(size)
	if err := marshalInto(m, (*buf)[:size]); err != nil {
		pool.Put(buf)
		return nil, err
	}
	return mem.BufferSlice{mem.NewBuffer(buf, pool)}, nil
}

func marshalInto(m vtMarshaler, buf []byte) error {
	n, err := m.MarshalToSizedBufferVT(buf)
	if err != nil {
		return err
	}
	if n != len(buf) {
		return fmt.Errorf("rpc: %T encoded to %d bytes, announced %d", m, n, len(buf))
	}
	return nil
}

func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(vtUnmarshaler)
	if !ok {
		return c.fallback.Unmarshal(data, v)
	}
	if err := m.UnmarshalVTUnsafe(data.Materialize()); err != nil {
		return err
	}
	if f, ok := v.(fenced); ok {
		f.FenceFields()
	}
	return nil
}
