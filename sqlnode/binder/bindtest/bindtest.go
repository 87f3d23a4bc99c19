// Package bindtest makes schemas for the tests of binder and optimizer out of CREATE TABLE text, without storage.
package bindtest

import (
	"fmt"
	"strings"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/sqlnode/catalog"
	"github.com/cairndb/cairn/sqlnode/parse"
	"github.com/pingcap/tidb/pkg/parser/ast"
)

// Snapshot builds a schema with one database "test" from CREATE TABLE statements. Only what the tests use is understood: columns, NOT NULL,
// DEFAULT literals, AUTO_INCREMENT, primary keys, unique and plain indexes.
func Snapshot(ddl string) (*catalog.Snapshot, error) {
	stmts, err := parse.New().Parse(ddl, 0, charset.Default)
	if err != nil {
		return nil, err
	}
	b := catalog.NewBuilder(1).AddDatabase(&catalog.Database{ID: 1, Name: "test", Collation: charset.Default})
	for i, s := range stmts {
		c, ok := s.(*ast.CreateTableStmt)
		if !ok {
			return nil, fmt.Errorf("bindtest: %T is not CREATE TABLE", s)
		}
		t, err := table(c, int64(100+i))
		if err != nil {
			return nil, err
		}
		b.AddTable(t)
	}
	return b.Build(), nil
}

func table(c *ast.CreateTableStmt, id int64) (*catalog.Table, error) {
	t := &catalog.Table{ID: id, DB: "test", Name: c.Table.Name.O, Epoch: 1, Collation: charset.Default, Engine: "InnoDB"}
	for i, d := range c.Cols {
		col := &catalog.Column{ID: int64(i + 1), Name: d.Name.Name.O, Offset: i, Type: columnType(d)}
		for _, o := range d.Options {
			switch o.Tp {
			case ast.ColumnOptionNotNull:
				col.Type.Flags |= types.FlagNotNull
			case ast.ColumnOptionAutoIncrement:
				col.AutoIncrement = true
			case ast.ColumnOptionPrimaryKey:
				col.Type.Flags |= types.FlagNotNull
				t.PK = &catalog.Index{ID: 1, Name: "PRIMARY", Unique: true, Primary: true, Columns: []catalog.IndexColumn{{Offset: i, Length: -1}}}
			case ast.ColumnOptionUniqKey:
				t.Indexes = append(t.Indexes, &catalog.Index{ID: int64(10 + len(t.Indexes)), Name: col.Name, Unique: true, Columns: []catalog.IndexColumn{{Offset: i, Length: -1}}})
			case ast.ColumnOptionDefaultValue:
				if l, ok := o.Expr.(*parse.Literal); ok {
					col.Default, col.HasDefault = &catalog.Default{Value: l.Value}, true
				} else {
					col.Default, col.HasDefault = &catalog.Default{Now: true}, true
				}
			}
		}
		t.Columns = append(t.Columns, col)
	}
	for _, k := range c.Constraints {
		if err := key(t, k); err != nil {
			return nil, err
		}
	}
	if t.PK != nil {
		for _, ic := range t.PK.Columns {
			t.Columns[ic.Offset].Type.Flags |= types.FlagNotNull
		}
		t.Indexes = append([]*catalog.Index{t.PK}, t.Indexes...)
	}
	return t, nil
}

func key(t *catalog.Table, k *ast.Constraint) error {
	ix := &catalog.Index{ID: int64(10 + len(t.Indexes)), Name: k.Name}
	switch k.Tp {
	case ast.ConstraintPrimaryKey:
		ix.Name, ix.Primary, ix.Unique = "PRIMARY", true, true
		t.PK = ix
	case ast.ConstraintUniq, ast.ConstraintUniqKey, ast.ConstraintUniqIndex:
		ix.Unique = true
		t.Indexes = append(t.Indexes, ix)
	case ast.ConstraintKey, ast.ConstraintIndex:
		t.Indexes = append(t.Indexes, ix)
	default:
		return fmt.Errorf("bindtest: constraint %d", k.Tp)
	}
	for _, p := range k.Keys {
		ic := catalog.IndexColumn{Offset: -1, Length: p.Length}
		if ic.Length <= 0 {
			ic.Length = -1
		}
		for i, c := range t.Columns {
			if strings.EqualFold(c.Name, p.Column.Name.O) {
				ic.Offset = i
			}
		}
		if ic.Offset < 0 {
			return fmt.Errorf("bindtest: no column %s", p.Column.Name.O)
		}
		ix.Columns = append(ix.Columns, ic)
	}
	if ix.Name == "" {
		ix.Name = t.Columns[ix.Columns[0].Offset].Name
	}
	return nil
}

func columnType(d *ast.ColumnDef) types.Type {
	ft := d.Tp
	t := types.Type{Tp: ft.GetType(), Flags: uint32(ft.GetFlag()), Flen: int32(ft.GetFlen()), Decimal: int32(ft.GetDecimal()), Elems: ft.GetElems(), Collation: charset.Binary}
	switch t.Tp {
	case types.TypeNewDecimal:
		if t.Flen <= 0 {
			t.Flen = 10
		}
		t.Decimal = max(t.Decimal, 0)
	case types.TypeDatetime, types.TypeTimestamp, types.TypeDuration, types.TypeDate:
		t.Decimal = max(t.Decimal, 0)
	case types.TypeVarchar, types.TypeString, types.TypeVarString, types.TypeBlob, types.TypeTinyBlob, types.TypeMediumBlob, types.TypeLongBlob, types.TypeEnum, types.TypeSet:
		if ft.GetCharset() != "binary" {
			t.Collation = charset.Default
			t.Flags &^= types.FlagBinary
		}
		for _, o := range d.Options {
			if o.Tp == ast.ColumnOptionCollate {
				if c, ok := charset.Lookup(o.StrValue); ok {
					t.Collation = c.ID
				}
			}
		}
	}
	return t
}
