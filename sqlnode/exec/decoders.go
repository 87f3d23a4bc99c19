package exec

import (
	"github.com/cairndb/cairn/sqlnode/distscan"
	"github.com/cairndb/cairn/sqlnode/plan"
)

// maxDecoders bounds Decoders; a session that runs more plans than this forgets them all and begins anew.
const maxDecoders = 256

// Decoders remembers the row decoders of the plans a session executes, so that a cached plan does not pay for making them
// each time. It belongs to one session. The zero value is ready.
type Decoders struct {
	rows map[*plan.Reader]*distscan.RowDecoder
}

// RowDecoder returns the decoder of a reader's columns in the session's time zone. It is shared by all who ask for the
// same reader of this session, one after the other.
func (c *Context) RowDecoder(r *plan.Reader) *distscan.RowDecoder {
	if c.Decoders == nil {
		return distscan.NewRowDecoder(r.Table, r.Cols, r.RowID, c.Env.Loc)
	}
	rows := c.Decoders.rows
	if d := rows[r]; d != nil {
		in := d.In(c.Env.Loc)
		if in != d {
			rows[r] = in
		}
		return in
	}
	if rows == nil || len(rows) >= maxDecoders {
		rows = make(map[*plan.Reader]*distscan.RowDecoder)
		c.Decoders.rows = rows
	}
	d := distscan.NewRowDecoder(r.Table, r.Cols, r.RowID, c.Env.Loc)
	rows[r] = d
	return d
}
