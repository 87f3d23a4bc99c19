package kvpb

import (
	"slices"
	"sync"
)

// maxKeptBlock bounds the memory of a block that is kept for another.
const maxKeptBlock = 1 << 20

var blocks sync.Pool

// NewKvBlock returns an empty block, with the memory of a recycled one if there is any.
func NewKvBlock() *KvBlock {
	if b, ok := blocks.Get().(*KvBlock); ok {
		return b
	}
	return &KvBlock{}
}

// FenceFields keeps the blocks of a decoded message, when they are used again, from growing
// into what lies behind them in its frame. The codec calls it.
func (r *BatchResponse) FenceFields() {
	for _, resp := range r.Responses {
		if pairs := resp.GetScan().GetPairs(); pairs != nil {
			pairs.Data = slices.Clip(pairs.Data)
		}
	}
}

// Recycle gives the memory of a block back. Only who holds the block alone may call it, and
// nobody may use the block or slices of it afterwards. A nil block is left alone.
func (b *KvBlock) Recycle() {
	if b == nil || cap(b.Data) == 0 || cap(b.Data) > maxKeptBlock {
		return
	}
	if poison {
		for i := range b.Data {
			b.Data[i] = 0xdb
		}
	}
	b.Data, b.Offsets = b.Data[:0], b.Offsets[:0]
	blocks.Put(b)
}
