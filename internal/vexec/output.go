package vexec

import (
	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/internal/types"
)

// Output is one expression an operator computes for every row: an input column, a value that is fixed while the operator
// is open, or a program. Make one with ColumnOutput, ValueOutput or ProgramOutput.
type Output struct {
	Type types.Type

	kind outputKind
	col  int
	val  types.Value
	prog *expr.Program
}

type outputKind uint8

const (
	outputProgram outputKind = iota
	outputColumn
	outputValue
)

// ColumnOutput passes input column i on.
func ColumnOutput(i int, t types.Type) Output { return Output{Type: t, kind: outputColumn, col: i} }

// ValueOutput gives every row the same value. Its bytes must stay valid while the operator is used.
func ValueOutput(v types.Value, t types.Type) Output {
	return Output{Type: t, kind: outputValue, val: v}
}

// ProgramOutput evaluates p. A program that merely reads a column is the same as ColumnOutput.
func ProgramOutput(p *expr.Program) Output {
	if i := p.ColumnIndex(); i >= 0 {
		return ColumnOutput(i, p.Type)
	}
	return Output{Type: p.Type, prog: p}
}

// Column returns the input column that o passes on unchanged.
func (o *Output) Column() (i int, ok bool) { return o.col, o.kind == outputColumn }

// Value evaluates o for one row of b. The bytes of the result may alias b or the scratch memory of env.
func (o *Output) Value(env *expr.Env, b *chunk.Batch, row int) types.Value {
	switch o.kind {
	case outputColumn:
		return b.Cols[o.col].Value(row)
	case outputValue:
		return o.val
	}
	return o.prog.Value(env, b, row)
}

// AppendTo evaluates o for one row of b and appends the result to dst.
func (o *Output) AppendTo(env *expr.Env, b *chunk.Batch, row int, dst *chunk.Column) {
	switch o.kind {
	case outputColumn:
		dst.AppendFrom(b.Cols[o.col], row)
	case outputValue:
		dst.AppendValue(o.val)
	default:
		o.prog.AppendTo(env, b, row, dst)
	}
}

// outputTypes returns the types of a list of outputs.
func outputTypes(outs []Output) []types.Type {
	ts := make([]types.Type, len(outs))
	for i := range outs {
		ts[i] = outs[i].Type
	}
	return ts
}

// appendAll evaluates every output for every selected row of in and appends the results to the columns of out.
func appendAll(env *expr.Env, outs []Output, in, out *chunk.Batch) {
	n := in.NumRows()
	for c := range outs {
		o, dst := &outs[c], out.Cols[c]
		if o.kind == outputColumn {
			appendColumn(dst, in, o.col)
			continue
		}
		for i := range n {
			o.AppendTo(env, in, in.Row(i), dst)
		}
	}
	if len(outs) == 0 {
		out.SetLen(n)
	}
}

// appendColumn appends the selected rows of a column of in.
func appendColumn(dst *chunk.Column, in *chunk.Batch, col int) {
	if in.Sel != nil {
		dst.AppendSelected(in.Cols[col], in.Sel)
	} else {
		dst.AppendRange(in.Cols[col], 0, in.Len())
	}
}
