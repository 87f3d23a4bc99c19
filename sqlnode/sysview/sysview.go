// Package sysview computes the tables of information_schema and the texts and
// rows of the SHOW statements about schema objects. Clients parse these texts
// and rely on column order: both follow MySQL 8.0 to the letter.
//
// A view is a list of columns and a function that makes its rows from a
// Source. Nothing is stored.
//
// Source of names and order: MySQL 8.0 reference manual, "INFORMATION_SCHEMA
// Tables".
package sysview

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/sqlnode/catalog"
)

// Source is what views are computed from, for one statement.
type Source struct {
	Snapshot *catalog.Snapshot
	// Visible says whether the account may know of a database (table empty) or table.
	Visible func(db, table string) bool
	// NextAutoID is the AUTO_INCREMENT value a table gives out next.
	NextAutoID func(ctx context.Context, t *catalog.Table) (int64, error)
	// Regions and Stores make the rows of CAIRN_REGIONS and CAIRN_STORES: the values of
	// regionColumns and storeColumns. Nil: there are none.
	Regions, Stores func(ctx context.Context, add func(...types.Value) error) error
	// Live makes the rows of views of what goes on, by their names. None: no rows.
	Live      map[string]func(ctx context.Context, add func(...types.Value) error) error
	Processes []Process
	Grants    []Grant
	// WantDB and WantTable say which databases and tables the statement asks
	// for; nil means all. They save work and may say yes too often.
	WantDB, WantTable func(name string) bool
}

// Process is a row of PROCESSLIST.
type Process struct {
	ID                   uint64
	User, Host, DB       string
	Command, State, Info string
	Seconds              int64
	HasDB, HasInfo       bool
}

// Grant is one privilege of an account, for the privilege views. DB and Table
// are empty for wider levels.
type Grant struct {
	Grantee, DB, Table, Privilege string
	Grantable                     bool
}

// view is the definition of one virtual table.
type view struct {
	name string
	// cols are "NAME type" separated by commas; see columnType.
	cols string
	rows func(ctx context.Context, s *Source, add func(...types.Value) error) error
}

// none is the row function of views of things this server does not have.
func none(context.Context, *Source, func(...types.Value) error) error { return nil }

// idBase keeps the ids of virtual tables away from those of stored ones.
const idBase = -1 << 40

// Tables returns the virtual tables for the catalog.
func Tables() []*catalog.Table {
	var out []*catalog.Table
	for i, v := range informationSchema {
		out = append(out, define(catalog.InformationSchema, v, int64(idBase+i)))
	}
	for i, v := range mysqlSchema {
		out = append(out, define(catalog.MySQL, v, int64(idBase+1000+i)))
	}
	for i, v := range performanceSchema {
		out = append(out, define(catalog.PerformanceSchema, v, int64(idBase+2000+i)))
	}
	return out
}

func define(db string, v view, id int64) *catalog.Table {
	t := &catalog.Table{ID: id, DB: db, Name: v.name, Collation: charset.UTF8MB3General, Virtual: true, Engine: ""}
	for i, spec := range strings.Split(v.cols, ",") {
		name, typ, _ := strings.Cut(strings.TrimSpace(spec), " ")
		t.Columns = append(t.Columns, &catalog.Column{ID: int64(i + 1), Name: name, Offset: i, Type: columnType(typ)})
	}
	return t
}

// columnType reads v64 (VARCHAR), t (LONGTEXT), i and u (BIGINT), d (DATETIME), D (DATETIME(6)).
func columnType(s string) types.Type {
	switch s[0] {
	case 'v':
		n, err := strconv.Atoi(s[1:])
		if err != nil {
			panic("sysview: column type " + s)
		}
		return types.NewString(n, charset.UTF8MB3General)
	case 't':
		t := types.NewString(1<<32-1, charset.UTF8MB3General)
		t.Tp = types.TypeLongBlob
		t.Flags |= types.FlagBlob
		return t
	case 'i':
		return types.NewInt()
	case 'u':
		return types.NewUint()
	case 'd':
		return types.NewTemporal(types.TypeDatetime, 0)
	case 'D':
		return types.NewTemporal(types.TypeDatetime, 6)
	}
	panic("sysview: column type " + s)
}

// Rows makes the rows of a virtual table, with all its columns in order. The
// row passed to add is reused.
func (s *Source) Rows(ctx context.Context, t *catalog.Table, add func(row []types.Value) error) error {
	v := find(t)
	if v == nil {
		return fmt.Errorf("sysview: no view %s.%s", t.DB, t.Name)
	}
	return v.rows(ctx, s, func(vals ...types.Value) error {
		if len(vals) != len(t.Columns) {
			panic(fmt.Sprintf("sysview: %s has %d columns, row has %d", t.Name, len(t.Columns), len(vals)))
		}
		return add(vals)
	})
}

func find(t *catalog.Table) *view {
	list := informationSchema
	switch t.DB {
	case catalog.MySQL:
		list = mysqlSchema
	case catalog.PerformanceSchema:
		list = performanceSchema
	}
	for i := range list {
		if list[i].name == t.Name {
			return &list[i]
		}
	}
	return nil
}

// eachDB calls f for the databases that are visible and wanted.
func (s *Source) eachDB(f func(*catalog.Database) error) error {
	for _, d := range s.Snapshot.Databases() {
		if !s.Visible(d.Name, "") || (s.WantDB != nil && !s.WantDB(d.Name)) {
			continue
		}
		if err := f(d); err != nil {
			return err
		}
	}
	return nil
}

// eachTable calls f for the tables that are visible and wanted.
func (s *Source) eachTable(f func(*catalog.Table) error) error {
	return s.eachDB(func(d *catalog.Database) error {
		for _, t := range s.Snapshot.Tables(d.Name) {
			if !s.Visible(d.Name, t.Name) || (s.WantTable != nil && !s.WantTable(t.Name)) {
				continue
			}
			if err := f(t); err != nil {
				return err
			}
		}
		return nil
	})
}

// Short names for making rows.
func str(s string) types.Value   { return types.String(s) }
func num(n int64) types.Value    { return types.Int(n) }
func unum(n uint64) types.Value  { return types.Uint(n) }
func null() types.Value          { return types.Null() }
func yes(b bool) types.Value     { return str(yesNo(b)) }
func def() types.Value           { return str("def") }
func moment(u int64) types.Value { return types.TimeVal(types.TimeOf(time.Unix(u, 0).UTC())) }

func yesNo(b bool) string {
	if b {
		return "YES"
	}
	return "NO"
}
