package differential

import (
	"fmt"
	"math/rand"
	"strconv"
	"strings"
)

// generator makes random statements over two tables whose values come from small domains, so that conditions hit, keys
// collide and NULLs are frequent. It stays inside what MySQL, MariaDB and CairnDB define alike: no comparison of text with
// numbers in the select list, no dates with a zero month.
type generator struct {
	*rand.Rand
	depth int
	// args collects the parameters of a statement to prepare; literals are written out while it is nil.
	args *[]any
}

// param makes a literal of a comparison: a parameter when the statement is to be prepared.
func (g *generator) param(lit string) string {
	if g.args == nil || g.Intn(3) == 0 {
		return lit
	}
	var v any
	switch n, err := strconv.ParseInt(lit, 10, 64); {
	case err == nil:
		v = n
	case lit == "NULL":
	case strings.HasPrefix(lit, "'"):
		v = strings.Trim(lit, "'")
	default:
		f, err := strconv.ParseFloat(lit, 64)
		if err != nil {
			return lit
		}
		v = f
	}
	*g.args = append(*g.args, v)
	return "?"
}

const schema = ` (
  id INT NOT NULL PRIMARY KEY,
  a INT,
  b INT NOT NULL DEFAULT 3,
  s VARCHAR(12),
  d DECIMAL(8,2),
  dt DATE,
  f DOUBLE,
  u INT UNSIGNED,
  %s)`

// keys are the indexes of table t1 and t2.
var keys = []string{
	"KEY a (a), KEY ab (a, b), UNIQUE KEY u (u), KEY s (s), KEY dt (dt)",
	"KEY ba (b, a), UNIQUE KEY sb (s, b), KEY d (d), KEY f (f)",
}

func (g *generator) pick(words ...string) string { return words[g.Intn(len(words))] }

func (g *generator) intLit() string {
	if g.Intn(12) == 0 {
		return "NULL"
	}
	return fmt.Sprint(g.Intn(14) - 3)
}

func (g *generator) textLit() string {
	if g.Intn(14) == 0 {
		return "NULL"
	}
	return g.pick("'a'", "'A'", "'b'", "'ab'", "'abc'", "'B '", "''", "'x1'", "'10'", "'é'", "'e'")
}

func (g *generator) decLit() string {
	return g.pick("0", "1.5", "-2.25", "10", "3.10", "99.99", "0.01", "NULL")
}

func (g *generator) dateLit() string {
	return g.pick("'2024-01-01'", "'2024-02-29'", "'2023-12-31'", "'2024-06-15'", "'2024-06-16'", "NULL")
}

func (g *generator) floatLit() string {
	return g.pick("0e0", "1.5e0", "-2.5e0", "1e3", "0.25e0", "NULL")
}

// row is a VALUES tuple for all columns.
func (g *generator) row(id int) string {
	u := "NULL"
	if g.Intn(3) > 0 {
		u = fmt.Sprint(g.Intn(40))
	}
	b := fmt.Sprint(g.Intn(6))
	return fmt.Sprintf("(%d, %s, %s, %s, %s, %s, %s, %s)", id, g.intLit(), b, g.textLit(), g.decLit(), g.dateLit(), g.floatLit(), u)
}

// scope is the table aliases of a query.
type scope []string

func (g *generator) column(sc scope, names ...string) string {
	return sc[g.Intn(len(sc))] + "." + g.pick(names...)
}

func (g *generator) deeper() bool {
	if g.depth <= 0 || g.Intn(3) == 0 {
		return false
	}
	g.depth--
	return true
}

func (g *generator) intExpr(sc scope) string {
	if !g.deeper() {
		if g.Intn(3) == 0 {
			return g.intLit()
		}
		return g.column(sc, "id", "a", "b", "a", "b")
	}
	x := func() string { return g.intExpr(sc) }
	switch g.Intn(13) {
	case 0:
		return "(" + x() + " + " + x() + ")"
	case 1:
		return "(" + x() + " - " + x() + ")"
	case 2:
		return "(" + x() + " * " + x() + ")"
	case 3:
		return "(" + x() + " % " + x() + ")"
	case 4:
		return "(" + x() + " DIV " + x() + ")"
	case 5:
		return "IFNULL(" + x() + ", " + x() + ")"
	case 6:
		return "COALESCE(" + x() + ", " + x() + ", 7)"
	case 7:
		return "CASE WHEN " + g.boolExpr(sc) + " THEN " + x() + " ELSE " + x() + " END"
	case 8:
		return "IF(" + g.boolExpr(sc) + ", " + x() + ", " + x() + ")"
	case 9:
		return "ABS(" + x() + ")"
	case 10:
		return "NULLIF(" + x() + ", " + x() + ")"
	case 11:
		return g.pick("GREATEST(", "LEAST(") + x() + ", " + x() + ")"
	}
	return g.pick("LENGTH(", "CHAR_LENGTH(") + g.textExpr(sc) + ")"
}

func (g *generator) textExpr(sc scope) string {
	if !g.deeper() {
		if g.Intn(3) == 0 {
			return g.textLit()
		}
		return g.column(sc, "s")
	}
	x := func() string { return g.textExpr(sc) }
	switch g.Intn(9) {
	case 0:
		return "CONCAT(" + x() + ", " + x() + ")"
	case 1:
		return "UPPER(" + x() + ")"
	case 2:
		return "LOWER(" + x() + ")"
	case 3:
		return fmt.Sprintf("SUBSTRING(%s, %d, %d)", x(), g.Intn(5)-2, g.Intn(4))
	case 4:
		return "IFNULL(" + x() + ", " + x() + ")"
	case 5:
		return "IF(" + g.boolExpr(sc) + ", " + x() + ", " + x() + ")"
	case 6:
		return "REPLACE(" + x() + ", 'a', 'zz')"
	case 7:
		return g.pick("LEFT(", "RIGHT(") + x() + ", 2)"
	}
	return "CONCAT_WS('-', " + x() + ", " + x() + ")"
}

func (g *generator) decExpr(sc scope) string {
	if !g.deeper() {
		if g.Intn(3) == 0 {
			return g.decLit()
		}
		return g.column(sc, "d")
	}
	x := func() string { return g.decExpr(sc) }
	switch g.Intn(6) {
	case 0:
		return "(" + x() + " + " + x() + ")"
	case 1:
		return "(" + x() + " - " + g.column(sc, "a", "b", "id") + ")"
	case 2:
		return "(" + x() + " * " + x() + ")"
	case 3:
		return "ROUND(" + x() + ", 1)"
	case 4:
		return "IFNULL(" + x() + ", " + x() + ")"
	}
	return "ABS(" + x() + ")"
}

func (g *generator) dateExpr(sc scope) string {
	dt := g.column(sc, "dt")
	switch g.Intn(8) {
	case 0:
		return g.pick("YEAR(", "MONTH(", "DAY(", "DAYOFWEEK(", "DAYOFYEAR(", "QUARTER(", "WEEK(", "TO_DAYS(", "WEEKDAY(") + dt + ")"
	case 1:
		return "DATE_ADD(" + dt + ", INTERVAL " + fmt.Sprint(g.Intn(60)-30) + " " + g.pick("DAY", "MONTH", "YEAR", "WEEK", "HOUR", "MINUTE") + ")"
	case 2:
		return "DATEDIFF(" + dt + ", " + g.dateLit() + ")"
	case 3:
		return "DATE_FORMAT(" + dt + ", " + g.pick("'%Y-%m'", "'%d.%m.%y'", "'%W %M %D'", "'%j %u %a %b'") + ")"
	case 4:
		return "LAST_DAY(" + dt + ")"
	case 5:
		return "IFNULL(" + dt + ", " + g.pick("'2020-01-01'", "'2021-05-05'") + ") = '2024-01-01'"
	case 6:
		return "TIMESTAMPDIFF(" + g.pick("DAY", "MONTH", "YEAR", "HOUR") + ", " + dt + ", " + g.dateLit() + ")"
	}
	return "EXTRACT(" + g.pick("YEAR_MONTH", "DAY", "YEAR") + " FROM " + dt + ")"
}

func (g *generator) boolExpr(sc scope) string {
	if g.deeper() {
		switch g.Intn(4) {
		case 0:
			return "(" + g.boolExpr(sc) + " AND " + g.boolExpr(sc) + ")"
		case 1:
			return "(" + g.boolExpr(sc) + " OR " + g.boolExpr(sc) + ")"
		case 2:
			return "NOT (" + g.boolExpr(sc) + ")"
		}
	}
	op := g.pick("=", "<", ">", "<=", ">=", "<>", "<=>")
	col := func(names ...string) string { return g.column(sc, names...) }
	switch g.Intn(17) {
	case 0, 1, 2:
		return col("id", "a", "b", "u") + " " + op + " " + g.param(g.intLit())
	case 3:
		return col("s") + " " + op + " " + g.param(g.textLit())
	case 4:
		return col("d") + " " + op + " " + g.decLit()
	case 5:
		return col("dt") + " " + op + " " + g.param(g.dateLit())
	case 6:
		return col("f") + " " + op + " " + g.param(g.floatLit())
	case 7:
		return col("id", "a", "b", "s", "d", "dt", "f", "u") + g.pick(" IS NULL", " IS NOT NULL")
	case 8:
		return col("id", "a", "b") + g.pick(" IN (", " NOT IN (") + g.param(g.intLit()) + ", " + g.param(g.intLit()) + ", " + g.param(g.intLit()) + ")"
	case 9:
		return col("a", "id", "u", "b") + g.pick(" BETWEEN ", " NOT BETWEEN ") + g.param(g.intLit()) + " AND " + g.param(g.intLit())
	case 10:
		return col("s") + g.pick(" LIKE ", " NOT LIKE ") + g.pick("'a%'", "'%b'", "'_b%'", "'A'", "'%'", "''")
	case 11:
		return g.intExpr(sc) + " " + op + " " + g.intExpr(sc)
	case 12:
		return g.textExpr(sc) + " " + op + " " + g.textExpr(sc)
	case 13:
		return col("s") + " IN (" + g.param(g.textLit()) + ", " + g.param(g.textLit()) + ")"
	case 14:
		return g.decExpr(sc) + " " + op + " " + g.decExpr(sc)
	case 15:
		return col("dt") + " BETWEEN " + g.param(g.dateLit()) + " AND " + g.param(g.dateLit())
	}
	if len(sc) > 1 {
		// MySQL and MariaDB take a negated IN of rows for a condition that no NULL row of an outer join passes.
		return col("id", "a") + " " + op + " " + col("a", "b")
	}
	return "(" + col("a") + ", " + col("b") + ") IN ((" + g.intLit() + ", " + g.intLit() + "), (1, 1))"
}

func (g *generator) anyExpr(sc scope) string {
	g.depth = 3
	switch g.Intn(8) {
	case 6:
		return g.dateExpr(sc)
	case 7:
		return "CAST(" + g.column(sc, "a", "b", "id", "dt", "s", "d") + " AS CHAR)"
	case 0:
		return g.textExpr(sc)
	case 1:
		return g.decExpr(sc)
	case 2:
		return g.column(sc, "id", "a", "b", "s", "d", "dt", "f", "u")
	case 3:
		return g.boolExpr(sc)
	}
	return g.intExpr(sc)
}

func (g *generator) cond(sc scope) string {
	g.depth = 4
	return g.boolExpr(sc)
}

// from makes a FROM clause.
func (g *generator) from() (string, scope) {
	first := g.pick("t1", "t2") + " x"
	switch g.Intn(8) {
	case 5:
		args := g.args
		g.args = nil // the order of parameters is that of the text
		inner := "(SELECT id, a, b, s, d, dt, f, u FROM " + g.pick("t1", "t2") + " i WHERE " + g.cond(scope{"i"}) + ") x"
		g.args = args
		return inner, scope{"x"}
	case 6:
		return "(SELECT id, a, b, s, d, dt, f, u FROM t1 UNION ALL SELECT id + 1000, b, a, s, d, dt, f, id FROM t2) x", scope{"x"}
	case 7:
		return "t1 x JOIN t2 y ON x." + g.pick("a", "b", "id") + " = y." + g.pick("a", "b", "id", "u") + g.pick(" JOIN", " LEFT JOIN") +
			" t1 z ON z." + g.pick("id", "a", "u") + " = " + g.pick("x", "y") + "." + g.pick("a", "b", "id"), scope{"x", "y", "z"}
	case 0:
		on := g.pick("x.id = y.id", "x.a = y.a", "x.b = y.b AND x.a < y.a", "x.s = y.s", "x.id = y.a", "x.u = y.id", "x.a <=> y.b", "x.id < y.a")
		if g.Intn(3) == 0 {
			on += " AND " + g.cond(scope{"x", "y"})
		}
		return first + g.pick(" JOIN ", " LEFT JOIN ", " RIGHT JOIN ") + g.pick("t1", "t2") + " y ON " + on, scope{"x", "y"}
	case 1:
		return first + ", " + g.pick("t1", "t2") + " y", scope{"x", "y"}
	}
	return first, scope{"x"}
}

func (g *generator) where(sc scope) string {
	if g.Intn(6) == 0 {
		return ""
	}
	w := " WHERE " + g.cond(sc)
	switch g.Intn(12) {
	case 0:
		w += " AND x.a IN (SELECT " + g.pick("a", "b", "id") + " FROM t2 z WHERE " + g.cond(scope{"z"}) + ")"
	case 1:
		w += " AND x.b NOT IN (SELECT " + g.pick("a", "b", "id") + " FROM t1 z WHERE " + g.cond(scope{"z"}) + ")"
	case 2:
		w += g.pick(" AND EXISTS", " AND NOT EXISTS") + " (SELECT 1 FROM t2 z WHERE z.a = x.a AND " + g.cond(scope{"z"}) + ")"
	case 3:
		w += " OR x.id > (SELECT " + g.pick("MIN", "MAX", "COUNT") + "(a) FROM t1 z WHERE " + g.cond(scope{"z"}) + ")"
	}
	return w
}

// query makes a SELECT. ordered says that its rows come in a fixed order.
func (g *generator) query() (q string, ordered bool) {
	from, sc := g.from()
	if g.Intn(3) == 0 {
		return g.grouped(from, sc), false
	}
	var outs []string
	args := g.args
	g.args = nil // parameters are collected in the order of the text: those of FROM are there already
	for range 1 + g.Intn(3) {
		outs = append(outs, g.anyExpr(sc))
	}
	g.args = args
	distinct := g.pick("", "", "", "DISTINCT ")
	if distinct != "" {
		// Which of equal texts is shown is not defined.
		outs = []string{g.column(sc, "a", "b", "u", "dt"), g.column(sc, "a", "b", "d")}
	}
	q = "SELECT " + distinct + strings.Join(outs, ", ") + " FROM " + from + g.where(sc)
	if g.Intn(2) == 0 || distinct != "" {
		return q, false
	}
	order := []string{}
	for range g.Intn(3) {
		order = append(order, g.column(sc, "a", "b", "d", "dt", "u", "f")+g.pick("", " DESC"))
	}
	for _, t := range sc {
		order = append(order, t+".id"+g.pick("", " DESC"))
	}
	q += " ORDER BY " + strings.Join(order, ", ")
	if g.Intn(2) == 0 {
		q += fmt.Sprintf(" LIMIT %d", g.Intn(12))
		if g.Intn(2) == 0 {
			q += fmt.Sprintf(" OFFSET %d", g.Intn(6))
		}
	}
	return q, true
}

func (g *generator) grouped(from string, sc scope) string {
	args := g.args
	g.args = nil // see query
	var groups, outs []string
	for range g.Intn(3) {
		groups = append(groups, g.column(sc, "a", "b", "dt", "d"))
	}
	outs = append(outs, groups...)
	for range 1 + g.Intn(3) {
		g.depth = 2
		switch g.Intn(8) {
		case 0:
			outs = append(outs, "COUNT(*)")
		case 1:
			outs = append(outs, "COUNT("+g.anyExpr(sc)+")")
		case 2:
			outs = append(outs, "SUM("+g.intExpr(sc)+")")
		case 3:
			outs = append(outs, g.pick("MIN(", "MAX(")+g.column(sc, "a", "b", "d", "dt", "f", "u", "id")+")")
		case 4:
			outs = append(outs, "AVG("+g.column(sc, "a", "b", "d")+")")
		case 5:
			outs = append(outs, "COUNT(DISTINCT "+g.column(sc, "a", "b", "s", "d", "dt")+")")
		case 6:
			outs = append(outs, "SUM("+g.decExpr(sc)+")")
		case 7:
			outs = append(outs, "SUM(DISTINCT "+g.column(sc, "a", "b", "d")+")")
		}
	}
	g.args = args
	q := "SELECT " + strings.Join(outs, ", ") + " FROM " + from + g.where(sc)
	if len(groups) > 0 {
		q += " GROUP BY " + strings.Join(groups, ", ")
	}
	if g.Intn(3) == 0 {
		q += " HAVING " + g.pick("COUNT(*) > 1", "COUNT(*) < 3", "SUM(x.a) > 4", "MAX(x.a) IS NOT NULL", "MIN(x.b) = 1")
	}
	return q
}

// set is one assignment of UPDATE.
func (g *generator) set(sc scope) string {
	g.depth = 1
	switch g.Intn(6) {
	case 0:
		return "s = LEFT(" + g.textExpr(sc) + ", 12)"
	case 1:
		return "d = " + g.decLit()
	case 2:
		return "u = " + fmt.Sprint(g.Intn(40))
	case 3:
		return "dt = " + g.dateLit()
	case 4:
		return "b = IFNULL(" + g.intExpr(sc) + ", 2)"
	}
	return "a = " + g.intExpr(sc)
}

// change makes a data change. The order in which rows are visited is fixed where it matters.
func (g *generator) change() string {
	t, o := "t1", "t2"
	if g.Intn(2) == 0 {
		t, o = o, t
	}
	switch g.Intn(13) {
	case 9:
		return "INSERT IGNORE INTO " + t + " SELECT id + " + fmt.Sprint(g.Intn(40)) + ", a, b, s, d, dt, f, NULL FROM " + g.pick(t, o) + " x WHERE " + g.cond(scope{"x"}) + " ORDER BY id LIMIT 3"
	case 10:
		return "UPDATE " + t + " x JOIN " + o + " y ON x." + g.pick("a = y.id", "id = y.a", "u = y.id") + " SET x.a = 4, x.d = 1.25 WHERE " + g.cond(scope{"x", "y"})
	case 11:
		return "DELETE x FROM " + t + " x JOIN " + o + " y ON x." + g.pick("a = y.id", "id = y.u") + " WHERE x.id > 60 AND " + g.cond(scope{"x", "y"})
	case 12:
		return "INSERT INTO " + t + " (id, a, b) SELECT MAX(id) + 1, COUNT(*), MIN(b) FROM " + o + " x WHERE " + g.cond(scope{"x"}) + " ON DUPLICATE KEY UPDATE " + t + ".a = VALUES(a)"
	case 0, 1:
		return "INSERT INTO " + t + " VALUES " + g.row(g.Intn(90))
	case 2:
		return "INSERT IGNORE INTO " + t + " VALUES " + g.row(g.Intn(90)) + ", " + g.row(g.Intn(90)) + ", " + g.row(g.Intn(90))
	case 3:
		return "REPLACE INTO " + t + " VALUES " + g.row(g.Intn(90)) + ", " + g.row(g.Intn(90))
	case 4:
		return "INSERT INTO " + t + " VALUES " + g.row(g.Intn(90)) + ", " + g.row(g.Intn(90)) +
			" ON DUPLICATE KEY UPDATE " + g.pick("a = a + 1", "b = VALUES(b)", "a = VALUES(a), b = b + 1", "s = VALUES(s)", "d = d + VALUES(d)", "u = u + 1")
	case 5:
		return "DELETE FROM " + t + " WHERE " + g.cond(scope{t}) + " ORDER BY id LIMIT " + fmt.Sprint(1+g.Intn(4))
	case 6:
		sets := g.set(scope{t})
		if g.Intn(2) == 0 {
			sets += ", " + g.set(scope{t})
		}
		cond := g.cond(scope{t})
		if strings.Contains(sets, "b = ") || strings.Contains(sets, "s = ") || strings.Contains(sets, "u = ") {
			// Which rows collide on a unique key on the way depends on the order in which they are visited.
			cond = "id = " + fmt.Sprint(g.Intn(90)) + " AND " + cond
		}
		return "UPDATE " + t + " SET " + sets + " WHERE " + cond
	case 7:
		return "UPDATE " + t + " SET id = id + " + fmt.Sprint(g.Intn(7)-3) + " WHERE id = " + fmt.Sprint(g.Intn(90))
	}
	return "UPDATE IGNORE " + t + " SET " + g.set(scope{t}) + " WHERE id = " + fmt.Sprint(g.Intn(90))
}
