package exec

import (
	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/internal/vexec"
	"github.com/cairndb/cairn/sqlnode/catalog"
	"github.com/cairndb/cairn/sqlnode/distscan"
	"github.com/cairndb/cairn/sqlnode/plan"
	"github.com/cairndb/cairn/sqlnode/table"
)

// maxDecoders bounds each map of Decoders; a session that uses more plans or tables than this forgets them all and begins
// anew.
const maxDecoders = 256

// Decoders remembers what a session needs to read and write rows, so that a cached plan does not pay for making it each
// time. It belongs to one session. The zero value is ready.
type Decoders struct {
	rows    map[*plan.Reader]*distscan.RowDecoder
	writers map[*catalog.Table]*table.Writer
	batches map[batchKey]*chunk.Batch
	pool    vexec.Pool
}

// Pool keeps the batches of operators; the session takes its result batches from it too.
func (d *Decoders) Pool() *vexec.Pool { return &d.pool }

// memory is what the statement's operators get memory from.
func (c *Context) memory() vexec.Memory {
	m := vexec.Memory{Tracker: c.Tracker}
	if c.Decoders != nil {
		m.Pool = &c.Decoders.pool
	}
	return m
}

// batchKey names a batch of a plan node.
type batchKey struct {
	node plan.Node
	use  uint8
}

// batch returns an empty batch for one use by a node, the one of the node's last execution when there was one: a node is
// executed by one operator at a time.
func (c *Context) batch(node plan.Node, use uint8, ts []types.Type, rows int) *chunk.Batch {
	if c.Decoders == nil {
		return chunk.NewBatch(ts, rows)
	}
	b := cached(&c.Decoders.batches, batchKey{node, use},
		func(*chunk.Batch) bool { return true },
		func() *chunk.Batch { return chunk.NewBatch(ts, rows) })
	b.Reset()
	return b
}

// RowDecoder returns the decoder of a reader's columns in the session's time zone. It is shared by all who ask for the
// same reader of this session, one after the other.
func (c *Context) RowDecoder(r *plan.Reader) *distscan.RowDecoder {
	if c.Decoders == nil {
		return distscan.NewRowDecoder(r.Table, r.Cols, r.RowID, c.Env.Loc)
	}
	return cached(&c.Decoders.rows, r,
		func(d *distscan.RowDecoder) bool { return d.In(c.Env.Loc) == d },
		func() *distscan.RowDecoder { return distscan.NewRowDecoder(r.Table, r.Cols, r.RowID, c.Env.Loc) })
}

// writer returns a writer of a table in the session's time zone, shared like a RowDecoder. A table that was changed is
// another *catalog.Table.
func (c *Context) writer(t *catalog.Table) *table.Writer {
	if c.Decoders == nil {
		return table.NewWriter(t, c.Env.Loc)
	}
	return cached(&c.Decoders.writers, t,
		func(w *table.Writer) bool { return w.Loc == c.Env.Loc },
		func() *table.Writer { return table.NewWriter(t, c.Env.Loc) })
}

// cached returns the value of key if it is still valid, else a new one.
func cached[K comparable, V any](m *map[K]V, key K, valid func(V) bool, renew func() V) V {
	if v, ok := (*m)[key]; ok && valid(v) {
		return v
	}
	if *m == nil || len(*m) >= maxDecoders {
		*m = make(map[K]V)
	}
	v := renew()
	(*m)[key] = v
	return v
}
