package exec

import (
	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/sqlnode/catalog"
	"github.com/cairndb/cairn/sqlnode/plan"
	"github.com/cairndb/cairn/sqlnode/table"
)

// assigner converts values to column types by the rules of the statement: errors with the name of the column and the
// number of the row when the statement is strict, else the nearest value and a warning.
type assigner struct {
	c    *Context
	conv types.ConvContext
}

// newAssigner prepares for one statement: its environment becomes that of a data change.
func newAssigner(c *Context, ignore bool) assigner {
	env := c.Env
	env.InDML = true
	if ignore {
		env.Strict = false
	}
	return assigner{c: c, conv: types.ConvContext{
		Strict: env.Strict, TimeFlags: timeFlags(env.Mode), Loc: env.Loc, Now: env.Now, Warn: env.Warn,
	}}
}

func timeFlags(m expr.Mode) (f types.TimeFlags) {
	if m&expr.ModeNoZeroDate != 0 {
		f |= types.NoZeroDate
	}
	if m&expr.ModeNoZeroInDate != 0 {
		f |= types.NoZeroInDate
	}
	if m&expr.ModeAllowInvalidDates != 0 {
		f |= types.AllowInvalidDates
	}
	return f
}

// assign converts v, of type from, to the type of column col. NULL in a NOT NULL column is error 1048, or, when implicit
// says so, the column's zero value and a warning.
func (a *assigner) assign(col *catalog.Column, v types.Value, from types.Type, row int, implicit bool) (types.Value, error) {
	if v.IsNull() {
		return a.null(col, implicit)
	}
	a.conv.Column, a.conv.Row = col.Name, row
	return types.Convert(&a.conv, v, from, col.Type)
}

func (a *assigner) null(col *catalog.Column, implicit bool) (types.Value, error) {
	if !col.NotNull() {
		return types.Null(), nil
	}
	err := sqlerr.New(sqlerr.ErrBadNull, col.Name)
	if !implicit {
		return types.Null(), err
	}
	a.warn(err)
	return table.ZeroValue(col), nil
}

func (a *assigner) warn(err *sqlerr.Error) {
	if a.c.Env.Warn != nil {
		a.c.Env.Warn(err.Warning(sqlerr.WarningLevel))
	}
}

// defaultOf returns the default of a column. A column without one is error 1364 in strict mode, else its zero value and a
// warning.
func (a *assigner) defaultOf(col *catalog.Column) (types.Value, error) {
	v, err := table.DefaultValue(col, a.c.Env.Now)
	if err == nil {
		return v, nil
	}
	if col.Type.Tp == types.TypeEnum {
		return table.ZeroValue(col), nil // the first member is the default of an ENUM that cannot be NULL
	}
	e, ok := sqlerr.As(err)
	if !ok || e.Code != sqlerr.ErrNoDefaultForField || a.conv.Strict {
		return v, err
	}
	a.warn(e)
	return table.ZeroValue(col), nil
}

// setRow makes the one-row batch b hold the values from column first on.
func setRow(b *chunk.Batch, first int, values []types.Value) {
	for i, v := range values {
		setCell(b, first+i, v)
	}
}

// setCell replaces the value of one column of a one-row batch.
func setCell(b *chunk.Batch, col int, v types.Value) {
	b.Cols[col].Reset()
	b.Cols[col].AppendValue(v)
}

// assignAll carries out assignments to a row, left to right. b is a one-row batch whose columns from first on are the row;
// later assignments see earlier ones. row is changed too; old is what it was. It reports whether the row is another one now.
func (a *assigner) assignAll(t *catalog.Table, sets []plan.Assignment, b *chunk.Batch, first int, old, row []types.Value, number int, implicitNull bool) (changed bool, err error) {
	for i := range sets {
		col := t.Columns[sets[i].Column]
		var v types.Value
		if sets[i].Value.IsZero() {
			v, err = a.defaultOf(col)
		} else {
			v = sets[i].Value.Value(a.c.Env, b, 0)
			if a.c.Env.Err != nil {
				return false, a.c.Env.Err
			}
			v, err = a.assign(col, v, sets[i].Value.Expr.Type(), number, implicitNull)
		}
		if err != nil {
			return false, err
		}
		v = v.Clone()
		row[col.Offset] = v
		setCell(b, first+col.Offset, v)
	}
	return !sameRow(old, row), nil
}

func sameRow(a, b []types.Value) bool {
	for i := range a {
		if !sameValue(a[i], b[i]) {
			return false
		}
	}
	return true
}

// sameValue reports whether two values of one column are stored the same way: a change of letter case is a change.
func sameValue(a, b types.Value) bool {
	if a.IsNull() || b.IsNull() {
		return a.IsNull() && b.IsNull()
	}
	switch a.Kind() {
	case types.KindString, types.KindJSON:
		return string(a.Bytes()) == string(b.Bytes())
	case types.KindDecimal:
		return a.Decimal().Cmp(b.Decimal()) == 0
	}
	return a.Lane() == b.Lane()
}

// touchOnUpdate sets the ON UPDATE CURRENT_TIMESTAMP columns of a changed row that no assignment names.
func (a *assigner) touchOnUpdate(t *catalog.Table, sets []plan.Assignment, row []types.Value) {
	for _, col := range t.Columns {
		if !col.OnUpdateNow || assigns(sets, col.Offset) {
			continue
		}
		row[col.Offset] = table.Now(col, a.c.Env.Now)
	}
}

func assigns(sets []plan.Assignment, offset int) bool {
	for i := range sets {
		if sets[i].Column == offset {
			return true
		}
	}
	return false
}
