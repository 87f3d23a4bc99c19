package optimizer

import (
	"slices"

	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/sqlnode/binder"
	"github.com/cairndb/cairn/sqlnode/catalog"
	"github.com/cairndb/cairn/sqlnode/plan"
)

// Estimates without statistics.
const (
	pseudoRows     = 10000.0
	pseudoEq       = 1.0 / 1000
	pseudoBetween  = 1.0 / 40
	pseudoLess     = 1.0 / 3
	lookupCost     = 3.0 // fetching a row by an index entry, relative to scanning a row
	maxCombination = 4096
)

// path is one way to read a table.
type path struct {
	key     *plan.KeyBuilder
	index   *catalog.Index // nil = the handle
	ranges  *plan.Ranges   // nil = everything
	keys    [][]plan.Scalar
	used    []bool // conditions the ranges imply exactly
	eqCols  int    // leading columns with a single value in all ranges
	cover   bool
	ordered bool // delivers the requested order
	desc    bool
	rows    float64
	cost    float64
}

// choosePath picks the way to read scan under conds, for the columns needed and the order asked for.
func (o *optimizer) choosePath(s *binder.Scan, conds []expr.Expr, req request) (*path, error) {
	var best *path
	for _, ix := range candidates(s) {
		p, err := o.newPath(s, ix, conds)
		if err != nil {
			return nil, err
		}
		if len(p.keys) == 1 && ix == nil { // one row by its handle: nothing is better
			p.cover, p.ordered, p.rows, p.cost = true, len(req.order) > 0, 1, 1
			return p, nil
		}
		p.cover = ix == nil || covers(s, ix, conds, req.need)
		p.ordered, p.desc = o.ordered(s, p, req.order)
		o.price(p, s, conds, req)
		if best == nil || better(p, best) {
			best = p
		}
	}
	return best, nil
}

// candidates lists the keys that hints allow; nil stands for the handle, which is always possible unless FORCE INDEX names others.
func candidates(s *binder.Scan) []*catalog.Index {
	h := &s.Hints
	out := make([]*catalog.Index, 0, 1+len(s.Table.Indexes))
	if len(h.Use) == 0 || h.UsePK || !h.Given {
		out = append(out, nil)
	}
	if h.Given {
		return append(out, h.Use...)
	}
next:
	for _, ix := range s.Table.Indexes {
		if ix.Primary || ix.Invisible || ix.State != catalog.StatePublic {
			continue
		}
		for _, x := range h.Ignore {
			if x == ix {
				continue next
			}
		}
		out = append(out, ix)
	}
	return out
}

// better prefers full unique keys, then paths with an equality prefix over those without any range, then the cheaper one.
func better(a, b *path) bool {
	if ra, rb := a.rank(), b.rank(); ra != rb {
		return ra > rb
	}
	return a.cost < b.cost
}

func (p *path) rank() int {
	switch {
	case p.keys != nil && len(p.keys) == 1:
		return 3
	case p.keys != nil:
		return 2
	case p.eqCols > 0:
		return 1
	}
	return 0
}

// covers says that ix holds all columns asked for, those of the conditions included.
func covers(s *binder.Scan, ix *catalog.Index, conds []expr.Expr, need []binder.ColID) bool {
	all := append([]binder.ColID(nil), need...)
	for _, c := range conds {
		all = appendColumns(all, c)
	}
	for _, id := range all {
		if id == s.RowID {
			continue
		}
		off := id - s.First
		if off >= 0 && off < len(s.Table.Columns) && !plan.Covers(s.Table, ix, off) {
			return false
		}
	}
	return true
}

// price estimates rows and cost.
func (o *optimizer) price(p *path, s *binder.Scan, conds []expr.Expr, req request) {
	total := o.tableRows(s.Table)
	p.rows = total
	switch {
	case p.keys != nil:
		p.rows = float64(len(p.keys))
	case p.ranges != nil:
		p.rows = 0
		for i := range p.ranges.Alts {
			p.rows += rangeRows(p, &p.ranges.Alts[i], total)
		}
		p.rows = min(p.rows, total)
	}
	read := p.rows
	if req.limit > 0 && (p.ordered || len(req.order) == 0) && p.allUsed() {
		read = min(read, req.limit)
	}
	p.cost = 1 + read
	if p.index != nil && !p.cover {
		p.cost = 1 + read*lookupCost
	} else if p.index != nil {
		p.cost = 1 + read*0.9 // entries are shorter than rows
	}
	if len(req.order) > 0 && !p.ordered {
		p.cost += p.rows * 0.5
	}
}

func (p *path) allUsed() bool {
	for _, u := range p.used {
		if !u {
			return false
		}
	}
	return true
}

func rangeRows(p *path, r *plan.Range, total float64) float64 {
	rows := total
	for i := range r.Eq {
		rows *= pseudoEq * float64(len(r.Eq[i].Vals))
		if i == 0 {
			rows = max(rows, float64(len(r.Eq[i].Vals)))
		} else {
			rows = max(rows, 1)
		}
	}
	switch {
	case len(r.Lows) > 0 && len(r.Highs) > 0:
		rows *= pseudoBetween
	case len(r.Lows)+len(r.Highs) > 0:
		rows *= pseudoLess
	}
	if unique := p.index == nil || p.index.Unique; unique && len(r.Eq) == len(p.key.Cols) {
		n := 1
		for i := range r.Eq {
			n *= len(r.Eq[i].Vals)
		}
		rows = min(rows, float64(n))
	}
	return max(rows, 1)
}

func (o *optimizer) tableRows(t *catalog.Table) float64 {
	if o.ctx.TableRows != nil {
		if n := o.ctx.TableRows(t.ID); n >= 0 {
			return max(n, 1)
		}
	}
	return pseudoRows
}

// ordered says whether reading the path in key order (or, with desc, its reverse) gives the order asked for.
func (o *optimizer) ordered(s *binder.Scan, p *path, order []orderCol) (ok, desc bool) {
	if len(order) == 0 {
		return false, false
	}
	if p.keys != nil {
		return len(p.keys) == 1, false
	}
	fixed := 0
	if p.ranges != nil && len(p.ranges.Alts) == 1 {
		for fixed < len(p.ranges.Alts[0].Eq) && len(p.ranges.Alts[0].Eq[fixed].Vals) == 1 {
			fixed++
		}
	}
	cols, distinct := p.orderedBy(s.Table)
	at := fixed
	for n, oc := range order {
		if p.isFixed(s, oc.id, fixed) {
			continue
		}
		if p.keyDone(at) || distinct && at == len(cols) {
			break // rows are distinct already: later items cannot matter
		}
		if at == len(cols) || s.First+cols[at].Offset != oc.id || cols[at].Length >= 0 {
			return false, false
		}
		if at > fixed && oc.desc != desc {
			return false, false
		}
		desc = order[n].desc
		at++
	}
	return true, desc
}

// orderedBy are the columns the path's keys are ordered by: its own, and those of the primary key in entries of an index that
// end in the handle. distinct: no two rows have the same values there.
func (p *path) orderedBy(t *catalog.Table) (cols []catalog.IndexColumn, distinct bool) {
	for i := range p.key.Cols {
		cols = append(cols, catalog.IndexColumn{Offset: p.key.Cols[i].Offset, Length: p.key.Cols[i].Prefix})
	}
	if p.index == nil || p.index.Unique || t.PK == nil || t.Handle == catalog.HandleRowID {
		return cols, false
	}
	for _, c := range t.PK.Columns {
		whole := catalog.IndexColumn{Offset: c.Offset, Length: -1}
		if !slices.Contains(cols, whole) {
			cols = append(cols, catalog.IndexColumn{Offset: c.Offset, Length: c.Length})
		}
	}
	return cols, !slices.ContainsFunc(t.PK.Columns, func(c catalog.IndexColumn) bool { return c.Length >= 0 })
}

// isFixed says that the column has one value in the path's range.
func (p *path) isFixed(s *binder.Scan, id binder.ColID, fixed int) bool {
	for k := range fixed {
		if s.First+p.key.Cols[k].Offset == id {
			return true
		}
	}
	return false
}

// keyDone says that the first k columns are a whole unique key without NULLs.
func (p *path) keyDone(k int) bool {
	if k < len(p.key.Cols) || len(p.key.Cols) == 0 || (p.index != nil && !p.index.Unique) {
		return false
	}
	for i := range p.key.Cols {
		if !p.key.Cols[i].NotNull {
			return false
		}
	}
	return true
}

// newPath derives the ranges of one key from the conditions.
func (o *optimizer) newPath(s *binder.Scan, ix *catalog.Index, conds []expr.Expr) (*path, error) {
	p := &path{index: ix, key: plan.NewKeyBuilder(s.Table, ix), used: make([]bool, len(conds))}
	if len(p.key.Cols) == 0 || len(conds) == 0 || (ix == nil && s.Hints.NoPK) {
		return p, nil
	}
	d := deriver{o: o, s: s, key: p.key}
	r, err := d.derive(conds, p.used)
	if err != nil {
		return nil, err
	}
	if len(r.Eq) < len(p.key.Cols) && len(r.Lows)+len(r.Highs) == 0 {
		if alts, exact, err := d.alternatives(conds, &r); err != nil {
			return nil, err
		} else if alts != nil {
			p.ranges = &plan.Ranges{Key: p.key, Alts: alts}
			p.used = exact
			p.eqCols = commonEq(alts)
			p.fullKeys()
			return p, nil
		}
	}
	if len(r.Eq) > 0 || len(r.Lows) > 0 || len(r.Highs) > 0 || r.NotNull {
		p.ranges = &plan.Ranges{Key: p.key, Alts: []plan.Range{r}}
		p.eqCols = len(r.Eq)
		p.fullKeys()
	}
	return p, nil
}

// commonEq is the smallest number of equality columns of the alternatives.
func commonEq(alts []plan.Range) int {
	n := len(alts[0].Eq)
	for i := range alts {
		n = min(n, len(alts[i].Eq))
	}
	return n
}

// fullKeys turns ranges that are lists of full keys of a unique key into keys.
func (p *path) fullKeys() {
	if p.index != nil && !p.index.Unique {
		return
	}
	var keys [][]plan.Scalar
	for i := range p.ranges.Alts {
		r := &p.ranges.Alts[i]
		if len(r.Eq) != len(p.key.Cols) {
			return
		}
		n := 1
		for j := range r.Eq {
			if r.Eq[j].NullSafe || !p.exactEq(j, &r.Eq[j]) {
				return
			}
			n *= len(r.Eq[j].Vals)
		}
		if len(keys)+n > maxCombination {
			return
		}
		keys = combinations(keys, r.Eq)
	}
	p.keys = keys
	p.ranges = nil
}

func (p *path) exactEq(i int, c *plan.EqCond) bool {
	for _, v := range c.Vals {
		if v.Expr.Type().Tp == types.TypeNull {
			return false
		}
		if _, exact := p.key.Accepts(i, v.Expr.Type(), literal(v.Expr)); !exact {
			return false
		}
	}
	return true
}

// combinations appends the cross product of the values.
func combinations(keys [][]plan.Scalar, eq []plan.EqCond) [][]plan.Scalar {
	n := 1
	for i := range eq {
		n *= len(eq[i].Vals)
	}
	flat := make([]plan.Scalar, n*len(eq))
	for k := range n {
		row := flat[k*len(eq) : (k+1)*len(eq) : (k+1)*len(eq)]
		rest := k
		for i := len(eq) - 1; i >= 0; i-- {
			row[i] = eq[i].Vals[rest%len(eq[i].Vals)]
			rest /= len(eq[i].Vals)
		}
		keys = append(keys, row)
	}
	return keys
}

// literal says that the collation of e yields to that of a column.
func literal(e expr.Expr) bool { return expr.CoercibilityOf(e) >= expr.CoerLiteral }
