package vexec

import (
	"bytes"
	"context"

	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/internal/types"
)

// AggregateOptions describes an aggregation.
type AggregateOptions struct {
	// Groups are the grouping expressions; Aggs the aggregates. The output has one column for each, in this order.
	Groups []Output
	Aggs   []*expr.AggProgram
	// Types are the types of the output columns.
	Types []types.Type
	// OneGroup puts all rows into one group, which exists even without rows. Groups must be empty.
	OneGroup bool
	// Ordered promises that rows of a group arrive together. Groups then leave as soon as they are complete and only the
	// current one is held.
	Ordered bool
	Memory  Memory
}

// Aggregate groups rows and computes aggregates of each group. Groups come out in the order of their first row; a group
// shows the values of its first row where equal values differ in bytes.
//
// Sketch: per batch, group keys are encoded and numbered (KeyTable) into an array of group numbers; then every aggregate
// runs over the batch on its own, so that its code and the group numbers stay in cache.
type Aggregate struct {
	env     *expr.Env
	input   Operator
	o       AggregateOptions
	account Account

	groupTypes []types.Type

	table  *KeyTable
	groups *RowStore       // values of the grouping expressions
	states []expr.AggState // of group g: states[g*len(Aggs) : (g+1)*len(Aggs)]

	in      *chunk.Batch
	keyVals *chunk.Batch // grouping expressions of the current batch, when they are not plain columns
	ids     []int32      // group of each counting row
	key     []byte
	lastKey []byte // Ordered: key of the current group
	bytes   int64  // of states, as of the last count
	uncount int    // rows since then

	drained bool // the input has ended
	next    int  // next group to return
}

// NewAggregate returns an aggregation of input.
func NewAggregate(env *expr.Env, input Operator, o AggregateOptions) *Aggregate {
	return &Aggregate{env: env, input: input, o: o, account: NewAccount(o.Memory.Tracker), groupTypes: outputTypes(o.Groups)}
}

// Types implements Operator.
func (a *Aggregate) Types() []types.Type { return a.o.Types }

// Open implements Operator.
func (a *Aggregate) Open(ctx context.Context) error {
	pool := a.o.Memory.Pool
	a.in = pool.Get(a.input.Types(), 0)
	a.groups, a.table = NewRowStore(a.groupTypes, nil), pool.table()
	a.states, a.drained, a.next, a.bytes, a.uncount = nil, false, 0, 0, 0
	a.lastKey = nil
	if a.o.OneGroup {
		a.addGroup()
	}
	return a.input.Open(ctx)
}

// Close implements Operator.
func (a *Aggregate) Close() error {
	pool := a.o.Memory.Pool
	pool.Put(a.input.Types(), a.in)
	pool.putTable(a.table)
	a.in, a.groups, a.states, a.table = nil, nil, nil, nil
	a.account.Release()
	return a.input.Close()
}

// Next implements Operator.
func (a *Aggregate) Next(ctx context.Context, b *chunk.Batch) error {
	b.Reset()
	for !a.drained {
		if a.o.Ordered && a.complete() > chunk.MaxRows {
			break
		}
		if err := a.consume(ctx); err != nil {
			return err
		}
	}
	a.emit(b)
	return a.env.Err
}

// numGroups is the number of groups held.
func (a *Aggregate) numGroups() int {
	if a.o.OneGroup {
		return 1
	}
	return a.groups.Len()
}

// complete is the number of groups that no further row can join.
func (a *Aggregate) complete() int {
	n := a.numGroups()
	if !a.drained && n > 0 {
		n--
	}
	return n - a.next
}

func (a *Aggregate) addGroup() {
	for _, p := range a.o.Aggs {
		a.states = append(a.states, p.NewState())
	}
}

// countEvery is the least number of rows between two counts of the memory the states hold; counting visits all states.
const countEvery = 4096

// charge brings the account up to date.
func (a *Aggregate) charge(rows int) error {
	a.uncount += rows
	if a.uncount >= max(countEvery, len(a.states)) || a.drained {
		a.uncount, a.bytes = 0, 0
		for i := range a.states {
			a.bytes += int64(a.o.Aggs[i%len(a.o.Aggs)].Size(&a.states[i]))
		}
	}
	return a.account.Resize(a.table.Bytes() + a.groups.Bytes() + a.bytes)
}

// consume reads one batch into the groups.
func (a *Aggregate) consume(ctx context.Context) error {
	if err := a.input.Next(ctx, a.in); err != nil {
		return err
	}
	n := a.in.NumRows()
	if n == 0 {
		a.drained = true
		return nil
	}
	a.ids = a.ids[:0]
	if a.o.OneGroup {
		for range n {
			a.ids = append(a.ids, 0)
		}
	} else {
		a.number(n)
	}
	width := len(a.o.Aggs)
	for i, p := range a.o.Aggs {
		for r := range n {
			p.Update(&a.states[int(a.ids[r])*width+i], a.env, a.in, a.in.Row(r))
		}
	}
	if a.env.Err != nil {
		return a.env.Err
	}
	if err := a.charge(n); err != nil {
		return err
	}
	return context.Cause(ctx)
}

// number finds the group of each counting row of the batch.
func (a *Aggregate) number(n int) {
	vals, dense := a.groupValues()
	for i := range n {
		row := i
		if !dense {
			row = a.in.Row(i)
		}
		a.key = a.key[:0]
		for c := range a.o.Groups {
			a.key = AppendEqKey(a.key, vals.Cols[c], row, a.o.Groups[c].Type)
		}
		id, added := a.find()
		if added {
			a.groups.Append(vals, row)
			a.addGroup()
		}
		a.ids = append(a.ids, int32(id))
	}
}

func (a *Aggregate) find() (id int, added bool) {
	if !a.o.Ordered {
		return a.table.Insert(a.key)
	}
	if a.lastKey != nil && bytes.Equal(a.key, a.lastKey) {
		return a.groups.Len() - 1, false
	}
	a.lastKey = append(a.lastKey[:0:cap(a.lastKey)], a.key...)
	if a.lastKey == nil {
		a.lastKey = []byte{}
	}
	return a.groups.Len(), true
}

// groupValues returns the grouping expressions as columns: of the input batch itself when all are plain columns, in
// which case rows are found through the selection, else dense in a batch of its own.
func (a *Aggregate) groupValues() (vals *chunk.Batch, dense bool) {
	if a.keyVals == nil {
		a.keyVals = chunk.NewBatch(a.groupTypes, 0)
	}
	if distinctColumns(a.o.Groups) {
		lent := &chunk.Batch{Cols: make([]*chunk.Column, len(a.o.Groups))}
		for i := range a.o.Groups {
			lent.Cols[i] = a.in.Cols[a.o.Groups[i].col]
		}
		return lent, false
	}
	a.keyVals.Reset()
	appendAll(a.env, a.o.Groups, a.in, a.keyVals)
	return a.keyVals, true
}

// emit moves finished groups to b.
func (a *Aggregate) emit(b *chunk.Batch) {
	n := min(a.complete(), chunk.MaxRows)
	width, keys := len(a.o.Aggs), len(a.o.Groups)
	for range n {
		if keys > 0 {
			a.groups.CopyTo(b, 0, a.next)
		}
		for i, p := range a.o.Aggs {
			b.Cols[keys+i].AppendValue(p.Result(&a.states[a.next*width+i], a.env))
		}
		a.next++
	}
	if a.o.Ordered && !a.drained {
		a.forget()
	}
}

// forget drops the groups that were returned; the current one becomes number 0.
func (a *Aggregate) forget() {
	width := len(a.o.Aggs)
	rest := NewRowStore(a.groupTypes, nil)
	for g := a.next; g < a.groups.Len(); g++ {
		b, row := a.groups.At(g)
		rest.Append(b, row)
	}
	a.states = append(a.states[:0:0], a.states[a.next*width:]...)
	a.groups, a.next = rest, 0
}
