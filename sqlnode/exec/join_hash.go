package exec

import (
	"context"

	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/internal/vexec"
	"github.com/cairndb/cairn/sqlnode/plan"
)

// joinKeys describes the equality of a hash join. The zero value, no keys, makes all pairs candidates: that is the nested
// loop join.
type joinKeys struct {
	build, probe []vexec.Output
	types        []types.Type
	nullEq       []bool // nil = all false
}

// hashJoin holds the build side in memory and streams the probe side past it.
//
// Sketch: one pass over the build side copies its rows into a row store and numbers the distinct keys; rows with equal keys
// are chained through an array. A probe row costs one encoding of its key and one lookup. Keys are encoded under the
// common type's collation, so that bytes are equal exactly when the values are.
type hashJoin struct {
	env          *expr.Env
	types        []types.Type
	probe, build vexec.Operator
	keys         joinKeys
	nullAware    bool
	pool         *vexec.Pool
	account      vexec.Account

	joiner *joiner
	table  hashTable
	nulls  *nullAwareState // nil unless nullAware
	built  bool
	in     *chunk.Batch // probe rows
	heads  []int32
	key    []byte
}

// hashTable is the build side of a join.
type hashTable struct {
	rows  *vexec.RowStore
	keys  vexec.KeyTable
	head  []int32 // by key number
	tail  []int32
	next  []int32 // by row
	empty bool    // no rows, not even with NULL keys
}

// add puts row number i of rows into the chain of key.
func (t *hashTable) add(key []byte, i int32) {
	t.next[i] = noRow
	id, added := t.keys.Insert(key)
	if added {
		t.head, t.tail = append(t.head, i), append(t.tail, i)
		return
	}
	t.next[t.tail[id]] = i
	t.tail[id] = i
}

// find returns the first row of the chain of key, or noRow.
func (t *hashTable) find(key []byte) int32 {
	if id := t.keys.Find(key); id >= 0 {
		return t.head[id]
	}
	return noRow
}

func (t *hashTable) bytes() int64 {
	return t.rows.Bytes() + t.keys.Bytes() + 4*int64(cap(t.head)+cap(t.tail)+cap(t.next))
}

func newHashJoin(c *Context, n *plan.HashJoin, left, right vexec.Operator) (*hashJoin, error) {
	keys := joinKeys{types: n.KeyTypes, nullEq: n.NullEq}
	leftKeys, err := outputs(c.Env, n.LeftKeys)
	if err != nil {
		return nil, err
	}
	rightKeys, err := outputs(c.Env, n.RightKeys)
	if err != nil {
		return nil, err
	}
	keys.probe, keys.build = leftKeys, rightKeys
	probe, build := left, right
	if n.BuildLeft {
		keys.probe, keys.build = rightKeys, leftKeys
		probe, build = right, left
	}
	other, err := programs(n.Other)
	if err != nil {
		return nil, err
	}
	j := newJoinOperator(c, n.Type, probe, build, keys, !n.BuildLeft, other)
	j.types, j.nullAware = n.Types(), n.NullAware
	return j, nil
}

// newNLJoin builds a join that tests all pairs.
func newNLJoin(c *Context, n *plan.NLJoin, left, right vexec.Operator) (*hashJoin, error) {
	conds, err := programs(n.Conds)
	if err != nil {
		return nil, err
	}
	j := newJoinOperator(c, n.Type, left, right, joinKeys{}, true, conds)
	j.types = n.Types()
	return j, nil
}

func newJoinOperator(c *Context, typ plan.JoinType, probe, build vexec.Operator, keys joinKeys, probeFirst bool, other []*expr.Program) *hashJoin {
	return &hashJoin{
		env: c.Env, probe: probe, build: build, keys: keys, pool: c.memory().Pool, account: vexec.NewAccount(c.Tracker),
		joiner: newJoiner(c.Env, typ, probe.Types(), build.Types(), probeFirst, other),
	}
}

// Types implements vexec.Operator.
func (j *hashJoin) Types() []types.Type { return j.types }

// Open implements vexec.Operator.
func (j *hashJoin) Open(ctx context.Context) error {
	j.built = false
	j.in = j.pool.Get(j.probe.Types(), 0)
	if err := j.build.Open(ctx); err != nil {
		return err
	}
	return j.probe.Open(ctx)
}

// Close implements vexec.Operator.
func (j *hashJoin) Close() error {
	j.pool.Put(j.probe.Types(), j.in)
	j.table.rows.Release()
	j.in, j.table, j.nulls = nil, hashTable{}, nil
	j.joiner.probe, j.joiner.build, j.joiner.next = nil, nil, nil
	j.account.Release()
	err := j.build.Close()
	if perr := j.probe.Close(); err == nil {
		err = perr
	}
	return err
}

// Next implements vexec.Operator.
func (j *hashJoin) Next(ctx context.Context, b *chunk.Batch) error {
	if !j.built {
		if err := j.fillTable(ctx); err != nil {
			return err
		}
	}
	switch j.joiner.typ {
	case plan.JoinSemi, plan.JoinAnti:
		return j.nextSemi(ctx, b)
	case plan.JoinMark:
		return j.nextMark(ctx, b)
	}
	return j.nextPairs(ctx, b)
}

// nextPairs produces rows of an inner or left join.
func (j *hashJoin) nextPairs(ctx context.Context, b *chunk.Batch) error {
	b.Reset()
	if j.table.empty && j.joiner.typ == plan.JoinInner {
		return nil
	}
	for {
		if err := j.joiner.fill(ctx, b); err != nil || b.NumRows() > 0 {
			return err
		}
		if err := j.probe.Next(ctx, j.in); err != nil {
			return err
		}
		n := j.in.NumRows()
		if n == 0 {
			return nil
		}
		j.heads = j.heads[:0]
		for i := range n {
			head, _ := j.lookup(j.in, j.in.Row(i))
			j.heads = append(j.heads, head)
		}
		if j.env.Err != nil {
			return j.env.Err
		}
		j.joiner.start(j.in, j.heads)
	}
}

// nextSemi passes the probe rows that have (semi) or have not (anti) a match.
func (j *hashJoin) nextSemi(ctx context.Context, b *chunk.Batch) error {
	for {
		if err := j.probe.Next(ctx, b); err != nil || b.NumRows() == 0 {
			return err
		}
		sel := b.SelBuffer()
		for i := range b.NumRows() {
			row := b.Row(i)
			m, err := j.match(ctx, b, row)
			if err != nil {
				return err
			}
			if m == matchYes && j.joiner.typ == plan.JoinSemi || m == matchNo && j.joiner.typ == plan.JoinAnti {
				sel = append(sel, uint16(row))
			}
		}
		b.Sel = sel
		if len(sel) > 0 {
			return nil
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
	}
}

// nextMark appends to each probe row what is known about a match.
func (j *hashJoin) nextMark(ctx context.Context, b *chunk.Batch) error {
	b.Reset()
	if err := j.probe.Next(ctx, j.in); err != nil {
		return err
	}
	for i := range j.in.NumRows() {
		row := j.in.Row(i)
		m, err := j.match(ctx, j.in, row)
		if err != nil {
			return err
		}
		for c, src := range j.in.Cols {
			b.Cols[c].AppendFrom(src, row)
		}
		mark := b.Cols[len(j.in.Cols)]
		switch m {
		case matchYes:
			mark.AppendInt(1)
		case matchNo:
			mark.AppendInt(0)
		default:
			mark.AppendNull()
		}
	}
	return nil
}

// match tells whether a probe row has a match.
func (j *hashJoin) match(ctx context.Context, b *chunk.Batch, row int) (matchResult, error) {
	head, null := j.lookup(b, row)
	if j.env.Err != nil {
		return matchNo, j.env.Err
	}
	ok, err := j.joiner.matches(ctx, b, row, head)
	switch {
	case err != nil:
		return matchNo, err
	case ok:
		return matchYes, nil
	case j.nullAware:
		return j.unknown(b, row, null)
	}
	return matchNo, nil
}

// lookup returns the first candidate of a probe row, and whether its key has a NULL that equals nothing.
func (j *hashJoin) lookup(b *chunk.Batch, row int) (head int32, null bool) {
	j.key, null = j.keys.append(j.key[:0], j.env, j.keys.probe, b, row)
	if null {
		return noRow, true
	}
	return j.table.find(j.key), false
}

// append encodes the key of a row. null reports a NULL that equals nothing.
func (k *joinKeys) append(dst []byte, env *expr.Env, outs []vexec.Output, b *chunk.Batch, row int) (key []byte, null bool) {
	for i := range outs {
		if col, ok := outs[i].Column(); ok {
			c := b.Cols[col]
			if c.IsNull(row) && (k.nullEq == nil || !k.nullEq[i]) {
				return dst, true
			}
			dst = vexec.AppendEqKey(dst, c, row, k.types[i])
			continue
		}
		v := outs[i].Value(env, b, row)
		if v.IsNull() && (k.nullEq == nil || !k.nullEq[i]) {
			return dst, true
		}
		dst = vexec.AppendEqKeyValue(dst, v, k.types[i])
	}
	return dst, false
}

// fillTable reads the build side.
func (j *hashJoin) fillTable(ctx context.Context) error {
	j.table = hashTable{rows: vexec.NewRowStore(j.build.Types(), j.pool), empty: true}
	if j.nullAware {
		j.nulls = &nullAwareState{keys: vexec.NewRowStore(j.keys.types, nil)}
	}
	t := &j.table
	in := j.pool.Get(j.build.Types(), 0)
	defer j.pool.Put(j.build.Types(), in)
	for {
		if err := j.build.Next(ctx, in); err != nil {
			return err
		}
		n := in.NumRows()
		if n == 0 {
			break
		}
		t.empty = false
		for i := range n {
			if err := j.addBuildRow(in, in.Row(i)); err != nil {
				return err
			}
		}
		if j.env.Err != nil {
			return j.env.Err
		}
		size := t.bytes()
		if j.nulls != nil {
			size += j.nulls.keys.Bytes()
		}
		if err := j.account.Resize(size); err != nil {
			return err
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
	}
	j.joiner.build, j.joiner.next = t.rows, t.next
	j.built = true
	return nil
}

func (j *hashJoin) addBuildRow(in *chunk.Batch, row int) error {
	t := &j.table
	var null bool
	j.key, null = j.keys.append(j.key[:0], j.env, j.keys.build, in, row)
	if null && j.nulls == nil {
		return nil // equals nothing: no probe row will ask for it
	}
	i := int32(t.rows.Append(in, row))
	t.next = append(t.next, noRow)
	if j.nulls != nil {
		j.nulls.add(j.env, j.keys.build, in, row, i, null)
	}
	if !null {
		t.add(j.key, i)
	}
	return nil
}
