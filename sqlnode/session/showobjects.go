package session

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/pingcap/tidb/pkg/parser/ast"
	"github.com/pingcap/tidb/pkg/parser/mysql"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/sqlnode/binder"
	"github.com/cairndb/cairn/sqlnode/catalog"
	"github.com/cairndb/cairn/sqlnode/exec"
	"github.com/cairndb/cairn/sqlnode/optimizer"
	"github.com/cairndb/cairn/sqlnode/sysview"
)

// showTable finds the table a SHOW is about: 1046, 1049, 1146.
func (s *Session) showTable(snap *catalog.Snapshot, n *ast.ShowStmt) (*catalog.Table, error) {
	name := n.DBName
	if n.Table.Schema.O != "" {
		name = n.Table.Schema.O
	}
	db, err := s.database(name)
	if err != nil {
		return nil, err
	}
	t := snap.Table(db, n.Table.Name.O)
	if t == nil || !s.engine.Privileges.Visible(s.id.Account, t.DB, t.Name) {
		return nil, sqlerr.New(sqlerr.ErrNoSuchTable, db, n.Table.Name.O)
	}
	return t, nil
}

// showColumns is SHOW COLUMNS and DESCRIBE.
func (s *Session) showColumns(_ context.Context, n *ast.ShowStmt) (*rowSet, error) {
	snap := s.schema()
	defer snap.done()
	t, err := s.showTable(snap.Snapshot, n)
	if err != nil {
		return nil, err
	}
	r := newRowSet("Field", "Type", "Null", "Key", "Default", "Extra")
	if n.Full {
		r = newRowSet("Field", "Type", "Collation", "Null", "Key", "Default", "Extra", "Privileges", "Comment")
	}
	for _, c := range t.Columns {
		if n.Column != nil && !strings.EqualFold(n.Column.Name.O, c.Name) {
			continue
		}
		def, null := types.Null(), "YES"
		if text, _, ok := sysview.DefaultText(c); ok {
			def = types.String(text)
		}
		if c.NotNull() {
			null = "NO"
		}
		row := []types.Value{types.String(c.Name), types.String(sysview.ColumnType(c.Type)), types.String(null),
			types.String(t.KeyRole(c)), def, types.String(sysview.Extra(c))}
		if n.Full {
			coll := types.Null()
			if c.Type.Collation != charset.Binary {
				coll = types.String(charset.Get(c.Type.Collation).Name)
			}
			row = slices.Insert(row, 2, coll)
			row = append(row, types.String("select,insert,update,references"), types.String(c.Comment))
		}
		r.add(row...)
	}
	return r, nil
}

func (s *Session) showIndex(_ context.Context, n *ast.ShowStmt) (*rowSet, error) {
	snap := s.schema()
	defer snap.done()
	t, err := s.showTable(snap.Snapshot, n)
	if err != nil {
		return nil, err
	}
	r := newRowSet("Table", "Non_unique", "Key_name", "Seq_in_index", "Column_name", "Collation", "Cardinality", "Sub_part",
		"Packed", "Null", "Index_type", "Comment", "Index_comment", "Visible", "Expression")
	for _, i := range []int{1, 3, 6, 7} {
		r.cols[i].Type = types.NewInt()
	}
	for _, row := range sysview.IndexRows(t) {
		r.add(row...)
	}
	return r, nil
}

func (s *Session) showTableStatus(ctx context.Context, n *ast.ShowStmt) (*rowSet, error) {
	db, err := s.showDB(n.DBName)
	if err != nil {
		return nil, err
	}
	snap := s.schema()
	defer snap.done()
	src := s.viewSource(snap.Snapshot)
	src.WantDB = func(name string) bool { return name == db }
	r := newRowSet("Name", "Engine", "Version", "Row_format", "Rows", "Avg_row_length", "Data_length", "Max_data_length", "Index_length",
		"Data_free", "Auto_increment", "Create_time", "Update_time", "Check_time", "Collation", "Checksum", "Create_options", "Comment")
	views := snap.Table(catalog.InformationSchema, "TABLES")
	// The columns of information_schema.TABLES that SHOW TABLE STATUS has.
	from := []int{2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20}
	for i, c := range from {
		r.cols[i].Type = views.Columns[c].Type
	}
	err = src.Rows(ctx, views, func(row []types.Value) error {
		out := make([]types.Value, len(from))
		for i, c := range from {
			out[i] = row[c]
		}
		r.add(out...)
		return nil
	})
	return r, err
}

func (s *Session) showCreateTable(ctx context.Context, n *ast.ShowStmt) (*rowSet, error) {
	snap := s.schema()
	defer snap.done()
	t, err := s.showTable(snap.Snapshot, n)
	if err != nil {
		return nil, err
	}
	next := int64(0)
	if t.AutoInc != nil {
		if next, err = s.engine.Counters.Next(ctx, t); err != nil {
			return nil, err
		}
	}
	r := newRowSet("Table", "Create Table")
	r.addText(t.Name, sysview.CreateTable(t, next))
	return r, nil
}

func (s *Session) showCreateDatabase(_ context.Context, n *ast.ShowStmt) (*rowSet, error) {
	name, err := s.showDB(n.DBName)
	if err != nil {
		return nil, err
	}
	snap := s.schema()
	defer snap.done()
	r := newRowSet("Database", "Create Database")
	r.addText(name, sysview.CreateDatabase(snap.Database(name), n.IfNotExists))
	return r, nil
}

// viewSource is what the virtual tables show to this session.
func (s *Session) viewSource(snap *catalog.Snapshot) *sysview.Source {
	p := s.engine.Privileges
	src := &sysview.Source{
		Snapshot:   snap,
		Visible:    func(db, table string) bool { return p.Visible(s.id.Account, db, table) },
		NextAutoID: s.engine.Counters.Next,
	}
	all := p.HasGlobal(s.id.Account, mysql.ProcessPriv)
	src.Regions = s.clusterRows(all, func(ctx context.Context, add func(...types.Value) error) error {
		return s.engine.Cluster.RegionRows(ctx, snap, add)
	})
	src.Stores = s.clusterRows(all, func(ctx context.Context, add func(...types.Value) error) error {
		return s.engine.Cluster.StoreRows(ctx, s.hot.loc, add)
	})
	sessions := s.engine.Sessions()
	if !all {
		sessions = slices.DeleteFunc(sessions, func(i Info) bool { return i.User != s.id.User })
	}
	src.Live = s.liveViews(snap, sessions, all)
	for _, i := range sessions {
		proc := sysview.Process{ID: i.ID, User: i.User, Host: i.Host, DB: i.DB, HasDB: i.DB != "", Command: "Sleep",
			Seconds: int64(time.Since(i.Since).Seconds()), Info: i.Statement, HasInfo: i.Statement != "", State: i.State()}
		if proc.HasInfo {
			proc.Command = "Query"
		}
		src.Processes = append(src.Processes, proc)
	}
	for _, g := range p.List(s.id.Account) {
		src.Grants = append(src.Grants, sysview.Grant{Grantee: g.Grantee, DB: g.DB, Table: g.Table, Privilege: g.Privilege, Grantable: g.Grantable})
	}
	return src
}

// clusterRows guards a view of the whole cluster: error 1227 without PROCESS.
func (s *Session) clusterRows(allowed bool, rows func(context.Context, func(...types.Value) error) error) func(context.Context, func(...types.Value) error) error {
	switch {
	case s.engine.Cluster == nil:
		return nil
	case allowed:
		return rows
	}
	return func(context.Context, func(...types.Value) error) error {
		return sqlerr.New(sqlerr.ErrSpecificAccessDenied, "PROCESS")
	}
}

// memTables lets the executor read virtual tables.
type memTables struct{ s *Session }

// Rows implements exec.MemTables.
func (m memTables) Rows(ctx context.Context, t *catalog.Table, cols []int, lookups []exec.Lookup, add func([]types.Value) error) error {
	out := make([]types.Value, len(cols))
	pick := func(row []types.Value) error {
		for i, c := range cols {
			out[i] = row[c]
		}
		return add(out)
	}
	if r := m.s.shown; r != nil && t.DB == showDatabase {
		for _, row := range r.rows {
			if err := pick(row); err != nil {
				return err
			}
		}
		return nil
	}
	src := m.s.viewSource(m.s.exec.Snapshot)
	for _, l := range lookups {
		switch l.Column {
		case "TABLE_SCHEMA", "SCHEMA_NAME", "CONSTRAINT_SCHEMA", "INDEX_SCHEMA":
			src.WantDB = wanted(l.Values)
		case "TABLE_NAME":
			src.WantTable = wanted(l.Values)
		}
	}
	return src.Rows(ctx, t, pick)
}

// wanted says whether a name is among vals, in any case: the condition itself
// is checked later, under its collation.
func wanted(vals []types.Value) func(string) bool {
	return func(name string) bool {
		return slices.ContainsFunc(vals, func(v types.Value) bool {
			return v.Kind() != types.KindString || strings.EqualFold(string(v.Bytes()), name)
		})
	}
}

// showDatabase and showTableName name the virtual table that SHOW ... WHERE
// runs over.
const (
	showDatabase  = "#show"
	showTableName = "result"
)

// where keeps the rows of r for which cond is true, by running it as a query
// over a virtual table that has the rows of r.
func (s *Session) where(ctx context.Context, r *rowSet, cond ast.ExprNode) error {
	t := &catalog.Table{ID: -1, DB: showDatabase, Name: showTableName, Virtual: true, Collation: charset.UTF8MB4General}
	for i, c := range r.cols {
		typ := c.Type
		if typ.IsCharacter() {
			typ.Collation = charset.UTF8MB4General
		}
		t.Columns = append(t.Columns, &catalog.Column{ID: int64(i + 1), Name: c.Name, Offset: i, Type: typ})
	}
	snap := catalog.NewBuilder(1).AddDatabase(&catalog.Database{ID: -1, Name: showDatabase, System: true}).AddTable(t).Build()
	stmt, err := s.engine.parser.ParseOne(fmt.Sprintf("SELECT * FROM `%s`.`%s`", showDatabase, showTableName), 0, charset.Default)
	if err != nil {
		return err
	}
	stmt.(*ast.SelectStmt).Where = cond
	bc := s.binderContext(ctx, snap)
	bound, err := binder.Bind(bc, stmt)
	if err != nil {
		return err
	}
	st, err := optimizer.Optimize(bc, bound)
	if err != nil {
		return err
	}
	s.shown = r
	defer func() { s.shown = nil }()
	c := s.execContext(ctx, st, nil, snap)
	var kept [][]types.Value
	_, err = s.pull(ctx, c, st, math.MaxUint64, func(b *chunk.Batch) error {
		for i := range b.NumRows() {
			row := b.AppendValues(nil, b.Row(i))
			for j := range row {
				row[j] = row[j].Clone()
			}
			kept = append(kept, row)
		}
		return nil
	})
	r.rows = kept
	return err
}
