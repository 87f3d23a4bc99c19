package exec

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/sqlnode/catalog"
	"github.com/cairndb/cairn/sqlnode/plan"
)

// Plans are built by hand here: the tests are about operators, not about planning.

var (
	intType  = types.NewInt()
	textType = types.NewString(20, charset.Default)
)

// column of a test table: "a int not null", in parts.
type column struct {
	name    string
	typ     types.Type
	notNull bool
	def     any // nil = no default
	auto    bool
}

// makeTable makes a table; keys are "pk(a,b)", "unique name(a)" or "key name(a)".
func makeTable(cols []column, indexes ...string) *catalog.Table {
	t := &catalog.Table{ID: 100, DB: "test", Name: "t", Collation: charset.Default}
	pos := map[string]int{}
	for i, c := range cols {
		typ := c.typ
		if c.notNull {
			typ.Flags |= types.FlagNotNull
		}
		col := &catalog.Column{ID: int64(i + 1), Name: c.name, Type: typ, AutoIncrement: c.auto}
		if c.def != nil {
			col.Default = &catalog.Default{Value: val(c.def)}
		}
		t.Columns = append(t.Columns, col)
		pos[c.name] = i
	}
	for i, def := range indexes {
		name, list, _ := strings.Cut(strings.TrimSuffix(def, ")"), "(")
		ix := &catalog.Index{ID: int64(i + 1), Name: strings.TrimPrefix(strings.TrimPrefix(name, "unique "), "key ")}
		for _, c := range strings.Split(list, ",") {
			ix.Columns = append(ix.Columns, catalog.IndexColumn{Offset: pos[c], Length: -1})
		}
		t.Indexes = append(t.Indexes, ix)
		if name == "pk" {
			ix.Name, ix.Primary, ix.Unique, t.PK = "PRIMARY", true, true, ix
			continue
		}
		ix.Unique = strings.HasPrefix(name, "unique ")
		t.WriteIndexes = append(t.WriteIndexes, ix)
	}
	catalog.NewBuilder(1).AddDatabase(&catalog.Database{Name: "test"}).AddTable(t).Build()
	return t
}

// val turns a Go value into an SQL value.
func val(v any) types.Value {
	switch v := v.(type) {
	case nil:
		return types.Null()
	case int:
		return types.Int(int64(v))
	case string:
		return types.String(v)
	}
	panic(fmt.Sprintf("no value for %T", v))
}

func konst(v any) plan.Scalar {
	switch v := v.(type) {
	case nil:
		return plan.Scalar{Expr: expr.NewConst(types.Null(), types.NewNull())}
	case string:
		return plan.Scalar{Expr: expr.NewConst(val(v), textType)}
	}
	return plan.Scalar{Expr: expr.NewConst(val(v), intType)}
}

// call compiles fn over its arguments.
func call(t testing.TB, fn string, args ...expr.Expr) plan.Scalar {
	t.Helper()
	e, err := expr.NewCall(&expr.BuildEnv{}, fn, args...)
	if err != nil {
		t.Fatal(err)
	}
	return scalar(t, e)
}

func scalar(t testing.TB, e expr.Expr) plan.Scalar {
	t.Helper()
	s, err := plan.NewScalar(e)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func col(i int, t types.Type) expr.Expr { return &expr.Column{Index: i, Typ: t} }

func base(ts ...types.Type) plan.Base {
	out := make([]plan.OutputColumn, len(ts))
	for i, t := range ts {
		out[i].Type = t
	}
	return plan.NewBase(out, 1)
}

// reader reads all columns of a table, and the row id if it has one.
func reader(t *catalog.Table) plan.Reader {
	r := plan.Reader{Table: t, RowID: t.Handle == catalog.HandleRowID}
	var ts []types.Type
	for i, c := range t.Columns {
		r.Cols = append(r.Cols, i)
		ts = append(ts, c.Type)
	}
	if r.RowID {
		ts = append(ts, intType)
	}
	r.Base = base(ts...)
	return r
}

func fullScan(t *catalog.Table) *plan.TableScan { return &plan.TableScan{Reader: reader(t)} }

// where filters a scan of t by conditions over its columns.
func where(t *catalog.Table, conds ...plan.Scalar) plan.Node {
	scan := fullScan(t)
	if len(conds) == 0 {
		return scan
	}
	return &plan.Filter{Base: base(scan.Types()...), Child: scan, Conds: conds}
}

// insertRows makes INSERT INTO t VALUES; def stands for DEFAULT.
func insertRows(t *catalog.Table, rows ...[]any) *plan.Insert {
	n := &plan.Insert{Table: t}
	for i := range t.Columns {
		n.Columns = append(n.Columns, i)
	}
	for _, row := range rows {
		var tuple []plan.Scalar
		for _, v := range row {
			if v == def {
				tuple = append(tuple, plan.Scalar{})
			} else {
				tuple = append(tuple, konst(v))
			}
		}
		n.Tuples = append(n.Tuples, tuple)
	}
	return n
}

// def stands for the keyword DEFAULT.
var def = new(int)

func row(vs ...any) []any { return vs }

// show prints rows for comparison.
func show(rows [][]types.Value) string {
	var sb strings.Builder
	for _, r := range rows {
		for i, v := range r {
			if i > 0 {
				sb.WriteString(" | ")
			}
			switch {
			case v.IsNull():
				sb.WriteString("NULL")
			case v.Kind() == types.KindString:
				sb.WriteString(v.Text())
			default:
				fmt.Fprintf(&sb, "%d", v.Int())
			}
		}
		sb.WriteByte('\n')
	}
	return sb.String()
}

// expect compares rows with their printed form, in any order when sorted.
func expect(t testing.TB, got [][]types.Value, want ...string) {
	t.Helper()
	g := strings.Split(strings.TrimSuffix(show(got), "\n"), "\n")
	if len(got) == 0 {
		g = nil
	}
	if !slices.Equal(g, want) {
		t.Fatalf("want\n%s\ngot\n%s", strings.Join(want, "\n"), strings.Join(g, "\n"))
	}
}
