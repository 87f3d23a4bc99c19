package optimizer

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/sqlnode/binder"
	"github.com/cairndb/cairn/sqlnode/binder/bindtest"
	"github.com/cairndb/cairn/sqlnode/catalog"
	"github.com/cairndb/cairn/sqlnode/parse"
	"github.com/cairndb/cairn/sqlnode/plan"
)

// TestPlans runs testdata: "schema" defines tables, "plan" prints the EXPLAIN text of a statement or its error. The parameters of a
// statement have the types of the argument params.
func TestPlans(t *testing.T) {
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
			case "plan":
				ctx := testContext(snap)
				for _, a := range d.CmdArgs {
					if a.Key == "params" {
						for _, v := range a.Vals {
							ctx.ParamTypes = append(ctx.ParamTypes, paramType(v))
						}
					}
				}
				return planText(ctx, d.Input, d.HasArg("columns"))
			}
			d.Fatalf(t, "unknown command %s", d.Cmd)
			return ""
		})
	})
}

func paramType(name string) types.Type {
	switch name {
	case "int":
		return types.NewInt()
	case "uint":
		return types.NewUint()
	case "double":
		return types.NewFloat()
	case "datetime":
		return types.NewTemporal(types.TypeDatetime, 6)
	}
	return types.NewString(-1, charset.Default)
}

func testContext(snap *catalog.Snapshot) *binder.Context {
	return &binder.Context{Snapshot: snap, DB: "test", OnlyFullGroupBy: true, Build: &expr.BuildEnv{}, Env: &expr.Env{}}
}

func planText(ctx *binder.Context, sql string, columns bool) string {
	n, err := parse.New().ParseOne(sql, 0, charset.Default)
	if err != nil {
		return err.Error()
	}
	s, err := Plan(ctx, n)
	if err != nil {
		if e, ok := sqlerr.As(err); ok {
			return fmt.Sprintf("ERROR %d: %s", e.Code, e.Msg)
		}
		return "internal error: " + err.Error()
	}
	var sb strings.Builder
	for _, r := range plan.ExplainRows(s) {
		line := r.ID + " " + r.EstRows
		if r.Access != "" {
			line += " | " + r.Access
		}
		if r.Info != "" {
			line += " | " + r.Info
		}
		sb.WriteString(line + "\n")
	}
	if columns {
		for _, c := range s.Output {
			fmt.Fprintf(&sb, "-- %q %s.%s.%s %d\n", c.Name, c.DB, c.OrigTable, c.OrigName, c.Type.Tp)
		}
	}
	return sb.String()
}
