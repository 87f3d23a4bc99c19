package ddl

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pingcap/tidb/pkg/parser/ast"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/sqlnode/catalog"
)

// Limits of an index, as InnoDB has them.
const (
	maxKeyBytes = 3072
	maxKeyParts = 16
)

const primaryName = "PRIMARY"

// defineKeys adds the keys of a CREATE TABLE, in the order MySQL lists them: PRIMARY, unique without NULL, other unique,
// the rest.
func defineKeys(c *Context, t *catalog.Table, constraints []*ast.Constraint) error {
	var list []*catalog.Index
	for _, con := range constraints {
		ix, err := defineKey(c, t, con, list)
		if err != nil {
			return err
		}
		list = append(list, ix)
	}
	if len(list) > maxIndexes {
		return sqlerr.New(sqlerr.ErrTooManyKeys, maxIndexes)
	}
	slices.SortStableFunc(list, func(a, b *catalog.Index) int { return keyRank(t, a) - keyRank(t, b) })
	for _, ix := range list {
		t.MaxIndexID++
		ix.ID = t.MaxIndexID
		t.AddIndex(ix)
	}
	return nil
}

// keyRank orders keys as MySQL lists them.
func keyRank(t *catalog.Table, ix *catalog.Index) int {
	switch {
	case ix.Primary:
		return 0
	case !ix.Unique:
		return 3
	}
	for _, ic := range ix.Columns {
		if !t.Columns[ic.Offset].NotNull() {
			return 2
		}
	}
	return 1
}

// sortIndexes brings the indexes of an edited table into MySQL's order.
func sortIndexes(t *catalog.Table) {
	byRank := func(a, b *catalog.Index) int { return keyRank(t, a) - keyRank(t, b) }
	slices.SortStableFunc(t.WriteIndexes, byRank)
	slices.SortStableFunc(t.Indexes, byRank)
}

// defineKey makes one index; others are those defined before it.
func defineKey(c *Context, t *catalog.Table, con *ast.Constraint, others []*catalog.Index) (*catalog.Index, error) {
	ix := &catalog.Index{Name: con.Name}
	switch con.Tp {
	case ast.ConstraintPrimaryKey:
		ix.Primary, ix.Unique, ix.Name = true, true, primaryName
	case ast.ConstraintUniq, ast.ConstraintUniqKey, ast.ConstraintUniqIndex:
		ix.Unique = true
	case ast.ConstraintKey, ast.ConstraintIndex:
	case ast.ConstraintForeignKey:
		return nil, unsupported("FOREIGN KEY")
	case ast.ConstraintCheck:
		return nil, unsupported("CHECK constraints")
	case ast.ConstraintFulltext:
		return nil, unsupported("FULLTEXT")
	default:
		return nil, unsupported("this kind of index")
	}
	if err := indexOptions(ix, con.Option); err != nil {
		return nil, err
	}
	if err := keyColumns(c, t, ix, con.Keys); err != nil {
		return nil, err
	}
	return ix, nameKey(t, ix, others)
}

func indexOptions(ix *catalog.Index, o *ast.IndexOption) error {
	if o == nil {
		return nil
	}
	switch {
	case o.Condition != nil:
		return unsupported("partial indexes")
	case o.Global:
		return unsupported("GLOBAL indexes")
	case o.ParserName.O != "":
		return unsupported("WITH PARSER")
	case o.Tp != ast.IndexTypeInvalid && o.Tp != ast.IndexTypeBtree && o.Tp != ast.IndexTypeHash:
		return unsupported("this kind of index")
	}
	ix.Comment = o.Comment
	if charset.RuneLen([]byte(ix.Comment)) > 1024 {
		return sqlerr.Newf(1688, "Comment for index '%s' is too long (max = %d)", ix.Name, 1024)
	}
	if ix.Invisible = o.Visibility == ast.IndexVisibilityInvisible; ix.Invisible && ix.Primary {
		return sqlerr.Newf(3522, "A primary key index cannot be invisible")
	}
	return nil
}

// keyColumns resolves the parts of a key and checks their lengths. Parts of a PRIMARY KEY become NOT NULL.
func keyColumns(c *Context, t *catalog.Table, ix *catalog.Index, parts []*ast.IndexPartSpecification) error {
	if len(parts) > maxKeyParts {
		return sqlerr.New(sqlerr.ErrTooManyKeyParts, maxKeyParts)
	}
	total := 0
	for _, p := range parts {
		if p.Expr != nil {
			return unsupported("functional indexes")
		}
		off := findColumn(t, p.Column.Name.O)
		if off < 0 {
			return sqlerr.New(sqlerr.ErrKeyColumnDoesNotExits, p.Column.Name.O)
		}
		for _, ic := range ix.Columns {
			if ic.Offset == off {
				return sqlerr.New(sqlerr.ErrDupFieldName, p.Column.Name.O)
			}
		}
		col := t.Columns[off]
		length, bytes, err := keyLength(c, col, p.Length)
		if err != nil {
			return err
		}
		if bytes > maxKeyBytes {
			return sqlerr.New(sqlerr.ErrTooLongKey, maxKeyBytes)
		}
		total += bytes
		if ix.Primary {
			if col.Default != nil && !col.Default.Now && col.Default.Value.IsNull() {
				return sqlerr.New(sqlerr.ErrPrimaryCantHaveNull)
			}
			col.Type.Flags |= types.FlagNotNull
			if col.Default == nil && !col.AutoIncrement {
				col.Type.Flags |= types.FlagNoDefaultValue
			}
		}
		ix.Columns = append(ix.Columns, catalog.IndexColumn{Offset: off, Length: length, Desc: p.Desc})
	}
	if total > maxKeyBytes {
		return sqlerr.New(sqlerr.ErrTooLongKey, maxKeyBytes)
	}
	return nil
}

// keyLength checks the prefix length of a key part (0 or less for none) and gives the length to store and the bytes it
// counts.
func keyLength(_ *Context, col *catalog.Column, prefix int) (length, bytes int, err error) {
	typ := col.Type
	if typ.Tp == types.TypeJSON {
		return 0, 0, sqlerr.New(sqlerr.ErrJSONUsedAsKey, col.Name)
	}
	if !typ.IsString() {
		if prefix > 0 {
			return 0, 0, sqlerr.New(sqlerr.ErrWrongSubKey)
		}
		return types.UnspecifiedLength, 8, nil
	}
	width := charset.Get(typ.Collation).Charset.MaxLen
	if prefix <= 0 {
		if typ.IsBlob() {
			return 0, 0, sqlerr.New(sqlerr.ErrBlobKeyWithoutLength, col.Name)
		}
		return types.UnspecifiedLength, int(typ.Flen) * width, nil
	}
	switch {
	case !typ.IsBlob() && prefix > int(typ.Flen):
		return 0, 0, sqlerr.New(sqlerr.ErrWrongSubKey)
	case !typ.IsBlob() && prefix == int(typ.Flen):
		return types.UnspecifiedLength, prefix * width, nil
	}
	return prefix, prefix * width, nil
}

// nameKey checks the name of an index or makes one from its first column: a, a_2, a_3, ...
func nameKey(t *catalog.Table, ix *catalog.Index, others []*catalog.Index) error {
	taken := func(name string) bool {
		for _, o := range append(t.AllIndexes(), others...) {
			if strings.EqualFold(o.Name, name) {
				return true
			}
		}
		return false
	}
	switch {
	case ix.Primary:
		if taken(primaryName) {
			return sqlerr.New(sqlerr.ErrMultiplePriKey)
		}
		return nil
	case ix.Name == "":
		base := t.Columns[ix.Columns[0].Offset].Name
		ix.Name = base
		for n := 2; taken(ix.Name) || strings.EqualFold(ix.Name, primaryName); n++ {
			ix.Name = fmt.Sprintf("%s_%d", base, n)
		}
		return nil
	case strings.EqualFold(ix.Name, primaryName) || strings.HasSuffix(ix.Name, " "):
		return sqlerr.New(sqlerr.ErrWrongNameForIndex, ix.Name)
	case taken(ix.Name):
		return sqlerr.New(sqlerr.ErrDupKeyName, ix.Name)
	}
	return checkLength(ix.Name)
}
