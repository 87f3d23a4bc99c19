package expr

import (
	"bytes"
	"cmp"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/decimal"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
)

// cmpOp is a comparison operator.
type cmpOp uint8

const (
	opEQ cmpOp = iota
	opNE
	opLT
	opLE
	opGT
	opGE
	opNullEQ
)

// cmpKind is what two values are compared as.
type cmpKind uint8

const (
	asInt cmpKind = iota
	asDecimal
	asFloat
	asText
	asTime
	asDuration
	// asIntText: an integer with a constant text, exactly when the text is an integer, as doubles when not.
	asIntText
)

// comparison is how a comparison was decided when it was built.
type comparison struct {
	op   cmpOp
	kind cmpKind
	coll charset.ID
}

var compareTable = []builtin{
	compareOp("=", opEQ), compareOp("!=", opNE), compareOp("<", opLT), compareOp("<=", opLE),
	compareOp(">", opGT), compareOp(">=", opGE), compareOp("<=>", opNullEQ),
	{name: "between", min: 3, max: 3, typ: typBetween, comp: compBetween, text: textBetween},
	{name: "not between", min: 3, max: 3, typ: typBetween, comp: compBetween, text: textBetween},
	{name: "in", min: 2, max: -1, typ: typIn, comp: compIn, text: textIn},
	{name: "not in", min: 2, max: -1, typ: typIn, comp: compIn, text: textIn},
	{name: "strcmp", min: 2, max: 2, flags: fStrict, typ: typStrcmp, comp: compStrcmp},
}

func compareOp(name string, op cmpOp) builtin {
	b := builtin{name: name, min: 2, max: 2, infix: name, flags: fStrictSame, comp: compCompare}
	if op == opNullEQ {
		b.flags = fNeverNull
	}
	b.typ = func(env *BuildEnv, c *Call) error {
		c.Typ = types.NewBool()
		cm, err := decide(env, c.Fn, c.Args[0], c.Args[1])
		cm.op = op
		c.extra = cm
		return err
	}
	return b
}

// decide picks the kind of a comparison of a and b.
func decide(env *BuildEnv, fn string, a, b Expr) (comparison, error) {
	kind := kindOf(a, b)
	cm := comparison{kind: kind}
	switch kind {
	case asText:
		d, err := agree(env, fn, true, a, b)
		cm.coll = d.coll
		return cm, err
	case asTime:
		if err := constantDate(a, b); err != nil {
			return cm, err
		}
		return cm, constantDate(b, a)
	}
	return cm, nil
}

// constantDate refuses to compare a date column with a constant text that is no date, as MySQL does.
func constantDate(e, with Expr) error {
	k, ok := e.(*Const)
	if !ok || k.Val.Kind() != types.KindString {
		return nil
	}
	quiet := &Env{Mode: ModeAllowInvalidDates}
	if _, ok := quiet.parseTime(k.Val.Bytes()); ok {
		return nil
	}
	name := "DATETIME"
	switch with.Type().Tp {
	case types.TypeDate:
		name = "DATE"
	case types.TypeTimestamp:
		name = "TIMESTAMP"
	}
	return sqlerr.New(sqlerr.ErrWrongValue, name, string(k.Val.Bytes()))
}

func kindOf(a, b Expr) cmpKind {
	ta, tb := a.Type(), b.Type()
	ca, cb := valueClass(ta), valueClass(tb)
	// A NULL takes the other side's class.
	if isNullType(ta) {
		ca, ta = cb, tb
	} else if isNullType(tb) {
		cb, tb = ca, ta
	}
	// ENUM and SET compare as numbers with numbers, as names with the rest.
	if ca == cb {
		return sameKind(ca)
	}
	if ca == types.ClassString || ca == types.ClassJSON {
		return mixedKind(b, cb, a)
	}
	if cb == types.ClassString || cb == types.ClassJSON {
		return mixedKind(a, ca, b)
	}
	aTemporal, bTemporal := ta.IsTemporal(), tb.IsTemporal()
	switch {
	case aTemporal && bTemporal:
		return asTime
	case aTemporal:
		return temporalNumber(a, b)
	case bTemporal:
		return temporalNumber(b, a)
	case ca == types.ClassFloat || cb == types.ClassFloat:
		return asFloat
	}
	return asDecimal
}

func sameKind(c types.Class) cmpKind {
	switch c {
	case types.ClassInt:
		return asInt
	case types.ClassFloat:
		return asFloat
	case types.ClassDecimal:
		return asDecimal
	case types.ClassTime:
		return asTime
	case types.ClassDuration:
		return asDuration
	}
	return asText
}

// mixedKind is the kind of comparing e, of class c that is no text, with a text.
func mixedKind(e Expr, c types.Class, text Expr) cmpKind {
	switch c {
	case types.ClassTime:
		return asTime
	case types.ClassDuration:
		return asDuration
	case types.ClassInt:
		if isValue(text) && !text.Type().TextForm() && e.Type().Tp != types.TypeBit {
			return asIntText
		}
	case types.ClassDecimal:
		if _, ok := e.(*Column); ok && isValue(text) {
			return asDecimal
		}
	}
	return asFloat
}

func isValue(e Expr) bool {
	switch e.(type) {
	case *Const, *Param:
		return true
	}
	return false
}

// temporalNumber is the kind of comparing a temporal expression with a number: as times when the number is a constant
// that reads as one.
func temporalNumber(t, num Expr) cmpKind {
	k, ok := num.(*Const)
	if _, isParam := num.(*Param); isParam || (ok && valueClass(k.Typ) != types.ClassFloat) {
		quiet := &Env{}
		if t.Type().Class() == types.ClassDuration {
			return asDuration
		}
		if isParam {
			return asTime
		}
		if _, good := quiet.numberTime(constDecimal(k)); good {
			return asTime
		}
	}
	if num.Type().Class() == types.ClassFloat {
		return asFloat
	}
	return asDecimal
}

func constDecimal(k *Const) decimal.Decimal {
	d, _ := toDec(constProgram(k.Val, k.Typ))(&Env{}, nil, 0)
	return d
}

func compCompare(cc *compiler, c *Call) *Program {
	cm := c.extra.(comparison)
	x, y := cc.prog(c.Args[0]), cc.prog(c.Args[1])
	p := intProgram(compileComparison(cc, cm, x, y))
	if cm.kind == asInt || cm.kind == asTime || cm.kind == asDuration {
		p.kernel = kernelFor(cm.op, x, constantAs(cm.kind, y))
	}
	return p
}

// compileComparison makes the 0, 1 or NULL of "x op y".
func compileComparison(cc *compiler, cm comparison, x, y *Program) Fn[int64] {
	switch cm.kind {
	case asInt:
		return compareInts(cm.op, x, y)
	case asFloat:
		return ordered(cm.op, toFloat(x), toFloat(y))
	case asTime:
		return ordered(cm.op, toTime(x), toTime(y))
	case asDuration:
		return ordered(cm.op, toDur(x), toDur(y))
	case asIntText:
		return compareIntText(cm.op, x, y)
	case asDecimal:
		return compareSmall(cm.op, x, y, threeWay(cm.op, toDec(x), toDec(y), decimal.Decimal.Cmp))
	}
	return compareTexts(cm.op, charset.Get(cm.coll), x, y)
}

// constantAs is a constant in the form a comparison of this kind wants it: the text of a date as a date.
func constantAs(kind cmpKind, p *Program) *Program {
	if p.konst == nil || p.konst.IsNull() || kind == asInt || p.Bytes == nil {
		return p
	}
	env := &Env{}
	t := types.NewTemporal(types.TypeDatetime, 6)
	if kind == asDuration {
		t = types.NewTemporal(types.TypeDuration, 6)
	}
	quiet := true
	env.Warn = warnFlag(&quiet)
	v := convertTo(env, *p.konst, t)
	if !quiet || env.Err != nil || v.IsNull() || hasOffset(p.konst.Bytes()) {
		return p
	}
	return constProgram(v, t)
}

func compareTexts(op cmpOp, coll *charset.Collation, x, y *Program) Fn[int64] {
	fx, fy := toBytes(x), toBytes(y)
	if (op == opEQ || op == opNE) && coll.Bytewise && !coll.PadSpace {
		want := boolInt(op == opEQ)
		return func(env *Env, b *chunk.Batch, row int) (int64, bool) {
			s, null := fx(env, b, row)
			if null {
				return 0, true
			}
			t, null := fy(env, b, row)
			if null {
				return 0, true
			}
			if bytes.Equal(s, t) {
				return want, false
			}
			return 1 - want, false
		}
	}
	return threeWay(op, fx, fy, coll.Compare)
}

// ordered compares values that Go can order. One closure for each operator keeps the row loop free of switches.
func ordered[T cmp.Ordered](op cmpOp, x, y Fn[T]) Fn[int64] {
	switch op {
	case opEQ:
		return func(env *Env, b *chunk.Batch, row int) (int64, bool) {
			v, n := x(env, b, row)
			if n {
				return 0, true
			}
			w, n := y(env, b, row)
			return boolInt(v == w && !n), n
		}
	case opNE:
		return func(env *Env, b *chunk.Batch, row int) (int64, bool) {
			v, n := x(env, b, row)
			if n {
				return 0, true
			}
			w, n := y(env, b, row)
			return boolInt(v != w && !n), n
		}
	case opLT:
		return func(env *Env, b *chunk.Batch, row int) (int64, bool) {
			v, n := x(env, b, row)
			if n {
				return 0, true
			}
			w, n := y(env, b, row)
			return boolInt(v < w && !n), n
		}
	case opLE:
		return func(env *Env, b *chunk.Batch, row int) (int64, bool) {
			v, n := x(env, b, row)
			if n {
				return 0, true
			}
			w, n := y(env, b, row)
			return boolInt(v <= w && !n), n
		}
	case opGT:
		return ordered(opLT, y, x)
	case opGE:
		return ordered(opLE, y, x)
	}
	return func(env *Env, b *chunk.Batch, row int) (int64, bool) {
		v, n := x(env, b, row)
		w, m := y(env, b, row)
		if n || m {
			return boolInt(n && m), false
		}
		return boolInt(v == w), false
	}
}

// threeWay compares values with a function that orders them.
func threeWay[T any](op cmpOp, x, y Fn[T], compare func(T, T) int) Fn[int64] {
	if op == opNullEQ {
		return func(env *Env, b *chunk.Batch, row int) (int64, bool) {
			v, n := x(env, b, row)
			w, m := y(env, b, row)
			if n || m {
				return boolInt(n && m), false
			}
			return boolInt(compare(v, w) == 0), false
		}
	}
	holds := resultTable(op)
	return func(env *Env, b *chunk.Batch, row int) (int64, bool) {
		v, n := x(env, b, row)
		if n {
			return 0, true
		}
		w, n := y(env, b, row)
		if n {
			return 0, true
		}
		return holds[sign(compare(v, w))+1], false
	}
}

func sign(n int) int {
	switch {
	case n < 0:
		return -1
	case n > 0:
		return 1
	}
	return 0
}

// resultTable gives the operator's result for less, equal and greater.
func resultTable(op cmpOp) [3]int64 {
	return [...][3]int64{
		opEQ: {0, 1, 0}, opNE: {1, 0, 1}, opLT: {1, 0, 0}, opLE: {1, 1, 0}, opGT: {0, 0, 1}, opGE: {0, 1, 1},
		opNullEQ: {0, 1, 0},
	}[op]
}

// compareInts compares integers of any signs.
func compareInts(op cmpOp, x, y *Program) Fn[int64] {
	ux, uy := x.Type.Unsigned(), y.Type.Unsigned()
	fx, fy := toIntBits(x), toIntBits(y)
	if k := y.konst; k != nil && !k.IsNull() && ux != uy && k.Int() >= 0 {
		uy = ux // a constant that reads the same either way
	}
	if k := x.konst; k != nil && !k.IsNull() && ux != uy && k.Int() >= 0 {
		ux = uy
	}
	switch {
	case !ux && !uy:
		if x.col >= 0 && y.konst != nil && !y.konst.IsNull() {
			return columnConst(op, x.col, y.konst.Int())
		}
		if y.konst != nil && !y.konst.IsNull() && op != opNullEQ {
			return valueConst(op, fx, y.konst.Int())
		}
		if x.col >= 0 && y.param > 0 && op == opEQ {
			return columnParam(x.col, y.param-1, ordered(op, fx, fy))
		}
		return ordered(op, fx, fy)
	case ux && uy:
		return ordered(op, asUnsigned(fx), asUnsigned(fy))
	case ux:
		return threeWay(op, fx, fy, func(a, b int64) int { return -compareSignedUnsigned(b, a) })
	}
	return threeWay(op, fx, fy, compareSignedUnsigned)
}

func asUnsigned(f Fn[int64]) Fn[uint64] {
	return func(env *Env, b *chunk.Batch, row int) (uint64, bool) {
		v, null := f(env, b, row)
		return uint64(v), null
	}
}

// compareSignedUnsigned compares a signed number with the bits of an unsigned one.
func compareSignedUnsigned(s, u int64) int {
	if s < 0 || u < 0 {
		return -1
	}
	return cmp.Compare(s, u)
}

// columnConst is the commonest predicate of all: a signed column against a constant, in one closure.
func columnConst(op cmpOp, i int, k int64) Fn[int64] {
	switch op {
	case opEQ, opNullEQ:
		return func(_ *Env, b *chunk.Batch, row int) (int64, bool) {
			c := b.Cols[i]
			null := c.IsNull(row)
			return boolInt(c.Int(row) == k && !null), null && op == opEQ
		}
	case opNE:
		return func(_ *Env, b *chunk.Batch, row int) (int64, bool) {
			c := b.Cols[i]
			return boolInt(c.Int(row) != k), c.IsNull(row)
		}
	case opLT:
		return func(_ *Env, b *chunk.Batch, row int) (int64, bool) {
			c := b.Cols[i]
			return boolInt(c.Int(row) < k), c.IsNull(row)
		}
	case opLE:
		return func(_ *Env, b *chunk.Batch, row int) (int64, bool) {
			c := b.Cols[i]
			return boolInt(c.Int(row) <= k), c.IsNull(row)
		}
	case opGT:
		return func(_ *Env, b *chunk.Batch, row int) (int64, bool) {
			c := b.Cols[i]
			return boolInt(c.Int(row) > k), c.IsNull(row)
		}
	}
	return func(_ *Env, b *chunk.Batch, row int) (int64, bool) {
		c := b.Cols[i]
		return boolInt(c.Int(row) >= k), c.IsNull(row)
	}
}

// valueConst compares anything computed with a constant.
func valueConst(op cmpOp, x Fn[int64], k int64) Fn[int64] {
	holds := resultTable(op)
	return func(env *Env, b *chunk.Batch, row int) (int64, bool) {
		v, null := x(env, b, row)
		if null {
			return 0, true
		}
		return holds[cmp.Compare(v, k)+1], false
	}
}

// columnParam is column = parameter in one closure; slow serves a parameter of another kind or NULL.
func columnParam(i, param int, slow Fn[int64]) Fn[int64] {
	return func(env *Env, b *chunk.Batch, row int) (int64, bool) {
		if param >= len(env.Params) || env.Params[param].Kind() != types.KindInt {
			return slow(env, b, row)
		}
		c := b.Cols[i]
		null := c.IsNull(row)
		return boolInt(c.Int(row) == env.Params[param].Int() && !null), null
	}
}

// compareIntText compares an integer with a constant text, one of them on either side.
func compareIntText(op cmpOp, x, y *Program) Fn[int64] {
	if x.Bytes != nil {
		return compareIntText(swapped(op), y, x)
	}
	fx, fy, unsigned := x.Int, y.Bytes, x.Type.Unsigned()
	compare := func(env *Env, v int64, s []byte) int {
		n, big, clean := textToInt(s)
		if !clean {
			f := float64(v)
			if unsigned {
				f = float64(uint64(v))
			}
			return cmp.Compare(f, env.textFloat(s))
		}
		switch {
		case unsigned && (big || n >= 0):
			return cmp.Compare(uint64(v), uint64(n))
		case unsigned:
			return 1
		case big:
			return -1
		}
		return cmp.Compare(v, n)
	}
	holds := resultTable(op)
	return func(env *Env, b *chunk.Batch, row int) (int64, bool) {
		v, n := fx(env, b, row)
		s, m := fy(env, b, row)
		if n || m {
			return boolInt(op == opNullEQ && n && m), op != opNullEQ
		}
		return holds[compare(env, v, s)+1], false
	}
}

func swapped(op cmpOp) cmpOp {
	switch op {
	case opLT:
		return opGT
	case opLE:
		return opGE
	case opGT:
		return opLT
	case opGE:
		return opLE
	}
	return op
}

func typStrcmp(env *BuildEnv, c *Call) error {
	c.Typ = types.NewInt()
	c.Typ.Flen = 2
	d, err := agree(env, c.Fn, true, c.Args...)
	c.extra = d.coll
	return err
}

func compStrcmp(cc *compiler, c *Call) *Program {
	coll := charset.Get(c.extra.(charset.ID))
	return intProgram(map2(cc.str(c.Args[0]), cc.str(c.Args[1]), func(_ *Env, a, b []byte) (int64, bool) {
		return int64(sign(coll.Compare(a, b))), false
	}))
}
