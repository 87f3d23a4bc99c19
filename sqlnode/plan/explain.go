package plan

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/cairndb/cairn/sqlnode/catalog"
)

// ExplainRow is one line of EXPLAIN: id (with tree glyphs), estRows, task, access object, operator info.
type ExplainRow struct {
	ID, EstRows, Task, Access, Info string
	Node                            Node
}

// ExplainColumns are the names of the columns of EXPLAIN.
var ExplainColumns = [...]string{"id", "estRows", "task", "access object", "operator info"}

// ExplainRows describes the plan of a statement, children under their parents, subqueries last.
func ExplainRows(s *Statement) []ExplainRow {
	e := explainer{}
	e.add(s.Root, "", "")
	for i, q := range s.Subqueries {
		e.rows = append(e.rows, ExplainRow{ID: fmt.Sprintf("ScalarSubQuery_%d", i+1), EstRows: "1.00", Task: "root",
			Info: "output: slot " + strconv.Itoa(q.Slot)})
		e.add(q.Root, "└─", "  ")
	}
	return e.rows
}

type explainer struct {
	rows []ExplainRow
	n    int
}

// add writes n with its own prefix; rest is the prefix of what lies under it.
func (e *explainer) add(n Node, prefix, rest string) {
	name, access, info := n.explain()
	e.n++
	e.rows = append(e.rows, ExplainRow{ID: fmt.Sprintf("%s%s_%d", prefix, name, e.n), EstRows: fmt.Sprintf("%.2f", n.EstRows()), Task: "root",
		Access: access, Info: info, Node: n})
	kids := n.Children()
	for i, k := range kids {
		if i == len(kids)-1 {
			e.add(k, rest+"└─", rest+"  ")
		} else {
			e.add(k, rest+"├─", rest+"│ ")
		}
	}
}

func scalarList(list []Scalar) string {
	s := make([]string, len(list))
	for i := range list {
		s[i] = list[i].text()
	}
	return strings.Join(s, ", ")
}

func (s Scalar) text() string {
	if s.Expr == nil {
		return "default"
	}
	return s.Expr.String()
}

func keyList(list []SortKey) string {
	s := make([]string, len(list))
	for i := range list {
		s[i] = list[i].text()
		if list[i].Desc {
			s[i] += ":desc"
		}
	}
	return strings.Join(s, ", ")
}

// access names the table, and the index with its columns.
func (r *Reader) access(ix *catalog.Index) string {
	out := "table:" + r.Alias
	if ix == nil {
		return out
	}
	cols := make([]string, len(ix.Columns))
	for i, c := range ix.Columns {
		cols[i] = r.Table.Columns[c.Offset].Name
	}
	return out + ", index:" + ix.Name + "(" + strings.Join(cols, ", ") + ")"
}

func (r *Reader) lockText() string {
	switch r.Lock {
	case LockUpdate:
		return ", lock" + r.Wait.text()
	case LockShare:
		return ", shared lock" + r.Wait.text()
	}
	return ""
}

func (p *PointGet) explain() (string, string, string) {
	ix := p.Index
	if ix == nil && p.Table.Handle == catalog.HandleCommon {
		ix = p.Table.PK
	}
	info := ""
	if ix == nil {
		info = "handle:" + p.Key[0].text()
	} else {
		info = "key:(" + scalarList(p.Key) + ")"
	}
	return "Point_Get", p.access(ix), info + p.lockText()
}

func (p *BatchPointGet) explain() (string, string, string) {
	ix := p.Index
	if ix == nil && p.Table.Handle == catalog.HandleCommon {
		ix = p.Table.PK
	}
	parts := make([]string, len(p.Keys))
	for i, k := range p.Keys {
		parts[i] = scalarList(k)
		if len(k) > 1 {
			parts[i] = "(" + parts[i] + ")"
		}
	}
	what := "handle:["
	if ix != nil {
		what = "key:["
	}
	return "Batch_Point_Get", p.access(ix), what + strings.Join(parts, " ") + "], keep order:" + strconv.FormatBool(p.KeepOrder) + descText(p.Desc) + p.lockText()
}

func descText(desc bool) string {
	if desc {
		return ", desc"
	}
	return ""
}

func scanInfo(r *Ranges, keepOrder, desc bool, limit Scalar) string {
	s := "keep order:" + strconv.FormatBool(keepOrder) + descText(desc)
	if r != nil {
		s = "range:" + r.String() + ", " + s
	}
	if !limit.IsZero() {
		s += ", limit hint:" + limit.text()
	}
	return s
}

func (p *TableScan) explain() (string, string, string) {
	name := "TableFullScan"
	if p.Ranges != nil {
		name = "TableRangeScan"
	}
	return name, p.access(nil), scanInfo(p.Ranges, p.KeepOrder, p.Desc, p.LimitHint) + p.lockText()
}

func (p *IndexScan) explain() (string, string, string) {
	name := "IndexFullScan"
	if p.Ranges != nil {
		name = "IndexRangeScan"
	}
	return name, p.access(p.Index), scanInfo(p.Ranges, p.KeepOrder, p.Desc, p.LimitHint) + p.lockText()
}

func (p *IndexLookup) explain() (string, string, string) {
	return "IndexLookUp", p.access(p.Index), scanInfo(p.Ranges, p.KeepOrder, p.Desc, p.LimitHint) + p.lockText()
}

func (p *MemTable) explain() (string, string, string) {
	var parts []string
	for _, l := range p.Lookups {
		parts = append(parts, strings.ToLower(l.Column)+":["+scalarList(l.Values)+"]")
	}
	return "MemTableScan", "table:" + p.Alias, strings.Join(parts, ", ")
}

func (p *Dual) explain() (string, string, string)  { return "TableDual", "", "rows:1" }
func (p *Empty) explain() (string, string, string) { return "TableDual", "", "rows:0" }
func (p *Values) explain() (string, string, string) {
	return "Values", "", "rows:" + strconv.Itoa(len(p.Tuples))
}

func (p *Filter) explain() (string, string, string)  { return "Selection", "", scalarList(p.Conds) }
func (p *Project) explain() (string, string, string) { return "Projection", "", scalarList(p.Exprs) }
func (p *Sort) explain() (string, string, string)    { return "Sort", "", keyList(p.Keys) }

func limitText(offset, count Scalar) string {
	o, c := "0", "all"
	if !offset.IsZero() {
		o = offset.text()
	}
	if !count.IsZero() {
		c = count.text()
	}
	return "offset:" + o + ", count:" + c
}

func (p *TopN) explain() (string, string, string) {
	return "TopN", "", keyList(p.Keys) + ", " + limitText(p.Offset, p.Count)
}

func (p *Limit) explain() (string, string, string) { return "Limit", "", limitText(p.Offset, p.Count) }

func aggInfo(groups []Scalar, aggs []Agg) string {
	var parts []string
	if len(groups) > 0 {
		parts = append(parts, "group by:"+scalarList(groups))
	}
	if len(aggs) > 0 {
		s := make([]string, len(aggs))
		for i := range aggs {
			s[i] = aggs[i].Agg.String()
		}
		parts = append(parts, "funcs:"+strings.Join(s, ", "))
	}
	return strings.Join(parts, ", ")
}

func (p *HashAgg) explain() (string, string, string) { return "HashAgg", "", aggInfo(p.Groups, p.Aggs) }
func (p *StreamAgg) explain() (string, string, string) {
	return "StreamAgg", "", aggInfo(p.Groups, p.Aggs)
}

func equalities(l, r []Scalar, nullEq []bool) string {
	var parts []string
	for i := range l {
		op := "eq("
		if nullEq != nil && nullEq[i] {
			op = "nulleq("
		}
		parts = append(parts, op+l[i].text()+", "+r[i].text()+")")
	}
	return "equal:[" + strings.Join(parts, " ") + "]"
}

func (p *HashJoin) explain() (string, string, string) {
	info := p.Type.String()
	if p.NullAware {
		info = "null aware " + info
	}
	if p.BuildLeft {
		info += ", build:left"
	}
	info += ", " + equalities(p.LeftKeys, p.RightKeys, p.NullEq)
	if len(p.Other) > 0 {
		info += ", other cond:" + scalarList(p.Other)
	}
	return "HashJoin", "", info
}

func (p *NLJoin) explain() (string, string, string) {
	info := p.Type.String()
	if len(p.Conds) > 0 {
		info += ", cond:" + scalarList(p.Conds)
	}
	return "NestedLoopJoin", "", info
}

func (p *IndexJoin) explain() (string, string, string) {
	ix := p.Index
	if ix == nil {
		ix = p.Inner.Table.PK
	}
	info := p.Type.String() + ", outer key:" + scalarList(p.Keys)
	if p.Unique {
		info += ", unique"
	}
	if len(p.InnerConds) > 0 {
		info += ", inner cond:" + scalarList(p.InnerConds)
	}
	if len(p.Other) > 0 {
		info += ", other cond:" + scalarList(p.Other)
	}
	return "IndexJoin", p.Inner.access(ix), info + p.Inner.lockText()
}

func (p *UnionAll) explain() (string, string, string) { return "Union", "", "" }

func (p *Insert) explain() (string, string, string) {
	name := "Insert"
	if p.Replace {
		name = "Replace"
	}
	info := ""
	if p.Source == nil {
		info = "rows:" + strconv.Itoa(len(p.Tuples))
	}
	return name, "table:" + p.Table.Name, info
}

func targetNames(ts []Target) string {
	s := make([]string, len(ts))
	for i := range ts {
		s[i] = ts[i].Alias
	}
	return "table:" + strings.Join(s, ", ")
}

func (p *Update) explain() (string, string, string) {
	var parts []string
	for i, sets := range p.Sets {
		for _, a := range sets {
			parts = append(parts, p.Targets[i].Table.Columns[a.Column].Name+"="+a.Value.text())
		}
	}
	return "Update", targetNames(p.Targets), strings.Join(parts, ", ")
}

func (p *Delete) explain() (string, string, string)  { return "Delete", targetNames(p.Targets), "" }
func (p *Explain) explain() (string, string, string) { return "Explain", "", "" }

// String describes the ranges with interval notation over the key columns.
func (r *Ranges) String() string {
	if len(r.Alts) == 0 {
		return "empty"
	}
	parts := make([]string, len(r.Alts))
	for i := range r.Alts {
		parts[i] = r.Alts[i].String()
	}
	return strings.Join(parts, " ")
}

// String writes one range: equalities, then the interval of the next column.
func (r *Range) String() string {
	var sb strings.Builder
	for i := range r.Eq {
		if i > 0 {
			sb.WriteByte(' ')
		}
		if len(r.Eq[i].Vals) == 1 {
			sb.WriteString("[" + r.Eq[i].Vals[0].text() + "]")
		} else {
			sb.WriteString("[in " + scalarList(r.Eq[i].Vals) + "]")
		}
	}
	if len(r.Lows)+len(r.Highs) == 0 {
		if r.NotNull {
			sb.WriteString("(not null)")
		}
		return sb.String()
	}
	low, high := "(-inf", "+inf)"
	if len(r.Lows) > 0 {
		low = boundText(r.Lows, "[", "(", true)
	}
	if len(r.Highs) > 0 {
		high = boundText(r.Highs, "]", ")", false)
	}
	sb.WriteString(low + "," + high)
	return sb.String()
}

func boundText(bs []Bound, incl, excl string, left bool) string {
	s := make([]string, len(bs))
	for i, b := range bs {
		mark := excl
		if b.Incl {
			mark = incl
		}
		if left {
			s[i] = mark + b.text()
		} else {
			s[i] = b.text() + mark
		}
	}
	return strings.Join(s, "&")
}
