package vexec

import (
	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/types"
)

// Memory is where operators get memory from. The zero value has no limit and keeps nothing.
type Memory struct {
	Tracker *Tracker
	Pool    *Pool
}

// Pool keeps batches and key tables between the executions of one session, so that a plan that is executed again finds
// memory of the right layout and size: most of what a short query allocates is batches. It is not safe for concurrent
// use. A nil Pool keeps nothing.
//
// Protocol: Get, use, Put once; a batch must not be used after Put, and its columns must not be anybody else's (operators
// that pass columns on exchange them). What is not Put is left to the garbage collector.
type Pool struct {
	batches map[*types.Type][]*chunk.Batch // by the identity of the list of types
	held    int                            // batches kept
	tables  []*KeyTable
}

const (
	// poolMaxHeld bounds the batches kept; when there are more, plans have changed and all are dropped.
	poolMaxHeld = 128
	// poolMaxBytes bounds a batch or table that is kept.
	poolMaxBytes = 256 << 10
	// poolMaxTables bounds the key tables kept.
	poolMaxTables = 8
)

// Get returns an empty batch of these types. The list of types must not be changed as long as the pool lives: it is known
// by its address.
func (p *Pool) Get(ts []types.Type, rows int) *chunk.Batch {
	if p == nil || len(ts) == 0 {
		return chunk.NewBatch(ts, rows)
	}
	free := p.batches[&ts[0]]
	n := len(free)
	// A longer list that begins at the same place is another layout.
	if n == 0 || len(free[n-1].Cols) != len(ts) {
		return chunk.NewBatch(ts, rows)
	}
	b := free[n-1]
	p.batches[&ts[0]] = free[:n-1]
	p.held--
	return b
}

// Put takes a batch back that Get gave for ts. nil is ignored.
func (p *Pool) Put(ts []types.Type, b *chunk.Batch) {
	if p == nil || b == nil || len(ts) == 0 || b.MemBytes() > poolMaxBytes {
		return
	}
	if p.batches == nil || p.held >= poolMaxHeld {
		p.batches, p.held = make(map[*types.Type][]*chunk.Batch), 0
	}
	b.Reset()
	p.batches[&ts[0]] = append(p.batches[&ts[0]], b)
	p.held++
}

// table returns an empty key table.
func (p *Pool) table() *KeyTable {
	if p == nil || len(p.tables) == 0 {
		return &KeyTable{}
	}
	n := len(p.tables) - 1
	t := p.tables[n]
	p.tables = p.tables[:n]
	return t
}

// putTable takes a key table back. nil is ignored.
func (p *Pool) putTable(t *KeyTable) {
	if p == nil || t == nil || len(p.tables) >= poolMaxTables || t.Bytes() > poolMaxBytes {
		return
	}
	t.Reset()
	p.tables = append(p.tables, t)
}
