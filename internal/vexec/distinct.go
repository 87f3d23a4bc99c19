package vexec

import (
	"context"

	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/types"
)

// Distinct passes the first row of every group of equal rows, as soon as it sees it. Equality is that of the columns'
// collations; NULL equals NULL.
type Distinct struct {
	input   Operator
	types   []types.Type
	pool    *Pool
	account Account
	table   *KeyTable
	key     []byte
	sel     []uint16
}

// NewDistinct returns a duplicate eliminator over all columns of input.
func NewDistinct(input Operator, mem Memory) *Distinct {
	return &Distinct{input: input, types: input.Types(), pool: mem.Pool, account: NewAccount(mem.Tracker)}
}

// Types implements Operator.
func (d *Distinct) Types() []types.Type { return d.types }

// Open implements Operator.
func (d *Distinct) Open(ctx context.Context) error {
	d.table = d.pool.table()
	return d.input.Open(ctx)
}

// Close implements Operator.
func (d *Distinct) Close() error {
	d.pool.putTable(d.table)
	d.table = nil
	d.account.Release()
	return d.input.Close()
}

// Next implements Operator.
func (d *Distinct) Next(ctx context.Context, b *chunk.Batch) error {
	for {
		if err := d.input.Next(ctx, b); err != nil || b.NumRows() == 0 {
			return err
		}
		d.sel = d.sel[:0]
		for i := range b.NumRows() {
			row := b.Row(i)
			d.key = d.key[:0]
			for c, col := range b.Cols {
				d.key = AppendEqKey(d.key, col, row, d.types[c])
			}
			if _, added := d.table.Insert(d.key); added {
				d.sel = append(d.sel, uint16(row))
			}
		}
		if err := d.account.Resize(d.table.Bytes()); err != nil {
			return err
		}
		if len(d.sel) > 0 {
			if len(d.sel) < b.NumRows() {
				b.Sel = d.sel
			}
			return nil
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
	}
}
