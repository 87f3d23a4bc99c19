package ddl

import (
	"slices"

	"github.com/pingcap/tidb/pkg/parser/ast"

	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/sqlnode/catalog"
)

// modifyColumn is MODIFY and CHANGE COLUMN as far as stored rows and index entries stay what they are: another name,
// default, comment, or a type that holds every value of the old one in the same bytes. The rest is refused.
func modifyColumn(c *Context, t *catalog.Table, name string, spec *ast.AlterTableSpec) error {
	off := findColumn(t, name)
	if off < 0 {
		return sqlerr.New(sqlerr.ErrBadField, name, t.Name)
	}
	if spec.Position != nil && spec.Position.Tp != ast.ColumnPositionNone && !samePosition(t, off, spec.Position) {
		return unsupported("MODIFY COLUMN with another position")
	}
	old := t.Columns[off]
	col, inline, err := defineColumn(c, t, spec.NewColumns[0])
	if err != nil {
		return err
	}
	if len(inline) > 0 {
		return unsupported("MODIFY COLUMN with a key")
	}
	if other := findColumn(t, col.Name); other >= 0 && other != off {
		return sqlerr.New(sqlerr.ErrDupFieldName, col.Name)
	}
	if inKey(t, t.PK, off) {
		col.Type.Flags |= types.FlagNotNull
	}
	if !widens(old.Type, col.Type) || col.NotNull() && !old.NotNull() || col.AutoIncrement && !old.AutoIncrement {
		return unsupported("this MODIFY COLUMN, which would change stored rows,")
	}
	if t.Handle == catalog.HandleInt && inKey(t, t.PK, off) && col.Type.Tp == types.TypeLonglong && col.Type.Unsigned() {
		return unsupported("MODIFY COLUMN of a PRIMARY KEY to BIGINT UNSIGNED") // it would not be the handle any more
	}
	if err := checkKeyLengths(c, t, off, col); err != nil {
		return err
	}
	col.ID, col.Offset, col.OriginDefault = old.ID, off, old.OriginDefault
	t.Columns[off] = col
	return checkTable(t)
}

// samePosition says whether a column already stands where FIRST or AFTER puts it.
func samePosition(t *catalog.Table, off int, pos *ast.ColumnPosition) bool {
	if pos.Tp == ast.ColumnPositionFirst {
		return off == 0
	}
	return off > 0 && findColumn(t, pos.RelativeColumn.Name.O) == off-1
}

func inKey(t *catalog.Table, ix *catalog.Index, off int) bool {
	return ix != nil && slices.ContainsFunc(ix.Columns, func(ic catalog.IndexColumn) bool { return ic.Offset == off })
}

// checkKeyLengths makes sure that the indexes of the column stay within their limits, and that a column that becomes a
// TEXT is not indexed.
func checkKeyLengths(c *Context, t *catalog.Table, off int, col *catalog.Column) error {
	for _, ix := range t.AllIndexes() {
		for _, ic := range ix.Columns {
			if ic.Offset != off {
				continue
			}
			if col.Type.IsBlob() != t.Columns[off].Type.IsBlob() {
				return unsupported("MODIFY COLUMN of an indexed column to TEXT")
			}
			if _, bytes, err := keyLength(c, col, ic.Length); err != nil || bytes > maxKeyBytes {
				return sqlerr.New(sqlerr.ErrTooLongKey, maxKeyBytes)
			}
		}
	}
	return nil
}

// integerRank orders the signed integer types by size.
var integerRank = map[byte]int{types.TypeTiny: 1, types.TypeShort: 2, types.TypeInt24: 3, types.TypeLong: 4, types.TypeLonglong: 5}

// widens says whether every value of from is a value of to in the same stored form, both in rows and in index keys.
func widens(from, to types.Type) bool {
	const signs = types.FlagUnsigned
	if from.Flags&signs != to.Flags&signs || from.Collation != to.Collation {
		return false
	}
	switch {
	case integerRank[from.Tp] > 0 && integerRank[to.Tp] > 0:
		return integerRank[from.Tp] <= integerRank[to.Tp]
	case from.Tp == types.TypeVarchar && to.Tp == types.TypeVarchar, from.Tp == types.TypeString && to.Tp == types.TypeString:
		// A BINARY column pads its values, so its length is part of the value.
		return from.Flen <= to.Flen && (from.Tp == types.TypeVarchar || from.IsCharacter() || from.Flen == to.Flen)
	case (from.Tp == types.TypeVarchar || from.IsBlob()) && to.IsBlob():
		return int64(from.Flen) <= int64(to.Flen)
	case from.Tp != to.Tp:
		return false
	}
	switch from.Tp {
	case types.TypeNewDecimal:
		return from.Decimal == to.Decimal && from.Flen <= to.Flen
	case types.TypeEnum, types.TypeSet:
		return len(from.Elems) <= len(to.Elems) && slices.Equal(from.Elems, to.Elems[:len(from.Elems)])
	case types.TypeDatetime, types.TypeTimestamp, types.TypeDuration:
		return from.FSP() <= to.FSP()
	case types.TypeBit:
		return from.Flen <= to.Flen
	}
	return from.Flen == to.Flen && from.Decimal == to.Decimal
}
