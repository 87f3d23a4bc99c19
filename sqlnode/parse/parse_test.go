package parse

import (
	"strings"
	"testing"

	"github.com/pingcap/tidb/pkg/parser/ast"
	"github.com/pingcap/tidb/pkg/parser/mysql"
	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
)

func defaultMode(t testing.TB) SQLMode {
	mode, err := mysql.GetSQLMode(mysql.DefaultSQLMode)
	require.NoError(t, err)
	return mode
}

func field(t *testing.T, sql string, collation charset.ID) *Literal {
	t.Helper()
	stmt, err := New().ParseOne(sql, defaultMode(t), collation)
	require.NoError(t, err)
	l, ok := stmt.(*ast.SelectStmt).Fields.Fields[0].Expr.(*Literal)
	require.True(t, ok, "%T", stmt.(*ast.SelectStmt).Fields.Fields[0].Expr)
	return l
}

func TestLiteralsArriveInOurTypes(t *testing.T) {
	require.Equal(t, int64(42), field(t, "select 42", 0).Value.Int())
	require.Equal(t, int32(2), field(t, "select 42", 0).Typ.Flen)
	require.Equal(t, uint64(18446744073709551615), field(t, "select 18446744073709551615", 0).Value.Uint())
	require.Equal(t, types.KindDecimal, field(t, "select 1.50", 0).Value.Kind())
	require.Equal(t, "1.50", field(t, "select 1.50", 0).Value.Decimal().String())
	require.Equal(t, int32(2), field(t, "select 1.50", 0).Typ.Decimal)
	require.Equal(t, 1.5e3, field(t, "select 1.5e3", 0).Value.Float())
	require.True(t, field(t, "select NULL", 0).Value.IsNull())
	require.Equal(t, FormBool, field(t, "select true", 0).Form)

	s := field(t, "select 'abc' 'd'", charset.UTF8MB4Bin)
	require.Equal(t, "abcd", string(s.Value.Bytes()))
	require.Equal(t, charset.UTF8MB4Bin, s.Typ.Collation)
	require.Equal(t, 3, s.GetProjectionOffset())
	require.Equal(t, charset.Default, field(t, "select 'a'", 0).Typ.Collation)
	require.Equal(t, charset.Binary, field(t, "select _binary'a'", 0).Typ.Collation)
	require.Equal(t, charset.Latin1Swedish, field(t, "select _latin1'a'", 0).Typ.Collation)

	h := field(t, "select 0x4D1", 0)
	require.Equal(t, []byte{4, 0xd1}, h.Value.Bytes())
	require.Equal(t, FormHex, h.Form)
	require.Equal(t, []byte{4, 0xd1}, field(t, "select x'04d1'", 0).Value.Bytes())
	require.Equal(t, []byte{1, 1}, field(t, "select b'100000001'", 0).Value.Bytes())
}

func TestParamsAreNumberedInTextOrder(t *testing.T) {
	stmt, err := New().ParseOne("select * from t where a = ? and b in (?, ?) limit ?, ?", defaultMode(t), 0)
	require.NoError(t, err)
	ps := Params(stmt)
	require.Len(t, ps, 5)
	for i, p := range ps {
		require.Equal(t, i, p.Index)
	}
}

func TestSyntaxErrorHasMySQLText(t *testing.T) {
	const head = "You have an error in your SQL syntax; check the manual that corresponds to your MySQL server version for the right syntax to use near "
	long := strings.Repeat("x", 3000)
	for _, c := range []struct{ sql, tail string }{
		{"selec 1", "'selec 1' at line 1"},
		{"select 1 from", "'' at line 1"},
		{"select 1\nfrom t\nwhere )", "')' at line 3"},
		{"select 'a\"b' frm t x y", "'t x y' at line 1"},
		{"select ) " + long, "') " + long[:78] + "' at line 1"},
	} {
		_, err := New().Parse(c.sql, defaultMode(t), 0)
		e, ok := sqlerr.As(err)
		require.True(t, ok, c.sql)
		require.Equal(t, uint16(1064), e.Code)
		require.Equal(t, "42000", e.State)
		require.Equal(t, head+c.tail, e.Msg, c.sql)
	}
}

func TestTextsWithoutStatement(t *testing.T) {
	for _, sql := range []string{"", " ", ";", "/* x */", "-- x", "/*M!999999\\- enable the sandbox mode */", "# x\n;;"} {
		stmts, err := New().Parse(sql, defaultMode(t), 0)
		require.NoError(t, err, sql)
		require.Empty(t, stmts, sql)
	}
}

func TestMultipleStatements(t *testing.T) {
	stmts, err := New().Parse("select 1; select 2;; begin", defaultMode(t), 0)
	require.NoError(t, err)
	require.Len(t, stmts, 3)
	_, err = New().ParseOne("select 1; select 2", defaultMode(t), 0)
	require.Equal(t, uint16(1064), sqlerr.Code(err))
}

func TestShim(t *testing.T) {
	for _, sql := range []string{
		"BEGIN WORK", "start transaction with consistent snapshot, read only", "SHOW WARNINGS LIMIT 5", "show storage engines",
		"COMMIT WORK", "rollback work", "CREATE VIEW v AS SELECT 1 AS a WITH CHECK OPTION",
	} {
		stmts, err := New().Parse(sql, defaultMode(t), 0)
		require.NoError(t, err, sql)
		require.Len(t, stmts, 1, sql)
	}
	for _, sql := range []string{"CHECK TABLE t", "XA START 'a'", "create trigger x before insert on t for each row set a=1", "set persist max_connections=1"} {
		_, err := New().Parse(sql, defaultMode(t), 0)
		require.Equal(t, uint16(1235), sqlerr.Code(err), sql)
	}
}

func TestDeepNestingIsAnError(t *testing.T) {
	const n = 1_000_000
	for name, sql := range map[string]string{
		"parentheses": "select " + strings.Repeat("(", n) + "1" + strings.Repeat(")", n),
		"unclosed":    "select " + strings.Repeat("(", n),
		"not":         "select " + strings.Repeat("not ", n) + "1",
		"bang":        "select " + strings.Repeat("!", n) + "1",
		"minus":       "select " + strings.Repeat("- ", n) + "1",
		"plus chain":  "select 1" + strings.Repeat("+1", n),
		"or chain":    "select 1 where 1" + strings.Repeat(" or 1", n),
		"case":        "select " + strings.Repeat("case when ", n) + "1" + strings.Repeat(" then 1 end", n),
		"subqueries":  "select " + strings.Repeat("(select ", n) + "1" + strings.Repeat(")", n),
		"derived":     strings.Repeat("select * from (", n) + "select 1" + strings.Repeat(") t", n),
		"functions":   "select " + strings.Repeat("abs(", n) + "1" + strings.Repeat(")", n),
		"comma joins": "select * from t" + strings.Repeat(",t", n),
		"in parens":   "select * from (t" + strings.Repeat(",t", n) + ")",
		"joins":       "select * from t" + strings.Repeat(" join t", n),
		"comments":    strings.Repeat("/**/", n) + "select 1",
		"hashes":      strings.Repeat("#\n", n) + "select 1",
		"dashes":      strings.Repeat("--\n", n) + "select 1",
		"bangs":       strings.Repeat("/*!*/", n) + "select 1",
		"bang open":   strings.Repeat("/*!", n) + "select 1",
		"strings":     "select " + strings.Repeat("'a' ", n),
		"collate":     "select 'a'" + strings.Repeat(" collate utf8mb4_bin", n),
		"is":          "select 1" + strings.Repeat(" is null", n),
		"between":     "select 1" + strings.Repeat(" between 1 and 1", n),
		"json arrow":  "select a" + strings.Repeat("->'$'", n),
		"assign":      "select " + strings.Repeat("@a:=", n) + "1",
		"binary":      "select " + strings.Repeat("binary ", n) + "1",
		"unions":      "select 1" + strings.Repeat(" union select 1", n),
		"intervals":   "select a" + strings.Repeat(" + interval 1 day", n),
		"hint trick":  "/*T![zzz] ' */ select " + strings.Repeat("(", n) + "1" + strings.Repeat(")", n),
		"quote trick": "/*M! ' */ select " + strings.Repeat("(", n) + "1" + strings.Repeat(")", n),
		"nbsp case":   "select " + strings.Repeat("\xa0case when ", n) + "1" + strings.Repeat(" then 1 end", n),
	} {
		_, err := New().Parse(sql, defaultMode(t), 0)
		require.Error(t, err, name)
		require.Contains(t, []uint16{1064, 1436}, sqlerr.Code(err), name)
	}
}

func TestLongFlatTextsPass(t *testing.T) {
	for name, sql := range map[string]string{
		"values":   "insert into t values (1,'a(((')" + strings.Repeat(",(-1,'it''s \\' ((( ')", 20_000),
		"in list":  "select * from t where a in (1" + strings.Repeat(",-2", 50_000) + ")",
		"or chain": "select * from t where a=1" + strings.Repeat(" or a=2", 5_000),
		"many":     strings.Repeat("select 1+1+1;", 5_000),
		"on in":    "select * from t join u on a in (1" + strings.Repeat(",2", 50_000) + ")",
	} {
		_, err := New().Parse(sql, defaultMode(t), 0)
		require.NoError(t, err, name)
	}
}

// TestAtTheLimit walks the highest trees the guard lets through.
func TestAtTheLimit(t *testing.T) {
	for name, sql := range map[string]string{
		"chain":  "select 1" + strings.Repeat("+1", maxDepth-1),
		"parens": "select " + strings.Repeat("(", maxDepth/nestWeight-1) + "1" + strings.Repeat(")", maxDepth/nestWeight-1),
		"free":   "select " + strings.Repeat("(", 2000) + "1" + strings.Repeat(")", 2000),
	} {
		stmt, err := New().ParseOne(sql, defaultMode(t), 0)
		require.NoError(t, err, name)
		require.Empty(t, Params(stmt))
	}
}

func TestAnsiQuotesAndBackslashMode(t *testing.T) {
	mode := defaultMode(t) | mysql.ModeNoBackslashEscapes
	_, err := New().Parse(`select '\', 'x'`, mode, 0)
	require.NoError(t, err)
	_, err = New().Parse(`select '\', 'x'`, defaultMode(t), 0)
	require.Error(t, err)
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"select 1", "select 'a", "insert into t values (?,x'1',0x1,b'1',1.5)", "/*!40101 set a=1 */", "create table t(a int)", "select 1e400", "select 9999999999999999999999999999999999999999999999999999999999999999999999999999"} {
		f.Add(s)
	}
	p := New()
	f.Fuzz(func(t *testing.T, sql string) {
		stmts, err := p.Parse(sql, 0, 0)
		if err != nil {
			if _, ok := sqlerr.As(err); !ok {
				t.Fatalf("not a MySQL error: %v", err)
			}
			return
		}
		for _, s := range stmts {
			Params(s)
		}
	})
}

func BenchmarkParsePointSelect(b *testing.B) {
	p, mode := New(), defaultMode(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.Parse("SELECT c FROM sbtest1 WHERE id=4711", mode, 0); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGuardBulkInsert(b *testing.B) {
	sql := "insert into t values (1,'a')" + strings.Repeat(",(1234,'some text of a column','more text')", 5_000)
	b.SetBytes(int64(len(sql)))
	for b.Loop() {
		if err := checkNesting(sql, 0); err != nil {
			b.Fatal(err)
		}
	}
}
