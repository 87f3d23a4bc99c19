package session

import (
	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/sqlnode/plan"
)

// ResultWriter receives what statements produce, in this order for each
// statement: either Columns, Rows any number of times, Done; or Done alone. An
// error of a method means the client is gone. A statement that fails calls
// nothing more.
type ResultWriter interface {
	Columns(cols []plan.OutputColumn) error
	// Rows passes the selected rows of b, which stay valid only during the call.
	Rows(b *chunk.Batch) error
	Done(Done) error
}

// Done says how a statement ended.
type Done struct {
	Affected uint64
	InsertID uint64
	Info     string // "Rows matched: ...", empty for most statements
	Warnings int
	Status   uint16
}

// rowSet is a small result made by the session itself.
type rowSet struct {
	cols []plan.OutputColumn
	rows [][]types.Value
}

// newRowSet makes a result of string columns with the given names; other types
// are given by typed.
func newRowSet(names ...string) *rowSet {
	r := &rowSet{}
	for _, n := range names {
		r.cols = append(r.cols, plan.OutputColumn{Name: n, Type: types.NewString(256, 255)})
	}
	return r
}

func (r *rowSet) add(vals ...types.Value) { r.rows = append(r.rows, vals) }

// addText adds a row of strings.
func (r *rowSet) addText(vals ...string) {
	row := make([]types.Value, len(vals))
	for i, v := range vals {
		row[i] = types.String(v)
	}
	r.rows = append(r.rows, row)
}

// send writes the result set but for its end.
func (r *rowSet) send(w ResultWriter) error {
	if err := w.Columns(r.cols); err != nil {
		return err
	}
	typs := make([]types.Type, len(r.cols))
	for i := range r.cols {
		typs[i] = r.cols[i].Type
	}
	b := chunk.NewBatch(typs, min(len(r.rows), chunk.MaxRows))
	for _, row := range r.rows {
		b.AppendRow(row...)
		if b.NumRows() == chunk.MaxRows {
			if err := w.Rows(b); err != nil {
				return err
			}
			b.Reset()
		}
	}
	if b.NumRows() == 0 {
		return nil
	}
	return w.Rows(b)
}
