package sqlnode

import (
	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/sqlnode/plan"
	"github.com/cairndb/cairn/sqlnode/session"
	"github.com/cairndb/cairn/sqlnode/wire"
)

// result writes what a session produces to its connection.
type result struct {
	conn    *conn
	bin     bool
	inRows  bool
	types   []types.Type
	defs    []wire.Column
	convert *charset.Charset // character_set_results, nil for none
}

func (r *result) begin(c *conn, bin bool) {
	r.conn, r.bin, r.inRows = c, bin, false
	r.convert = c.sess.Encoding()
}

// Columns implements session.ResultWriter.
func (r *result) Columns(cols []plan.OutputColumn) error {
	r.defs = definitions(r.defs[:0], cols)
	r.types = r.types[:0]
	for i := range cols {
		r.types = append(r.types, cols[i].Type)
	}
	r.inRows = true
	r.conn.wire.WriteColumns(r.defs, r.conn.sess.Status())
	return nil
}

// Rows implements session.ResultWriter.
func (r *result) Rows(b *chunk.Batch) error {
	if r.convert != nil {
		b = r.converted(b)
	}
	return r.conn.wire.WriteRows(b, r.types, r.bin)
}

// Done implements session.ResultWriter.
func (r *result) Done(d session.Done) error {
	if r.inRows {
		r.inRows = false
		r.conn.wire.WriteEnd(d.Status, d.Warnings)
		return nil
	}
	r.conn.wire.WriteOK(wire.OK{Affected: d.Affected, InsertID: d.InsertID, Status: d.Status, Warnings: d.Warnings, Info: d.Info})
	return nil
}

// converted is b with its character columns in the client's character set.
func (r *result) converted(b *chunk.Batch) *chunk.Batch {
	out := chunk.NewBatch(r.types, b.NumRows())
	var buf []byte
	for i := range b.NumRows() {
		row := b.Row(i)
		for j, col := range b.Cols {
			if col.IsNull(row) || !r.types[j].IsCharacter() {
				out.Cols[j].AppendFrom(col, row)
				continue
			}
			buf, _ = r.convert.FromUTF8(buf[:0], col.Bytes(row))
			out.Cols[j].AppendBytes(buf)
		}
	}
	out.SetLen(b.NumRows())
	return out
}

// definitions appends the protocol's description of cols to dst.
func definitions(dst []wire.Column, cols []plan.OutputColumn) []wire.Column {
	for i := range cols {
		o := &cols[i]
		c := wire.Column{Schema: o.DB, Table: o.Table, OrgTable: o.OrigTable, Name: o.Name, OrgName: o.OrigName}
		c.Type, c.Length, c.Flags, c.Decimals, c.Charset = wire.Definition(o.Type)
		dst = append(dst, c)
	}
	return dst
}
