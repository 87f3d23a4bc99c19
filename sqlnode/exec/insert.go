package exec

import (
	"context"

	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/internal/vexec"
	"github.com/cairndb/cairn/sqlnode/catalog"
	"github.com/cairndb/cairn/sqlnode/plan"
	"github.com/cairndb/cairn/sqlnode/table"
)

const (
	// insertChunk is the number of rows whose keys are read together.
	insertChunk = 1024
	// insertChunkBytes is the size of wide rows of a SELECT that are held together. (What is given as VALUES is
	// in memory anyway.)
	insertChunkBytes = 4 << 20
)

// newRow is a row to insert.
type newRow struct {
	values    []types.Value // all columns of the table, in table order
	number    int           // counted from 1, for messages
	generated bool          // its AUTO_INCREMENT value was generated
	source    []types.Value // columns of the SELECT it comes from, when ON DUPLICATE KEY UPDATE may ask for them
	rowID     int64
}

// size is the bytes of its strings.
func (r *newRow) size() (n int) {
	for _, values := range [...][]types.Value{r.values, r.source} {
		for _, v := range values {
			if k := v.Kind(); k == types.KindString || k == types.KindJSON {
				n += len(v.Bytes())
			}
		}
	}
	return n
}

// insert carries out INSERT and REPLACE: a chunk of rows is evaluated and converted, gets its AUTO_INCREMENT values and row
// ids, and is written.
type insert struct {
	c      *Context
	node   *plan.Insert
	source Operator // nil for VALUES
	assign assigner
	writer *table.Writer
	rowDec rowReader

	defaults []types.Value // of the columns that are not named; nil until the first row
	named    []bool
	implicit bool         // NULL in a NOT NULL column becomes its zero value
	building *chunk.Batch // the row under construction, for tuples that refer to it
	number   int
	chunk    []newRow
	maxSeen  int64 // greatest explicit AUTO_INCREMENT value not yet reported to the allocator
	dupRow   *chunk.Batch
	lastUniq *catalog.Index
	finished bool
}

func newInsert(c *Context, n *plan.Insert) (Operator, error) {
	c.writing = true
	op := &insert{
		c: c, node: n, assign: newAssigner(c, n.Ignore), writer: c.writer(n.Table),
		rowDec: rowReader{c: c, table: n.Table}, named: make([]bool, len(n.Table.Columns)),
	}
	for _, off := range n.Columns {
		op.named[off] = true
	}
	// A single row of values with NULL for a NOT NULL column is an error in every mode.
	op.implicit = n.Ignore || !c.Env.Strict && (n.Source != nil || len(n.Tuples) > 1)
	for _, ix := range n.Table.WriteIndexes {
		if ix.Unique {
			op.lastUniq = ix
		}
	}
	if op.lastUniq == nil {
		op.lastUniq = n.Table.PK
	}
	if n.Source != nil {
		var err error
		if op.source, err = Build(c, n.Source); err != nil {
			return nil, err
		}
		if reads(n.Source, n.Table) && !c.Stream {
			op.source = &spool{input: op.source, account: vexec.NewAccount(c.Tracker)}
		}
	}
	return op, nil
}

// reads reports whether a plan reads a table.
func reads(n plan.Node, t *catalog.Table) bool {
	if r := readerOf(n); r != nil && r.Table.ID == t.ID {
		return true
	}
	for _, child := range n.Children() {
		if reads(child, t) {
			return true
		}
	}
	return false
}

// readerOf returns the part of a node that reads a stored table, nil if it reads none.
func readerOf(n plan.Node) *plan.Reader {
	switch n := n.(type) {
	case *plan.PointGet:
		return &n.Reader
	case *plan.BatchPointGet:
		return &n.Reader
	case *plan.TableScan:
		return &n.Reader
	case *plan.IndexScan:
		return &n.Reader
	case *plan.IndexLookup:
		return &n.Reader
	case *plan.IndexJoin:
		return &n.Inner
	}
	return nil
}

// Types implements Operator.
func (op *insert) Types() []types.Type { return nil }

// Open implements Operator.
func (op *insert) Open(ctx context.Context) error {
	if op.source != nil {
		return op.source.Open(ctx)
	}
	return nil
}

// Close implements Operator.
func (op *insert) Close() error {
	if op.source != nil {
		return op.source.Close()
	}
	return nil
}

// Next implements Operator: it does everything.
func (op *insert) Next(ctx context.Context, b *chunk.Batch) error {
	b.Reset()
	if op.finished {
		return nil
	}
	op.finished = true
	var err error
	if op.source != nil {
		err = op.fromSource(ctx)
	} else {
		err = op.fromTuples(ctx)
	}
	if err != nil {
		return err
	}
	if op.maxSeen > 0 {
		err = op.c.Tables.Rebase(ctx, op.node.Table, op.maxSeen)
	}
	return err
}

func (op *insert) fromTuples(ctx context.Context) error {
	for _, tuple := range op.node.Tuples {
		row, err := op.begin()
		if err != nil {
			return err
		}
		if op.node.RowRefs {
			err = op.evaluateRefs(tuple, &row)
		} else {
			err = op.evaluate(tuple, &row)
		}
		if err != nil {
			return err
		}
		if err := op.queue(ctx, row); err != nil {
			return err
		}
	}
	return op.flush(ctx)
}

func (op *insert) fromSource(ctx context.Context) error {
	b := chunk.NewBatch(op.source.Types(), 0)
	ts := op.source.Types()
	held := 0 // bytes of the chunk
	for {
		if err := op.source.Next(ctx, b); err != nil {
			return err
		}
		n := b.NumRows()
		if n == 0 {
			return op.flush(ctx)
		}
		for i := range n {
			row, err := op.begin()
			if err != nil {
				return err
			}
			r := b.Row(i)
			for k, off := range op.node.Columns {
				if err := op.set(&row, off, b.Cols[k].Value(r), ts[k]); err != nil {
					return err
				}
			}
			if len(op.node.OnDup) > 0 {
				row.source = b.AppendValues(nil, r)
				for k := range row.source {
					row.source[k] = row.source[k].Clone()
				}
			}
			held += row.size()
			if err := op.queue(ctx, row); err != nil {
				return err
			}
			if held >= insertChunkBytes {
				if err := op.flush(ctx); err != nil {
					return err
				}
			}
			if len(op.chunk) == 0 {
				held = 0
			}
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
	}
}

// begin starts a row with the defaults of the columns that are not named.
func (op *insert) begin() (newRow, error) {
	t := op.node.Table
	if op.defaults == nil {
		op.defaults = make([]types.Value, len(t.Columns))
		for i, col := range t.Columns {
			if op.named[i] {
				continue
			}
			v, err := op.assign.defaultOf(col)
			if err != nil {
				return newRow{}, err
			}
			op.defaults[i] = v
		}
	}
	op.number++
	row := newRow{values: make([]types.Value, len(t.Columns)), number: op.number}
	copy(row.values, op.defaults)
	return row, nil
}

// set converts a value and puts it into a row, which gets its own copy of bytes.
func (op *insert) set(row *newRow, offset int, v types.Value, from types.Type) error {
	col := op.node.Table.Columns[offset]
	if v.IsNull() && col.AutoIncrement {
		row.values[offset] = v // generated later
		return nil
	}
	v, err := op.assign.assign(col, v, from, row.number, op.implicit)
	if err != nil {
		return err
	}
	row.values[offset] = v.Clone()
	return nil
}

// evaluate computes a tuple that does not refer to its own row.
func (op *insert) evaluate(tuple []plan.Scalar, row *newRow) error {
	env := op.c.Env
	in := oneRow()
	for i, off := range op.node.Columns {
		if err := op.evaluateOne(&tuple[i], off, row, in); err != nil {
			return err
		}
	}
	return env.Err
}

// evaluateRefs computes a tuple whose expressions see the columns assigned before them, and defaults in the others.
func (op *insert) evaluateRefs(tuple []plan.Scalar, row *newRow) error {
	t := op.node.Table
	if op.building == nil {
		op.building = chunk.NewBatch(columnTypes(t), 1)
	}
	for i, col := range t.Columns {
		v := row.values[i]
		if op.named[i] {
			if d, err := table.DefaultValue(col, op.c.Env.Now); err == nil {
				v = d
			} else {
				v = table.ZeroValue(col)
			}
		}
		setCell(op.building, i, v)
	}
	for i, off := range op.node.Columns {
		if err := op.evaluateOne(&tuple[i], off, row, op.building); err != nil {
			return err
		}
		setCell(op.building, off, row.values[off])
	}
	return op.c.Env.Err
}

func (op *insert) evaluateOne(s *plan.Scalar, off int, row *newRow, in *chunk.Batch) error {
	if s.IsZero() {
		v, err := op.assign.defaultOf(op.node.Table.Columns[off])
		row.values[off] = v
		return err
	}
	v := s.Value(op.c.Env, in, 0)
	if op.c.Env.Err != nil {
		return op.c.Env.Err
	}
	return op.set(row, off, v, s.Expr.Type())
}

// columnTypes are the types of a table's columns.
func columnTypes(t *catalog.Table) []types.Type {
	ts := make([]types.Type, len(t.Columns))
	for i, c := range t.Columns {
		ts[i] = c.Type
	}
	return ts
}

// queue adds a row to the chunk and writes the chunk when it is full.
func (op *insert) queue(ctx context.Context, row newRow) error {
	op.chunk = append(op.chunk, row)
	if len(op.chunk) < insertChunk {
		return nil
	}
	return op.flush(ctx)
}

// flush writes the chunk.
func (op *insert) flush(ctx context.Context) error {
	if len(op.chunk) == 0 {
		return nil
	}
	rows := op.chunk
	op.chunk = op.chunk[:0]
	op.c.Info.Records += uint64(len(rows))
	if err := op.assignIDs(ctx, rows); err != nil {
		return err
	}
	return op.write(ctx, rows)
}

// assignIDs gives the rows of a chunk their row ids and AUTO_INCREMENT values.
func (op *insert) assignIDs(ctx context.Context, rows []newRow) error {
	t := op.node.Table
	if t.Handle == catalog.HandleRowID {
		first, err := op.c.Tables.RowID(ctx, t, len(rows))
		if err != nil {
			return err
		}
		for i := range rows {
			rows[i].rowID = first + int64(i)
		}
	}
	if t.AutoInc == nil {
		return nil
	}
	for i := 0; i < len(rows); {
		if !op.generates(rows[i].values[t.AutoInc.Offset]) {
			op.observe(rows[i].values[t.AutoInc.Offset])
			i++
			continue
		}
		n := 1
		for i+n < len(rows) && op.generates(rows[i+n].values[t.AutoInc.Offset]) {
			n++
		}
		if err := op.generate(ctx, rows[i:i+n]); err != nil {
			return err
		}
		i += n
	}
	return nil
}

// generates reports whether an AUTO_INCREMENT value is to be generated.
func (op *insert) generates(v types.Value) bool {
	if v.IsNull() {
		return true
	}
	if op.c.NoAutoValueOnZero {
		return false
	}
	if v.Kind() == types.KindFloat {
		return v.Float() == 0
	}
	return v.Int() == 0
}

// observe remembers an explicit value.
func (op *insert) observe(v types.Value) {
	switch v.Kind() {
	case types.KindInt:
		op.maxSeen = max(op.maxSeen, v.Int())
	case types.KindUint:
		if v.Uint() <= 1<<63-1 {
			op.maxSeen = max(op.maxSeen, v.Int())
		}
	}
	if u := v.Lane(); v.Kind() != types.KindFloat && op.c.Info.GeneratedID == 0 && (v.Kind() == types.KindUint || v.Int() > 0) {
		op.c.Info.LastInsertID = u
	}
}

// generate gives consecutive rows their values. A value beyond the column's range becomes its greatest value, on which the
// second such row collides, as clients expect.
func (op *insert) generate(ctx context.Context, rows []newRow) error {
	t := op.node.Table
	if op.maxSeen > 0 {
		if err := op.c.Tables.Rebase(ctx, t, op.maxSeen); err != nil {
			return err
		}
		op.maxSeen = 0
	}
	step := max(op.c.AutoIncrement, 1)
	first, err := op.c.Tables.AutoID(ctx, t, len(rows), step, max(op.c.AutoOffset, 1))
	if err != nil {
		return err
	}
	col := t.AutoInc
	for i := range rows {
		id := first + int64(i)*step
		rows[i].generated = true
		switch col.Type.Kind() {
		case types.KindFloat:
			rows[i].values[col.Offset] = types.Float(float64(id))
		case types.KindUint:
			_, greatest := types.IntRange(col.Type)
			rows[i].values[col.Offset] = types.Uint(min(uint64(id), greatest))
		default:
			_, greatest := types.IntRange(col.Type)
			rows[i].values[col.Offset] = types.Int(min(id, int64(greatest)))
		}
	}
	return nil
}

// inserted counts a row that was written.
func (op *insert) inserted(row *newRow) {
	op.c.Info.AffectedRows++
	if row.generated && op.c.Info.GeneratedID == 0 {
		id := row.values[op.node.Table.AutoInc.Offset]
		op.c.Info.GeneratedID = id.Lane()
		if id.Kind() == types.KindFloat {
			op.c.Info.GeneratedID = uint64(id.Float())
		}
		op.c.Info.LastInsertID = op.c.Info.GeneratedID
	}
}
