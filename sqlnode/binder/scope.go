package binder

import (
	"strings"

	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/sqlnode/catalog"
	"github.com/cairndb/cairn/sqlnode/plan"
	"github.com/pingcap/tidb/pkg/parser/ast"
)

// source is one table reference of a FROM clause: a stored table or a derived one.
type source struct {
	db    string // "" for derived tables and aliases of them
	name  string // alias or table name
	scan  *Scan  // nil for derived tables
	cols  []sourceCol
	first ColID // stored tables: id of column 0
}

// sourceCol is a column of a derived table.
type sourceCol struct {
	name string
	id   ColID
	typ  types.Type
	out  plan.OutputColumn
}

// merged is a column merged by USING or NATURAL JOIN: unqualified references mean expr, and `*` shows it once, first.
type merged struct {
	name string
	expr expr.Expr
	out  plan.OutputColumn
	ids  []ColID // the columns it stands for
}

// scope is what names mean at one place of a query block.
type scope struct {
	sources []*source
	merged  []merged
	// nullable marks sources on the inner side of an outer join: their columns lose NOT NULL.
	nullable map[*source]bool
	parent   *scope // enclosing query block: found there = correlated
}

func (s *scope) hidden(id ColID) bool {
	for i := range s.merged {
		for _, m := range s.merged[i].ids {
			if m == id {
				return true
			}
		}
	}
	return false
}

// hit is the result of a column lookup.
type hit struct {
	src   *source
	off   int
	count int
}

// find looks a column up among the sources. Table names are case-sensitive, column names not. db and table may be "".
func (s *scope) find(db, table, name string) hit {
	var h hit
	for _, src := range s.sources {
		if table != "" && src.name != table {
			continue
		}
		if db != "" && src.db != db {
			continue
		}
		off := src.offset(name)
		if off < 0 {
			continue
		}
		if table == "" && len(s.merged) > 0 && s.hidden(src.id(off)) {
			continue
		}
		h.src, h.off = src, off
		h.count++
	}
	return h
}

func (s *source) offset(name string) int {
	if s.scan != nil {
		return columnOffset(s.scan.Table, name)
	}
	for i := range s.cols {
		if strings.EqualFold(s.cols[i].name, name) {
			return i
		}
	}
	return -1
}

// columnOffset finds a public column by name; -1 when there is none.
func columnOffset(t *catalog.Table, name string) int {
	for i, c := range t.Columns {
		if len(c.Name) == len(name) && strings.EqualFold(c.Name, name) {
			return i
		}
	}
	return -1
}

func (s *source) id(off int) ColID {
	if s.scan != nil {
		return s.first + off
	}
	return s.cols[off].id
}

func (s *source) len() int {
	if s.scan != nil {
		return len(s.scan.Table.Columns)
	}
	return len(s.cols)
}

// output describes column off for clients.
func (s *source) output(off int) plan.OutputColumn {
	if s.scan != nil {
		c := s.scan.Table.Columns[off]
		return plan.OutputColumn{Name: c.Name, OrigName: c.Name, Table: s.name, OrigTable: s.scan.Table.Name, DB: s.db, Type: c.Type}
	}
	o := s.cols[off].out
	o.Name, o.Table, o.Type = s.cols[off].name, s.name, s.cols[off].typ
	return o
}

// column makes the reference expression of column off.
func (s *source) column(off int, nullable bool) *expr.Column {
	var c *expr.Column
	if s.scan != nil {
		tc := s.scan.Table.Columns[off]
		c = &expr.Column{Index: s.first + off, Name: s.name + "." + tc.Name, Typ: tc.Type}
	} else {
		c = &expr.Column{Index: s.cols[off].id, Name: s.name + "." + s.cols[off].name, Typ: s.cols[off].typ}
	}
	if nullable {
		c.Typ.Flags &^= types.FlagNotNull
	}
	return c
}

// resolved is a name bound to an expression, with its description when it is a plain column.
type resolved struct {
	expr expr.Expr
	out  plan.OutputColumn
}

// resolve binds a column name in this scope only. ok is false when the name is not known here.
func (s *scope) resolve(n *ast.ColumnName, clause string) (r resolved, ok bool, err error) {
	if n.Table.O == "" {
		for i := range s.merged {
			if strings.EqualFold(s.merged[i].name, n.Name.O) {
				return resolved{expr: s.merged[i].expr, out: s.merged[i].out}, true, nil
			}
		}
	}
	h := s.find(n.Schema.O, n.Table.O, n.Name.O)
	switch {
	case h.count == 0:
		return resolved{}, false, nil
	case h.count > 1:
		return resolved{}, false, sqlerr.New(sqlerr.ErrNonUniq, columnText(n), clause)
	}
	nullable := s.nullable[h.src]
	out := h.src.output(h.off)
	if nullable {
		out.Type.Flags &^= types.FlagNotNull
	}
	return resolved{expr: h.src.column(h.off, nullable), out: out}, true, nil
}

// columnText is a column name as errors print it.
func columnText(n *ast.ColumnName) string {
	t := n.Name.O
	if n.Table.O != "" {
		t = n.Table.O + "." + t
	}
	if n.Schema.O != "" {
		t = n.Schema.O + "." + t
	}
	return t
}
