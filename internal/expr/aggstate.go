package expr

import (
	"bytes"
	"cmp"
	"math"
	"math/bits"
	"slices"
	"unsafe"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/decimal"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
)

// AggState is the state of one aggregate of one group. Its zero value is the state of no rows. States are kept by value
// in the operator's own arrays: nothing is boxed, and only strings, DISTINCT and GROUP_CONCAT take memory of their own.
type AggState struct {
	n      int64   // rows counted
	lo, hi uint64  // sum of integers in 128 bits; bits; the lane of a minimum
	x, m2  float64 // sum or mean, and sum of squared distances
	dec    decimal.Decimal
	ext    *aggExt
}

// aggExt is what only some aggregates need.
type aggExt struct {
	text []byte // minimum or maximum; GROUP_CONCAT so far
	cut  bool
	rows []concatRow
	seen map[string][]types.Value
	size int
}

// concatRow is a row of GROUP_CONCAT ... ORDER BY.
type concatRow struct {
	text []byte
	keys []types.Value
}

// AggProgram is a compiled aggregate: immutable, safe for concurrent use with one Env for each user.
type AggProgram struct {
	Type types.Type

	fn       string
	distinct bool
	args     []*Program
	order    []*Program
	desc     []bool
	sep      []byte
	coll     *charset.Collation
	scale    int // of the coefficients SUM and AVG add up
	// add takes a row in that counts: with DISTINCT, one that was not seen.
	add    func(s *AggState, env *Env, b *chunk.Batch, row int)
	merge  func(s, o *AggState, env *Env)
	result func(s *AggState, env *Env) types.Value
}

// CompileAgg compiles an aggregate.
func CompileAgg(a *Agg) (*AggProgram, error) {
	p := &AggProgram{Type: a.Typ, fn: a.Fn, distinct: a.Distinct, sep: []byte(a.Sep), coll: charset.Get(a.coll)}
	var err error
	if p.args, err = CompileAll(a.Args); err != nil {
		return nil, err
	}
	for _, o := range a.OrderBy {
		k, err := Compile(o.Expr)
		if err != nil {
			return nil, err
		}
		p.order, p.desc = append(p.order, k), append(p.desc, o.Desc)
	}
	p.build()
	return p, nil
}

// NewState is the state of no rows.
func (p *AggProgram) NewState() AggState { return AggState{} }

// Update takes a row into the state.
func (p *AggProgram) Update(s *AggState, env *Env, b *chunk.Batch, row int) {
	if p.distinct && !p.first(s, env, b, row) {
		return
	}
	p.add(s, env, b, row)
}

// Merge takes the rows of o, a state of the same aggregate, into s. o is not used afterwards.
func (p *AggProgram) Merge(s, o *AggState, env *Env) {
	if p.distinct {
		p.mergeDistinct(s, o, env)
		return
	}
	p.merge(s, o, env)
}

// Result is the value for the rows taken in. Bytes of it belong to the state.
func (p *AggProgram) Result(s *AggState, env *Env) types.Value { return p.result(s, env) }

// Size estimates the bytes a state takes, the AggState itself included.
func (p *AggProgram) Size(s *AggState) int {
	n := int(unsafe.Sizeof(*s))
	if s.ext != nil {
		n += int(unsafe.Sizeof(*s.ext)) + cap(s.ext.text) + s.ext.size
	}
	return n
}

func (s *AggState) extra() *aggExt {
	if s.ext == nil {
		s.ext = &aggExt{}
	}
	return s.ext
}

// first tells whether the row's values were not seen before; rows with a NULL never count.
func (p *AggProgram) first(s *AggState, env *Env, b *chunk.Batch, row int) bool {
	var stack [4]types.Value
	values := stack[:0]
	m := env.mark()
	defer env.release(m)
	key := env.buf(64)
	for _, a := range p.args {
		v := a.Value(env, b, row)
		if v.IsNull() {
			return false
		}
		key = appendDistinctKey(key, v, a.Type)
		values = append(values, v)
	}
	return s.extra().remember(key, values)
}

// appendDistinctKey makes keys that are equal when the values are.
func appendDistinctKey(dst []byte, v types.Value, t types.Type) []byte {
	return types.AppendHashKey(dst, v, t.Collation)
}

func (x *aggExt) remember(key []byte, values []types.Value) bool {
	if _, ok := x.seen[string(key)]; ok {
		return false
	}
	if x.seen == nil {
		x.seen = map[string][]types.Value{}
	}
	kept := make([]types.Value, len(values))
	for i, v := range values {
		kept[i] = v.Clone()
		if v.Kind() == types.KindString {
			x.size += len(v.Bytes())
		}
	}
	x.size += len(key) + 64 + 32*len(values)
	x.seen[string(key)] = kept
	return true
}

// mergeDistinct feeds the values only o has seen through a one-row batch.
func (p *AggProgram) mergeDistinct(s, o *AggState, env *Env) {
	if o.ext == nil {
		return
	}
	ts := make([]types.Type, len(p.args))
	cols := make([]Expr, len(p.args))
	for i, a := range p.args {
		ts[i] = a.Type
		cols[i] = &Column{Index: i, Typ: a.Type}
	}
	feed := *p
	feed.args, _ = CompileAll(cols)
	feed.build()
	b := chunk.NewBatch(ts, 1)
	for key, values := range o.ext.seen {
		if s.extra().remember([]byte(key), values) {
			b.Reset()
			b.AppendRow(values...)
			feed.add(s, env, b, 0)
		}
	}
}

// build sets the functions of an aggregate.
func (p *AggProgram) build() {
	switch p.fn {
	case "count":
		p.buildCount()
	case "sum", "avg":
		p.buildSum()
	case "min", "max", "any_value":
		p.buildExtreme()
	case "bit_and", "bit_or", "bit_xor":
		p.buildBits()
	case "group_concat":
		p.buildConcat()
	default:
		p.buildVariance()
	}
}

func (p *AggProgram) buildCount() {
	p.merge = func(s, o *AggState, _ *Env) { s.n += o.n }
	p.result = func(s *AggState, _ *Env) types.Value { return types.Int(s.n) }
	if len(p.args) == 0 || p.distinct {
		p.add = func(s *AggState, _ *Env, _ *chunk.Batch, _ int) { s.n++ }
		return
	}
	isNull := nullOf(p.args[0])
	p.add = func(s *AggState, env *Env, b *chunk.Batch, row int) {
		if !isNull(env, b, row) {
			s.n++
		}
	}
}

func (p *AggProgram) buildSum() {
	arg := p.args[0]
	avg := p.fn == "avg"
	if p.Type.Class() == types.ClassFloat {
		f := toFloat(arg)
		p.add = func(s *AggState, env *Env, b *chunk.Batch, row int) {
			if v, null := f(env, b, row); !null {
				s.x += v
				s.n++
			}
		}
		p.merge = func(s, o *AggState, _ *Env) { s.x += o.x; s.n += o.n }
		p.result = func(s *AggState, _ *Env) types.Value {
			switch {
			case s.n == 0:
				return types.Null()
			case avg:
				return types.Float(s.x / float64(s.n))
			}
			return types.Float(s.x)
		}
		return
	}
	if arg.Int != nil {
		p.add = sumInts(arg)
	} else {
		p.add, p.scale = sumDecimals(arg)
	}
	p.merge = func(s, o *AggState, env *Env) {
		var c uint64
		s.lo, c = bits.Add64(s.lo, o.lo, 0)
		s.hi, _ = bits.Add64(s.hi, o.hi, c)
		addDecimal(s, o.dec, env)
		s.n += o.n
	}
	p.result = func(s *AggState, env *Env) types.Value { return p.sumResult(s, env, avg) }
}

func sumInts(arg *Program) func(s *AggState, env *Env, b *chunk.Batch, row int) {
	f, unsigned := arg.Int, arg.Type.Unsigned()
	return func(s *AggState, env *Env, b *chunk.Batch, row int) {
		v, null := f(env, b, row)
		if null {
			return
		}
		hi, lo := wide(v, unsigned)
		var c uint64
		s.lo, c = bits.Add64(s.lo, lo, 0)
		s.hi, _ = bits.Add64(s.hi, hi, c)
		s.n++
	}
}

// sumDecimals adds coefficients of one scale in 128 bits, and as decimals what is too great for that.
func sumDecimals(arg *Program) (add func(s *AggState, env *Env, b *chunk.Batch, row int), scale int) {
	f := toDec(arg)
	big := func(s *AggState, env *Env, b *chunk.Batch, row int) {
		if v, null := f(env, b, row); !null {
			addDecimal(s, v, env)
			s.n++
		}
	}
	fast, scale := small(arg)
	if fast == nil {
		return big, 0
	}
	return func(s *AggState, env *Env, b *chunk.Batch, row int) {
		v, st := fast(env, b, row)
		switch st {
		case smallOK:
			s.addSmall(v)
		case smallWide:
			big(s, env, b, row)
		}
	}, scale
}

func addDecimal(s *AggState, v decimal.Decimal, env *Env) {
	sum, ok := s.dec.Add(v)
	if !ok {
		env.fail(sqlerr.New(sqlerr.ErrDataOutOfRange, "DECIMAL", "sum"))
		return
	}
	s.dec = sum
}

// smallSum is the sum of coefficients as a number.
func (s *AggState) smallSum(scale int) decimal.Decimal {
	hi, lo := s.hi, s.lo
	neg := int64(hi) < 0
	if neg {
		var borrow uint64
		lo, borrow = bits.Sub64(0, lo, 0)
		hi, _ = bits.Sub64(0, hi, borrow)
	}
	return decimal.FromParts(hi, lo, uint8(scale), neg)
}

func (p *AggProgram) sumResult(s *AggState, env *Env, avg bool) types.Value {
	if s.n == 0 {
		return types.Null()
	}
	sum := s.dec
	if s.hi|s.lo != 0 {
		sum, _ = sum.Add(s.smallSum(p.scale))
	}
	scale := int(p.Type.Decimal)
	ok := true
	if avg {
		sum, ok = sum.Div(decimal.FromInt(s.n), scale-sum.Scale())
	} else if sum.Scale() != scale {
		sum, ok = sum.Round(scale)
	}
	if !ok {
		env.fail(sqlerr.New(sqlerr.ErrDataOutOfRange, "DECIMAL", p.fn))
	}
	return types.Dec(sum)
}

// buildExtreme is MIN, MAX and ANY_VALUE: the first value, replaced by those that are before or after it.
func (p *AggProgram) buildExtreme() {
	arg := p.args[0]
	want := map[string]int{"min": -1, "max": 1}[p.fn]
	t := p.Type
	switch {
	case t.Class() == types.ClassString || t.Class() == types.ClassJSON:
		p.extremeText(toBytes(arg), want)
		return
	case t.Class() == types.ClassDecimal:
		p.extremeDecimal(toDec(arg), want)
		return
	case arg.Float != nil:
		p.extremeLane(laneOf(arg.Float, math.Float64bits), want, func(a, b uint64) int {
			return cmp.Compare(math.Float64frombits(a), math.Float64frombits(b))
		})
	case arg.Time != nil:
		p.extremeLane(laneOf(arg.Time, func(v types.Time) uint64 { return uint64(v) }), want, cmp.Compare[uint64])
	case arg.Dur != nil:
		p.extremeLane(laneOf(arg.Dur, func(v types.Duration) uint64 { return uint64(v) }), want, compareSigned)
	case t.Unsigned():
		p.extremeLane(laneOf(arg.Int, func(v int64) uint64 { return uint64(v) }), want, cmp.Compare[uint64])
	default:
		p.extremeLane(laneOf(arg.Int, func(v int64) uint64 { return uint64(v) }), want, compareSigned)
	}
}

func compareSigned(a, b uint64) int { return cmp.Compare(int64(a), int64(b)) }

func laneOf[T any](f Fn[T], bits func(T) uint64) Fn[uint64] {
	return func(env *Env, b *chunk.Batch, row int) (uint64, bool) {
		v, null := f(env, b, row)
		return bits(v), null
	}
}

func (p *AggProgram) extremeLane(f Fn[uint64], want int, order func(a, b uint64) int) {
	take := func(s *AggState, v uint64) {
		if s.n == 0 || (want != 0 && order(v, s.lo) == want) {
			s.lo, s.n = v, 1
		}
	}
	p.add = func(s *AggState, env *Env, b *chunk.Batch, row int) {
		if v, null := f(env, b, row); !null {
			take(s, v)
		}
	}
	p.merge = func(s, o *AggState, _ *Env) {
		if o.n > 0 {
			take(s, o.lo)
		}
	}
	kind := p.Type.Kind()
	p.result = func(s *AggState, _ *Env) types.Value {
		if s.n == 0 {
			return types.Null()
		}
		return types.FromLane(kind, s.lo)
	}
}

func (p *AggProgram) extremeDecimal(f Fn[decimal.Decimal], want int) {
	take := func(s *AggState, v decimal.Decimal) {
		if s.n == 0 || (want != 0 && v.Cmp(s.dec) == want) {
			s.dec, s.n = v, 1
		}
	}
	p.add = func(s *AggState, env *Env, b *chunk.Batch, row int) {
		if v, null := f(env, b, row); !null {
			take(s, v)
		}
	}
	p.merge = func(s, o *AggState, _ *Env) {
		if o.n > 0 {
			take(s, o.dec)
		}
	}
	p.result = func(s *AggState, _ *Env) types.Value {
		if s.n == 0 {
			return types.Null()
		}
		return types.Dec(s.dec)
	}
}

func (p *AggProgram) extremeText(f Fn[[]byte], want int) {
	order := p.coll.Compare
	take := func(s *AggState, v []byte) {
		if s.n == 0 || (want != 0 && sign(order(v, s.ext.text)) == want) {
			x := s.extra()
			x.text = append(x.text[:0], v...)
			s.n = 1
		}
	}
	p.add = func(s *AggState, env *Env, b *chunk.Batch, row int) {
		m := env.mark()
		if v, null := f(env, b, row); !null {
			take(s, v)
		}
		env.release(m)
	}
	p.merge = func(s, o *AggState, _ *Env) {
		if o.n > 0 {
			take(s, o.ext.text)
		}
	}
	p.result = func(s *AggState, _ *Env) types.Value {
		if s.n == 0 {
			return types.Null()
		}
		if p.Type.Class() == types.ClassJSON {
			return types.JSON(s.ext.text)
		}
		return types.Str(s.ext.text)
	}
}

func (p *AggProgram) buildBits() {
	f := toIntBits(p.args[0])
	op := map[string]func(a, b uint64) uint64{
		"bit_and": func(a, b uint64) uint64 { return a & b },
		"bit_or":  func(a, b uint64) uint64 { return a | b },
		"bit_xor": func(a, b uint64) uint64 { return a ^ b },
	}[p.fn]
	neutral := uint64(0)
	if p.fn == "bit_and" {
		neutral = math.MaxUint64
	}
	take := func(s *AggState, v uint64) {
		if s.n == 0 {
			s.lo, s.n = neutral, 1
		}
		s.lo = op(s.lo, v)
	}
	p.add = func(s *AggState, env *Env, b *chunk.Batch, row int) {
		if v, null := f(env, b, row); !null {
			take(s, uint64(v))
		}
	}
	p.merge = func(s, o *AggState, _ *Env) {
		if o.n > 0 {
			take(s, o.lo)
		}
	}
	p.result = func(s *AggState, _ *Env) types.Value {
		if s.n == 0 {
			return types.Uint(neutral)
		}
		return types.Uint(s.lo)
	}
}

// buildVariance uses Welford's method, and Chan's to merge.
func (p *AggProgram) buildVariance() {
	f := toFloat(p.args[0])
	p.add = func(s *AggState, env *Env, b *chunk.Batch, row int) {
		v, null := f(env, b, row)
		if null {
			return
		}
		s.n++
		d := v - s.x
		s.x += d / float64(s.n)
		s.m2 += d * (v - s.x)
	}
	p.merge = func(s, o *AggState, _ *Env) {
		if o.n == 0 {
			return
		}
		n := float64(s.n + o.n)
		d := o.x - s.x
		s.m2 += o.m2 + d*d*float64(s.n)*float64(o.n)/n
		s.x += d * float64(o.n) / n
		s.n += o.n
	}
	sample := p.fn == "stddev_samp" || p.fn == "var_samp"
	root := p.fn == "std" || p.fn == "stddev" || p.fn == "stddev_pop" || p.fn == "stddev_samp"
	p.result = func(s *AggState, _ *Env) types.Value {
		n := s.n
		if sample {
			n--
		}
		if n <= 0 {
			return types.Null()
		}
		v := s.m2 / float64(n)
		if root {
			v = math.Sqrt(v)
		}
		return types.Float(v)
	}
}

func (p *AggProgram) buildConcat() {
	fns := make([]Fn[[]byte], len(p.args))
	for i, a := range p.args {
		fns[i] = toBytes(a)
	}
	p.add = func(s *AggState, env *Env, b *chunk.Batch, row int) {
		m := env.mark()
		defer env.release(m)
		text := env.buf(64)
		for _, f := range fns {
			v, null := f(env, b, row)
			if null {
				return
			}
			text = append(text, v...)
		}
		if len(p.order) == 0 {
			p.concat(s, env, text)
			return
		}
		keys := make([]types.Value, len(p.order))
		for i, k := range p.order {
			keys[i] = k.Value(env, b, row).Clone()
		}
		x := s.extra()
		x.rows = append(x.rows, concatRow{bytes.Clone(text), keys})
		x.size += len(text) + 64 + 32*len(keys)
		s.n++
	}
	p.merge = func(s, o *AggState, env *Env) {
		if o.ext == nil || o.n == 0 {
			return
		}
		if len(p.order) > 0 {
			x := s.extra()
			x.rows = append(x.rows, o.ext.rows...)
			x.size += o.ext.size
			s.n += o.n
			return
		}
		rows := o.n - 1
		p.concat(s, env, o.ext.text)
		s.n += rows
	}
	p.result = p.concatResult
}

// concat appends one text, with the separator before all but the first, and cuts at the limit.
func (p *AggProgram) concat(s *AggState, env *Env, text []byte) {
	s.n++
	x := s.extra()
	if x.cut {
		return
	}
	if s.n > 1 {
		x.text = append(x.text, p.sep...)
	}
	x.text = append(x.text, text...)
	limit := env.GroupConcatMaxLen
	if limit == 0 {
		limit = 1024
	}
	if len(x.text) <= limit {
		return
	}
	for limit > 0 && !p.coll.IsBinary() && x.text[limit]&0xC0 == 0x80 {
		limit--
	}
	x.text, x.cut = x.text[:limit], true
	env.problem(sqlerr.ErrCutValueGroupConcat, s.n)
}

func (p *AggProgram) concatResult(s *AggState, env *Env) types.Value {
	if s.n == 0 {
		return types.Null()
	}
	x := s.extra()
	if len(x.rows) > 0 {
		p.sortRows(x.rows)
		rows := x.rows
		x.rows, x.text, s.n = nil, x.text[:0], 0
		for _, r := range rows {
			p.concat(s, env, r.text)
		}
		x.rows = rows
	}
	return types.Str(x.text)
}

func (p *AggProgram) sortRows(rows []concatRow) {
	slices.SortStableFunc(rows, func(a, b concatRow) int {
		for i := range a.keys {
			c := types.Compare(a.keys[i], b.keys[i], p.order[i].Type.Collation)
			if p.desc[i] {
				c = -c
			}
			if c != 0 {
				return c
			}
		}
		return 0
	})
}

// Mergeable tells whether Merge works: of all but DISTINCT with ORDER BY, whose keys are not kept apart.
func (p *AggProgram) Mergeable() bool { return !p.distinct || len(p.order) == 0 }
