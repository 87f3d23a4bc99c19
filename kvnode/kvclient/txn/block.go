package txn

import (
	"context"

	"github.com/cairndb/cairn/proto/kvpb"
)

// Block is a packed list of pairs in scan order. It is valid until the next call
// of the scanner that gave it.
type Block struct {
	data []byte
	off  []uint32 // 2n+1 positions in data, or none; see kvpb.KvBlock
}

// Len returns the number of pairs.
func (b Block) Len() int { return len(b.off) / 2 }

// Key returns the key of pair i.
func (b Block) Key(i int) []byte { return b.data[b.off[2*i]:b.off[2*i+1]:b.off[2*i+1]] }

// Value returns the value of pair i; empty in a scan of keys only.
func (b Block) Value(i int) []byte { return b.data[b.off[2*i+1]:b.off[2*i+2]:b.off[2*i+2]] }

// blockOf checks a block received from a server.
func blockOf(p *kvpb.KvBlock) (Block, bool) {
	off := p.GetOffsets()
	if len(off) == 0 {
		return Block{}, true
	}
	if len(off)%2 == 0 || int(off[len(off)-1]) > len(p.GetData()) {
		return Block{}, false
	}
	for i := 1; i < len(off); i++ {
		if off[i-1] > off[i] {
			return Block{}, false
		}
	}
	return Block{data: p.GetData(), off: off}, true
}

// add appends a pair to a block this process builds.
func (b *Block) add(key, value []byte) {
	if len(b.off) == 0 {
		b.off = append(b.off, 0)
	}
	b.data = append(b.data, key...)
	b.off = append(b.off, uint32(len(b.data)))
	b.data = append(b.data, value...)
	b.off = append(b.off, uint32(len(b.data)))
}

func (b *Block) reset() { b.data, b.off = b.data[:0], b.off[:0] }

// ScanOptions limits a scan.
type ScanOptions struct {
	// Reverse delivers descending keys.
	Reverse bool
	// Limit is the number of pairs wanted; 0 = all.
	Limit int
	// KeyOnly leaves values empty.
	KeyOnly bool
}

// Reader reads keys at one timestamp. Snapshot and Txn implement it.
type Reader interface {
	// Get returns the value of key, or ErrNotFound. The caller owns the value.
	Get(ctx context.Context, key []byte) ([]byte, error)
	// BatchGet returns the values aligned with keys, nil for absent ones.
	BatchGet(ctx context.Context, keys [][]byte) ([][]byte, error)
	// Scan returns a scanner over [start, end); an empty end is the end of the key
	// space. Nothing is read before the first NextBlock. start and end are kept.
	Scan(ctx context.Context, start, end []byte, o ScanOptions) *Scanner
}

var (
	_ Reader = (*Snapshot)(nil)
	_ Reader = (*Txn)(nil)
)
