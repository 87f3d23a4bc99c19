package ddl

import (
	"strings"

	"github.com/pingcap/tidb/pkg/parser/ast"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/sqlnode/catalog"
)

// Limits of a table, as MySQL has them.
const (
	maxColumns  = 4096
	maxIndexes  = 64
	maxRowBytes = 65535
)

// define makes a table from its definition. Ids of the table and its database are the caller's to set.
func define(c *Context, name string, inherit charset.ID, s *ast.CreateTableStmt) (*catalog.Table, error) {
	t := &catalog.Table{Name: name, Engine: "InnoDB"}
	coll, err := tableCollation(s.Options, inherit)
	if err != nil {
		return nil, err
	}
	t.Collation = coll
	if err := tableOptions(c, t, s.Options); err != nil {
		return nil, err
	}
	if len(s.Cols) == 0 {
		return nil, sqlerr.New(sqlerr.ErrTableMustHaveColumns)
	}
	if len(s.Cols) > maxColumns {
		return nil, sqlerr.New(sqlerr.ErrTooManyFields)
	}
	var inline []*ast.Constraint
	for _, def := range s.Cols {
		col, keys, err := defineColumn(c, t, def)
		if err != nil {
			return nil, err
		}
		if findColumn(t, col.Name) >= 0 {
			return nil, sqlerr.New(sqlerr.ErrDupFieldName, col.Name)
		}
		t.MaxColumnID++
		col.ID, col.Offset = t.MaxColumnID, len(t.Columns)
		t.Columns = append(t.Columns, col)
		inline = append(inline, keys...)
	}
	if err := defineKeys(c, t, append(inline, s.Constraints...)); err != nil {
		return nil, err
	}
	return t, checkTable(t)
}

// findColumn gives the offset of a column of a table that is being made; -1 if there is none.
func findColumn(t *catalog.Table, name string) int {
	for i, c := range t.Columns {
		if strings.EqualFold(c.Name, name) {
			return i
		}
	}
	return -1
}

// tableCollation reads CHARSET and COLLATE of the table options.
func tableCollation(options []*ast.TableOption, inherit charset.ID) (charset.ID, error) {
	var cs, coll string
	for _, o := range options {
		switch o.Tp {
		case ast.TableOptionCharset:
			if cs = o.StrValue; o.Default || strings.EqualFold(cs, "default") {
				cs = ""
			}
		case ast.TableOptionCollate:
			coll = o.StrValue
		}
	}
	return catalog.ResolveCollation(cs, coll, inherit)
}

// engines are the storage engines of MySQL; all of them are ours here.
var engines = []string{"InnoDB", "MyISAM", "MEMORY", "HEAP", "Aria", "ARCHIVE", "CSV", "MRG_MYISAM"}

// tableOptions applies the options other than the collation. Options that only tune MySQL's storage are accepted; those
// that would change what a table does are refused.
func tableOptions(c *Context, t *catalog.Table, options []*ast.TableOption) error {
	for _, o := range options {
		switch o.Tp {
		case ast.TableOptionEngine:
			if err := checkEngine(c, t, o.StrValue); err != nil {
				return err
			}
		case ast.TableOptionAutoIncrement:
			t.AutoIncOption = int64(min(o.UintValue, 1<<63-1))
		case ast.TableOptionComment:
			if charset.RuneLen([]byte(o.StrValue)) > 2048 {
				return sqlerr.Newf(1628, "Comment for table '%s' is too long (max = %d)", t.Name, 2048)
			}
			t.Comment = o.StrValue
		case ast.TableOptionRowFormat:
			t.RowFormat = rowFormat(o.UintValue)
		case ast.TableOptionEncryption:
			if !strings.EqualFold(o.StrValue, "n") {
				return unsupported("ENCRYPTION")
			}
		case ast.TableOptionNone, ast.TableOptionCharset, ast.TableOptionCollate, ast.TableOptionAvgRowLength,
			ast.TableOptionCheckSum, ast.TableOptionTableCheckSum, ast.TableOptionKeyBlockSize, ast.TableOptionMaxRows, ast.TableOptionMinRows,
			ast.TableOptionDelayKeyWrite, ast.TableOptionStatsPersistent, ast.TableOptionStatsAutoRecalc, ast.TableOptionStatsSamplePages,
			ast.TableOptionPackKeys, ast.TableOptionCompression, ast.TableOptionAutoIdCache, ast.TableOptionPreSplitRegion,
			ast.TableOptionShardRowID, ast.TableOptionInsertMethod, ast.TableOptionStorageMedia, ast.TableOptionNodegroup:
		default:
			return unsupported("this table option")
		}
	}
	return nil
}

func checkEngine(c *Context, t *catalog.Table, name string) error {
	for i, known := range engines {
		if !strings.EqualFold(known, name) {
			continue
		}
		if i > 0 {
			c.warn(sqlerr.Newf(sqlerr.ErrWarnUsingOtherHandler, "Using storage engine %s for table '%s'", engines[0], t.Name))
		}
		return nil
	}
	return sqlerr.New(sqlerr.ErrUnknownStorageEngine, name)
}

func rowFormat(v uint64) string {
	switch v {
	case ast.RowFormatDynamic:
		return "DYNAMIC"
	case ast.RowFormatFixed:
		return "FIXED"
	case ast.RowFormatCompressed:
		return "COMPRESSED"
	case ast.RowFormatRedundant:
		return "REDUNDANT"
	case ast.RowFormatCompact:
		return "COMPACT"
	}
	return ""
}

func checkLength(name string) error {
	if charset.RuneLen([]byte(name)) > maxIdent {
		return sqlerr.New(sqlerr.ErrTooLongIdent, name)
	}
	return nil
}

// columnOptions are the options of one column, collected.
type columnOptions struct {
	notNull, null, primary, unique bool
	def                            ast.ExprNode
	onUpdate                       ast.ExprNode
}

// defineColumn makes a column (without id and offset) and the keys its options declare.
func defineColumn(c *Context, t *catalog.Table, def *ast.ColumnDef) (*catalog.Column, []*ast.Constraint, error) {
	name := def.Name.Name.O
	if name == "" || strings.HasSuffix(name, " ") {
		return nil, nil, sqlerr.New(sqlerr.ErrWrongColumnName, name)
	}
	if err := checkLength(name); err != nil {
		return nil, nil, err
	}
	collate := ""
	for _, o := range def.Options {
		if o.Tp == ast.ColumnOptionCollate {
			collate = o.StrValue
		}
	}
	typ, err := catalog.FieldTypeFromParser(def.Tp, name, collate, t.Collation)
	if err != nil {
		return nil, nil, err
	}
	col := &catalog.Column{Name: name, Type: typ}
	opts, err := readColumnOptions(col, def.Options)
	if err != nil {
		return nil, nil, err
	}
	if opts.primary && opts.null {
		return nil, nil, sqlerr.New(sqlerr.ErrPrimaryCantHaveNull)
	}
	if opts.notNull || opts.primary {
		col.Type.Flags |= types.FlagNotNull
	}
	if err := applyColumnOptions(c, col, &opts); err != nil {
		return nil, nil, err
	}
	return col, inlineKeys(def, &opts), nil
}

// readColumnOptions collects the options and refuses those we do not have.
func readColumnOptions(col *catalog.Column, options []*ast.ColumnOption) (o columnOptions, err error) {
	for _, opt := range options {
		switch opt.Tp {
		case ast.ColumnOptionNotNull:
			o.notNull, o.null = true, false
		case ast.ColumnOptionNull:
			o.notNull, o.null = false, true
		case ast.ColumnOptionDefaultValue:
			o.def = opt.Expr
		case ast.ColumnOptionOnUpdate:
			o.onUpdate = opt.Expr
		case ast.ColumnOptionAutoIncrement:
			col.AutoIncrement = true
			col.Type.Flags |= types.FlagAutoInc
			o.notNull = true
		case ast.ColumnOptionPrimaryKey:
			o.primary = true
		case ast.ColumnOptionUniqKey:
			o.unique = true
		case ast.ColumnOptionComment:
			l, ok := opt.Expr.(ast.ValueExpr)
			if !ok {
				return o, unsupported("this COMMENT")
			}
			if col.Comment = l.GetString(); charset.RuneLen([]byte(col.Comment)) > 1024 {
				return o, sqlerr.Newf(1629, "Comment for field '%s' is too long (max = %d)", col.Name, 1024)
			}
		case ast.ColumnOptionGenerated:
			return o, unsupported("generated columns")
		case ast.ColumnOptionReference:
			return o, unsupported("FOREIGN KEY")
		case ast.ColumnOptionCheck:
			return o, unsupported("CHECK constraints")
		case ast.ColumnOptionFulltext:
			return o, unsupported("FULLTEXT")
		case ast.ColumnOptionAutoRandom:
			return o, unsupported("AUTO_RANDOM")
		case ast.ColumnOptionNoOption, ast.ColumnOptionCollate, ast.ColumnOptionColumnFormat, ast.ColumnOptionStorage:
		default:
			return o, unsupported("this column option")
		}
	}
	return o, nil
}

// applyColumnOptions checks options against the type and computes the default.
func applyColumnOptions(c *Context, col *catalog.Column, o *columnOptions) error {
	if col.AutoIncrement {
		switch {
		case !isNumber(col.Type.Tp):
			return sqlerr.New(sqlerr.ErrWrongFieldSpec, col.Name)
		case o.def != nil:
			return sqlerr.New(sqlerr.ErrInvalidDefault, col.Name)
		}
	}
	if o.onUpdate != nil {
		fsp, isNow := nowCall(o.onUpdate)
		if !isNow || !isMoment(col.Type.Tp) || fsp != col.Type.FSP() {
			return sqlerr.New(sqlerr.ErrInvalidOnUpdate, col.Name)
		}
		col.OnUpdateNow = true
		col.Type.Flags |= types.FlagOnUpdateNow
	}
	if col.Type.Tp == types.TypeTimestamp {
		col.Type.Flags |= types.FlagTimestamp
	}
	if o.def != nil {
		if err := setDefault(c, col, o.def); err != nil {
			return err
		}
	} else if col.NotNull() && !col.AutoIncrement {
		col.Type.Flags |= types.FlagNoDefaultValue
	}
	return nil
}

// isNumber: the types AUTO_INCREMENT is allowed on.
func isNumber(tp byte) bool {
	switch tp {
	case types.TypeTiny, types.TypeShort, types.TypeInt24, types.TypeLong, types.TypeLonglong, types.TypeFloat, types.TypeDouble:
		return true
	}
	return false
}

// isMoment: the types CURRENT_TIMESTAMP is allowed on.
func isMoment(tp byte) bool { return tp == types.TypeDatetime || tp == types.TypeTimestamp }

// inlineKeys turns PRIMARY KEY and UNIQUE of a column into constraints of the table.
func inlineKeys(def *ast.ColumnDef, o *columnOptions) (out []*ast.Constraint) {
	parts := []*ast.IndexPartSpecification{{Column: def.Name, Length: types.UnspecifiedLength}}
	if o.primary {
		out = append(out, &ast.Constraint{Tp: ast.ConstraintPrimaryKey, Keys: parts})
	}
	if o.unique {
		out = append(out, &ast.Constraint{Tp: ast.ConstraintUniq, Keys: parts})
	}
	return out
}

// checkTable checks what concerns the table as a whole: 1075, 1118.
func checkTable(t *catalog.Table) error {
	autos := 0
	for _, c := range t.Columns {
		if !c.AutoIncrement {
			continue
		}
		autos++
		if autos > 1 || !beginsKey(t, c) {
			return sqlerr.New(sqlerr.ErrWrongAutoKey)
		}
	}
	bytes := 0
	for _, c := range t.Columns {
		bytes += rowBytes(c.Type)
	}
	if bytes > maxRowBytes {
		return sqlerr.New(sqlerr.ErrTooBigRowsize, maxRowBytes)
	}
	return nil
}

func beginsKey(t *catalog.Table, c *catalog.Column) bool {
	for _, ix := range t.AllIndexes() {
		if t.Columns[ix.Columns[0].Offset] == c {
			return true
		}
	}
	return false
}

// rowBytes is what a column counts against MySQL's row size; BLOB and TEXT live elsewhere.
func rowBytes(t types.Type) int {
	switch {
	case t.IsBlob() || t.Tp == types.TypeJSON:
		return 12
	case t.IsString():
		return int(t.Flen) * charset.Get(t.Collation).Charset.MaxLen
	}
	return 8
}
