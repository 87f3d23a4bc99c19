package binder

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/sqlnode/binder/bindtest"
	"github.com/cairndb/cairn/sqlnode/catalog"
	"github.com/cairndb/cairn/sqlnode/parse"
)

// TestBind runs testdata: "schema" defines tables, "bind" prints what a client is told about a statement, or its error.
func TestBind(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		var snap *catalog.Snapshot
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "schema":
				s, err := bindtest.Snapshot(d.Input)
				if err != nil {
					d.Fatalf(t, "%v", err)
				}
				snap = s
				return ""
			case "bind":
				ctx := &Context{Snapshot: snap, DB: "test", Env: &expr.Env{}, OnlyFullGroupBy: !d.HasArg("loose"), SysVar: sysVar}
				if d.HasArg("nodb") {
					ctx.DB = ""
				}
				return bindText(ctx, d.Input)
			}
			d.Fatalf(t, "unknown command %s", d.Cmd)
			return ""
		})
	})
}

func sysVar(scope, name string) (types.Value, types.Type, error) {
	if name == "version_comment" {
		return types.String("CairnDB"), types.NewString(7, charset.Default), nil
	}
	return types.Null(), types.NewNull(), sqlerr.New(sqlerr.ErrUnknownSystemVariable, name)
}

func bindText(ctx *Context, sql string) string {
	n, err := parse.New().ParseOne(sql, 0, charset.Default)
	if err != nil {
		return err.Error()
	}
	s, err := Bind(ctx, n)
	if err != nil {
		if e, ok := sqlerr.As(err); ok {
			return fmt.Sprintf("ERROR %d: %s", e.Code, e.Msg)
		}
		return "internal error: " + err.Error()
	}
	var sb strings.Builder
	if s.Query != nil {
		for _, c := range s.Query.Cols {
			null := "null"
			if c.Type.NotNull() {
				null = "not null"
			}
			fmt.Fprintf(&sb, "%q table %q column %q type %d %s\n", c.Name, c.Table, c.OrigName, c.Type.Tp, null)
		}
	}
	for _, p := range s.Privs {
		fmt.Fprintf(&sb, "needs %s on %s.%s\n", p.Priv, p.DB, p.Table)
	}
	fmt.Fprintf(&sb, "params %d, subqueries %d, cacheable %t, tables %t, locks %t\n", s.ParamCount, len(s.Subqueries), s.Cacheable, s.UsesTables, s.ForUpdate)
	return sb.String()
}

// TestDeepNestingIsRefused checks that nesting costs an error, not the process.
func TestDeepNestingIsRefused(t *testing.T) {
	snap, err := bindtest.Snapshot("CREATE TABLE t (a INT)")
	if err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{
		"SELECT " + strings.Repeat("(", 5000) + "1" + strings.Repeat(")", 5000),
		"SELECT " + strings.Repeat("NOT ", 5000) + "1",
		"SELECT 1" + strings.Repeat(" + 1", 20000),
		"SELECT " + strings.Repeat("(SELECT ", 300) + "1" + strings.Repeat(")", 300),
	} {
		n, err := parse.New().ParseOne(sql, 0, charset.Default)
		if err != nil {
			continue // the parser's own limit
		}
		_, _ = Bind(&Context{Snapshot: snap, DB: "test"}, n)
	}
	for _, op := range []string{" OR a = 1", " AND a = 1"} {
		n, err := parse.New().ParseOne("SELECT a FROM t WHERE a = 0"+strings.Repeat(op, 3000), 0, charset.Default)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Bind(&Context{Snapshot: snap, DB: "test"}, n); err != nil {
			t.Errorf("a long chain of%s: %v", op, err)
		}
	}
}
