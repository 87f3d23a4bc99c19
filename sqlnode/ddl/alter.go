package ddl

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/pingcap/tidb/pkg/parser/ast"

	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/sqlnode/catalog"
	"github.com/cairndb/cairn/sqlnode/table"
)

// alterTable runs the specifications one after the other. A statement with several of them is not atomic: when one
// fails those before it stay. To make that rare, all are checked for being supported before the first one runs.
func (e *Executor) alterTable(ctx context.Context, c *Context, s *ast.AlterTableStmt) error {
	if _, err := existing(c, e.cat.Snapshot(), s.Table); err != nil {
		return err
	}
	for _, spec := range s.Specs {
		if err := supported(spec); err != nil {
			return err
		}
	}
	for _, spec := range s.Specs {
		if err := e.alterOne(ctx, c, s.Table, spec); err != nil {
			return err
		}
		if spec.Tp == ast.AlterTableRenameTable {
			renamed := *s.Table
			renamed.Name = spec.NewTable.Name
			if spec.NewTable.Schema.O != "" {
				renamed.Schema = spec.NewTable.Schema
			}
			s = &ast.AlterTableStmt{Table: &renamed, Specs: s.Specs}
		}
	}
	return nil
}

// refusedSpecs names the specifications we do not have.
var refusedSpecs = map[ast.AlterTableType]string{
	ast.AlterTableDropPrimaryKey: "DROP PRIMARY KEY",
	ast.AlterTableDropForeignKey: "DROP FOREIGN KEY",
	ast.AlterTableOrderByColumns: "ALTER TABLE ... ORDER BY",
	ast.AlterTableAddPartitions:  "PARTITION BY",
	ast.AlterTablePartition:      "PARTITION BY",
}

func supported(spec *ast.AlterTableSpec) error {
	switch spec.Tp {
	case ast.AlterTableOption, ast.AlterTableAddColumns, ast.AlterTableAddConstraint, ast.AlterTableDropColumn, ast.AlterTableDropIndex,
		ast.AlterTableRenameColumn, ast.AlterTableRenameTable, ast.AlterTableRenameIndex, ast.AlterTableAlterColumn, ast.AlterTableLock,
		ast.AlterTableModifyColumn, ast.AlterTableChangeColumn,
		ast.AlterTableAlgorithm, ast.AlterTableForce, ast.AlterTableEnableKeys, ast.AlterTableDisableKeys, ast.AlterTableIndexInvisible:
	default:
		if name, ok := refusedSpecs[spec.Tp]; ok {
			return unsupported(name)
		}
		return unsupported("this kind of ALTER TABLE")
	}
	if spec.Tp == ast.AlterTableAddConstraint {
		switch spec.Constraint.Tp {
		case ast.ConstraintPrimaryKey:
			return unsupported("ADD PRIMARY KEY")
		case ast.ConstraintForeignKey:
			return unsupported("FOREIGN KEY")
		case ast.ConstraintCheck:
			return unsupported("CHECK constraints")
		}
	}
	return nil
}

func (e *Executor) alterOne(ctx context.Context, c *Context, name *ast.TableName, spec *ast.AlterTableSpec) error {
	switch spec.Tp {
	case ast.AlterTableAddConstraint:
		return e.addIndex(ctx, c, name, spec.Constraint)
	case ast.AlterTableDropIndex:
		return e.removeIndex(ctx, c, name, spec.Name, spec.IfExists)
	case ast.AlterTableAddColumns:
		return e.addColumns(ctx, c, name, spec)
	case ast.AlterTableDropColumn:
		return e.dropColumn(ctx, c, name, spec)
	case ast.AlterTableRenameTable:
		return e.rename(ctx, c, []*ast.TableToTable{{OldTable: name, NewTable: spec.NewTable}})
	case ast.AlterTableOption:
		return e.alterOptions(ctx, c, name, spec.Options)
	case ast.AlterTableRenameColumn, ast.AlterTableRenameIndex, ast.AlterTableAlterColumn, ast.AlterTableIndexInvisible,
		ast.AlterTableModifyColumn, ast.AlterTableChangeColumn:
		return e.publish(ctx, func(ch *catalog.Change) error {
			t, err := existing(c, ch.Snapshot, name)
			if err != nil {
				return err
			}
			if err := unowned(t); err != nil {
				return err
			}
			edit := t.Edit()
			if err := editNames(c, edit, spec); err != nil {
				return err
			}
			return ch.PutTable(edit)
		})
	}
	return nil // LOCK, ALGORITHM, FORCE, ENABLE KEYS, DISABLE KEYS change nothing here
}

// editNames makes the changes that touch neither rows nor entries.
func editNames(c *Context, t *catalog.Table, spec *ast.AlterTableSpec) error {
	switch spec.Tp {
	case ast.AlterTableModifyColumn:
		return modifyColumn(c, t, spec.NewColumns[0].Name.Name.O, spec)
	case ast.AlterTableChangeColumn:
		return modifyColumn(c, t, spec.OldColumnName.Name.O, spec)
	case ast.AlterTableRenameColumn:
		return renameColumn(t, spec.OldColumnName.Name.O, spec.NewColumnName.Name.O)
	case ast.AlterTableRenameIndex:
		return renameIndex(t, spec.FromKey.O, spec.ToKey.O)
	case ast.AlterTableIndexInvisible:
		for _, ix := range t.Indexes {
			if strings.EqualFold(ix.Name, spec.IndexName.O) && !ix.Primary {
				ix.Invisible = spec.Visibility == ast.IndexVisibilityInvisible
				return nil
			}
		}
		return sqlerr.New(sqlerr.ErrKeyDoesNotExist, spec.IndexName.O, t.Name)
	}
	return alterDefault(c, t, spec.NewColumns[0])
}

func renameColumn(t *catalog.Table, from, to string) error {
	off := findColumn(t, from)
	if off < 0 {
		return sqlerr.New(sqlerr.ErrBadField, from, t.Name)
	}
	if other := findColumn(t, to); other >= 0 && other != off {
		return sqlerr.New(sqlerr.ErrDupFieldName, to)
	}
	if to == "" || strings.HasSuffix(to, " ") {
		return sqlerr.New(sqlerr.ErrWrongColumnName, to)
	}
	t.Columns[off].Name = to
	return checkLength(to)
}

func renameIndex(t *catalog.Table, from, to string) error {
	var found *catalog.Index
	for _, ix := range t.Indexes {
		switch {
		case strings.EqualFold(ix.Name, from) && !ix.Primary:
			found = ix
		case strings.EqualFold(ix.Name, to):
			return sqlerr.New(sqlerr.ErrDupKeyName, to)
		}
	}
	if found == nil {
		return sqlerr.New(sqlerr.ErrKeyDoesNotExist, from, t.Name)
	}
	if strings.EqualFold(to, primaryName) {
		return sqlerr.New(sqlerr.ErrWrongNameForIndex, to)
	}
	found.Name = to
	return checkLength(to)
}

// alterDefault is ALTER COLUMN ... SET DEFAULT / DROP DEFAULT.
func alterDefault(c *Context, t *catalog.Table, def *ast.ColumnDef) error {
	off := findColumn(t, def.Name.Name.O)
	if off < 0 {
		return sqlerr.New(sqlerr.ErrBadField, def.Name.Name.O, t.Name)
	}
	col := t.Columns[off]
	col.Default = nil
	if len(def.Options) == 0 {
		if col.NotNull() {
			col.Type.Flags |= types.FlagNoDefaultValue
		}
		return nil
	}
	col.Type.Flags &^= types.FlagNoDefaultValue
	return setDefault(c, col, def.Options[0].Expr)
}

// alterOptions changes AUTO_INCREMENT, COMMENT, and the default collation of new columns.
func (e *Executor) alterOptions(ctx context.Context, c *Context, name *ast.TableName, options []*ast.TableOption) error {
	for _, o := range options {
		if o.Tp == ast.TableOptionCharset && o.UintValue == ast.TableOptionCharsetWithConvertTo {
			return unsupported("CONVERT TO CHARACTER SET")
		}
	}
	var changed *catalog.Table
	err := e.publish(ctx, func(ch *catalog.Change) error {
		t, err := existing(c, ch.Snapshot, name)
		if err != nil {
			return err
		}
		if err := unowned(t); err != nil {
			return err
		}
		changed = t.Edit()
		if changed.Collation, err = tableCollation(options, t.Collation); err != nil {
			return err
		}
		if err := tableOptions(c, changed, options); err != nil {
			return err
		}
		return ch.PutTable(changed)
	})
	if err != nil {
		return err
	}
	for _, o := range options {
		if o.Tp == ast.TableOptionAutoIncrement {
			// A value below those in use has no effect, as in MySQL.
			return e.opts.Counters.Rebase(ctx, changed, changed.AutoIncOption-1)
		}
	}
	return nil
}

// errNothing ends a change that turned out to be none (IF EXISTS, IF NOT EXISTS).
var errNothing = errors.New("ddl: nothing to do")

// frozenChange makes a change that writers of the old and the new schema must not overlap in: it freezes the table,
// waits for old writers, and then publishes the change.
func (e *Executor) frozenChange(ctx context.Context, c *Context, name *ast.TableName, check, change func(*catalog.Table) error) error {
	var id int64
	err := e.publishDrained(ctx, func(ch *catalog.Change) error {
		id = 0
		t, err := existing(c, ch.Snapshot, name)
		if err != nil {
			return err
		}
		if err := unowned(t); err != nil {
			return err
		}
		if err := check(t); err != nil {
			return err
		}
		edit := t.Edit()
		edit.Frozen, edit.Owner = true, e.cat.NodeID()
		id = t.ID
		return ch.PutTable(edit)
	})
	if id == 0 {
		if errors.Is(err, errNothing) {
			return nil
		}
		return err
	}
	thaw := func(apply bool) error {
		return e.publish(context.WithoutCancel(ctx), func(ch *catalog.Change) error {
			t := ch.Snapshot.TableByID(id)
			if t == nil {
				return nil
			}
			edit := t.Edit()
			edit.Frozen, edit.Owner = false, ""
			if apply {
				if err := change(edit); err != nil {
					return err
				}
			}
			return ch.PutTable(edit)
		})
	}
	if err == nil {
		err = thaw(true)
	}
	if err != nil {
		return errors.Join(err, thaw(false))
	}
	return nil
}

// addColumns adds columns without touching rows: rows without the column have its origin default. Keys declared with
// the columns are built afterwards.
func (e *Executor) addColumns(ctx context.Context, c *Context, name *ast.TableName, spec *ast.AlterTableSpec) error {
	var inline []*ast.Constraint
	add := func(t *catalog.Table) error {
		inline = inline[:0]
		for _, def := range spec.NewColumns {
			keys, err := addColumn(c, t, def, spec.Position)
			if err != nil {
				return err
			}
			inline = append(inline, keys...)
		}
		return checkTable(t)
	}
	check := func(t *catalog.Table) error {
		if spec.IfNotExists && len(spec.NewColumns) == 1 && findColumn(t, spec.NewColumns[0].Name.Name.O) >= 0 {
			c.note(sqlerr.New(sqlerr.ErrDupFieldName, spec.NewColumns[0].Name.Name.O))
			return errNothing
		}
		return add(t.Edit())
	}
	if err := e.frozenChange(ctx, c, name, check, add); err != nil {
		return err
	}
	for _, con := range append(inline, spec.NewConstraints...) {
		if err := e.addIndex(ctx, c, name, con); err != nil {
			return err
		}
	}
	return nil
}

// addColumn adds one column to an edited table and returns the keys its definition declares.
func addColumn(c *Context, t *catalog.Table, def *ast.ColumnDef, pos *ast.ColumnPosition) (inline []*ast.Constraint, err error) {
	col, inline, err := defineColumn(c, t, def)
	switch {
	case err != nil:
		return nil, err
	case col.AutoIncrement:
		return nil, unsupported("ADD COLUMN with AUTO_INCREMENT")
	case findColumn(t, col.Name) >= 0:
		return nil, sqlerr.New(sqlerr.ErrDupFieldName, col.Name)
	case len(t.Columns) >= maxColumns:
		return nil, sqlerr.New(sqlerr.ErrTooManyFields)
	}
	for _, con := range inline {
		if con.Tp == ast.ConstraintPrimaryKey {
			return nil, unsupported("ADD PRIMARY KEY")
		}
	}
	switch {
	case col.Default != nil && col.Default.Now:
		col.OriginDefault = types.ToStorage(table.Now(col, c.now()), col.Type, c.Loc)
	case col.Default != nil:
		col.OriginDefault = col.Default.Value
	case col.NotNull():
		col.OriginDefault = table.ZeroValue(col)
	}
	at := len(t.Columns)
	if pos != nil {
		switch pos.Tp {
		case ast.ColumnPositionFirst:
			at = 0
		case ast.ColumnPositionAfter:
			after := findColumn(t, pos.RelativeColumn.Name.O)
			if after < 0 {
				return nil, sqlerr.New(sqlerr.ErrBadField, pos.RelativeColumn.Name.O, t.Name)
			}
			at = after + 1
		}
	}
	t.MaxColumnID++
	col.ID = t.MaxColumnID
	t.Columns = slices.Insert(t.Columns, at, col)
	shiftOffsets(t, at, 1)
	return inline, nil
}

// shiftOffsets moves the index columns at and behind an offset after a column was inserted or removed.
func shiftOffsets(t *catalog.Table, from, by int) {
	for _, ix := range t.AllIndexes() {
		for i := range ix.Columns {
			if ix.Columns[i].Offset >= from {
				ix.Columns[i].Offset += by
			}
		}
	}
}

// dropColumn hides a column; its values stay in old rows until they are written again. Indexes of this column alone are
// dropped before; a column that is part of a longer index must be freed of it first.
func (e *Executor) dropColumn(ctx context.Context, c *Context, name *ast.TableName, spec *ast.AlterTableSpec) error {
	column := spec.OldColumnName.Name.O
	if t, err := existing(c, e.cat.Snapshot(), name); err == nil && len(t.Columns) > 1 {
		for _, ix := range t.Indexes {
			if len(ix.Columns) == 1 && !ix.Primary && strings.EqualFold(t.Columns[ix.Columns[0].Offset].Name, column) {
				if err := e.removeIndex(ctx, c, name, ix.Name, true); err != nil {
					return err
				}
			}
		}
	}
	drop := func(t *catalog.Table) error {
		off := findColumn(t, column)
		switch {
		case off < 0:
			return sqlerr.New(sqlerr.ErrCantDropFieldOrKey, column)
		case len(t.Columns) == 1:
			return sqlerr.New(sqlerr.ErrCantRemoveAllFields)
		}
		for _, ix := range t.AllIndexes() {
			for _, ic := range ix.Columns {
				if ic.Offset == off {
					return unsupported("DROP COLUMN of an indexed column")
				}
			}
		}
		t.Columns = slices.Delete(t.Columns, off, off+1)
		shiftOffsets(t, off, -1)
		return nil
	}
	check := func(t *catalog.Table) error {
		if spec.IfExists && findColumn(t, column) < 0 {
			c.note(sqlerr.New(sqlerr.ErrCantDropFieldOrKey, column))
			return errNothing
		}
		return drop(t.Edit())
	}
	return e.frozenChange(ctx, c, name, check, drop)
}
