package plan

import (
	"bytes"
	"math"
	"slices"
	"time"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/decimal"
	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/internal/types"
)

// domain is the kind of values a key column holds, as far as ranges on it are understood.
type domain uint8

const (
	domainNone domain = iota // conditions on the column are filters only
	domainInt
	domainUint
	domainFloat
	domainDecimal
	domainString
	domainTime      // DATE, DATETIME
	domainTimestamp // stored in UTC, compared in the session's time zone
	domainDuration
)

func domainOf(t types.Type) domain {
	switch t.Tp {
	case types.TypeTiny, types.TypeShort, types.TypeInt24, types.TypeLong, types.TypeLonglong:
		if t.Unsigned() {
			return domainUint
		}
		return domainInt
	case types.TypeFloat, types.TypeDouble:
		return domainFloat
	case types.TypeNewDecimal:
		return domainDecimal
	case types.TypeDate, types.TypeDatetime:
		return domainTime
	case types.TypeTimestamp:
		return domainTimestamp
	case types.TypeDuration:
		return domainDuration
	}
	if t.IsString() {
		return domainString
	}
	return domainNone // ENUM, SET, BIT, YEAR, JSON
}

// accepts is the table of (column, value) pairs whose comparison orders as the key does. Pairs that are not listed are filters.
func (d domain) accepts(col, t types.Type, lit bool) (ok, exact bool) {
	if t.Tp == types.TypeNull {
		return d != domainNone, d != domainNone // nothing compares equal to NULL
	}
	if t.TextForm() || t.Tp == types.TypeBit || t.Tp == types.TypeYear || t.Tp == types.TypeJSON {
		return false, false
	}
	class := t.Class()
	number := class == types.ClassInt || class == types.ClassDecimal
	switch d {
	case domainInt, domainUint:
		text := class == types.ClassString && lit && t.Collation != charset.Binary
		return number || class == types.ClassFloat || text, number
	case domainFloat:
		return number || class == types.ClassFloat, false
	case domainDecimal:
		return number, number
	case domainString:
		same := class == types.ClassString && (t.Collation == col.Collation || (lit && t.Collation != charset.Binary))
		return same, same
	case domainTime, domainTimestamp:
		text := class == types.ClassString && lit && t.Collation != charset.Binary
		return class == types.ClassTime || text, class == types.ClassTime && d == domainTime
	case domainDuration:
		return class == types.ClassDuration, class == types.ClassDuration
	}
	return false, false
}

// cutKind says how a value divides the domain of a column.
type cutKind uint8

const (
	cutExact   cutKind = iota // the value is lo of the domain
	cutBetween                // it lies between lo and hi, neighbours in the domain; without hasLo (hasHi) it is below (above) all
	cutFuzzy                  // values from lo to hi may equal it; without hasLo (hasHi) the interval is open there
)

type cut struct {
	kind         cutKind
	lo, hi       types.Value
	hasLo, hasHi bool
}

func exactly(v types.Value) cut { return cut{kind: cutExact, lo: v, hi: v, hasLo: true, hasHi: true} }

// anything is the cut of a value that may equal any value of the domain.
var anything = cut{kind: cutFuzzy}

// cut finds where v, a value of type t that is not NULL, divides the values of key column i. The pair has been accepted.
func (k *KeyBuilder) cut(env *expr.Env, i int, v types.Value, t types.Type) (cut, error) {
	c := &k.Cols[i]
	out := anything
	switch c.domain {
	case domainInt, domainUint:
		out = cutInt(v, c.domain == domainUint)
	case domainFloat:
		out = cutFloat(v, t)
	case domainDecimal:
		out = cutDecimal(v)
	case domainString:
		if v.Kind() == types.KindString {
			out = exactly(v)
		}
	case domainTime:
		out = cutTime(v)
	case domainTimestamp:
		out = cutTimestamp(v, env.Loc)
	case domainDuration:
		if v.Kind() == types.KindDuration {
			out = exactly(v)
		}
	}
	if c.Prefix >= 0 && out.kind == cutExact {
		out.kind = cutFuzzy // longer values share the prefix
	}
	return out, nil
}

func cutInt(v types.Value, unsigned bool) cut {
	switch v.Kind() {
	case types.KindInt:
		return cutWhole(v.Int(), 0, false, unsigned)
	case types.KindUint:
		return cutWhole(0, v.Uint(), true, unsigned)
	case types.KindDecimal:
		return cutDecimalInt(v.Decimal(), unsigned)
	case types.KindFloat:
		return cutFloatInt(v.Float(), unsigned)
	case types.KindString:
		if n, st := types.ParseInt(v.Bytes()); st == 0 {
			c := cutWhole(n, 0, false, unsigned)
			if c.kind == cutExact {
				return c
			}
		}
		return anything
	}
	return anything
}

// below and above are cuts outside of the integers of a sign.
func below(unsigned bool) cut {
	if unsigned {
		return cut{kind: cutBetween, hi: types.Uint(0), hasHi: true}
	}
	return cut{kind: cutBetween, hi: types.Int(math.MinInt64), hasHi: true}
}

func above(unsigned bool) cut {
	if unsigned {
		return cut{kind: cutBetween, lo: types.Uint(math.MaxUint64), hasLo: true}
	}
	return cut{kind: cutBetween, lo: types.Int(math.MaxInt64), hasLo: true}
}

// cutWhole places the integer s, or u when isUint, among the integers of a sign.
func cutWhole(s int64, u uint64, isUint, unsigned bool) cut {
	switch {
	case unsigned && isUint:
		return exactly(types.Uint(u))
	case unsigned && s < 0:
		return below(true)
	case unsigned:
		return exactly(types.Uint(uint64(s)))
	case isUint && u > math.MaxInt64:
		return above(false)
	case isUint:
		return exactly(types.Int(int64(u)))
	}
	return exactly(types.Int(s))
}

func cutDecimalInt(d decimal.Decimal, unsigned bool) cut {
	lo, hi := wholeDecimal(d.Floor(), unsigned), wholeDecimal(d.Ceil(), unsigned)
	switch {
	case d.Floor().Cmp(d.Ceil()) == 0:
		return lo
	case lo.kind == cutExact && hi.kind == cutExact:
		return cut{kind: cutBetween, lo: lo.lo, hi: hi.lo, hasLo: true, hasHi: true}
	case hi.kind == cutExact: // between -1 and 0 of unsigned, or below the least
		return cut{kind: cutBetween, hi: hi.lo, hasHi: true}
	case lo.kind == cutExact:
		return cut{kind: cutBetween, lo: lo.lo, hasLo: true}
	case d.Sign() < 0:
		return below(unsigned)
	}
	return above(unsigned)
}

// wholeDecimal places a decimal without fraction.
func wholeDecimal(d decimal.Decimal, unsigned bool) cut {
	if unsigned {
		if d.Sign() < 0 {
			return below(true)
		}
		u, over := d.ToUint64()
		if over {
			return above(true)
		}
		return exactly(types.Uint(u))
	}
	n, over := d.ToInt64()
	switch {
	case !over:
		return exactly(types.Int(n))
	case d.Sign() < 0:
		return below(false)
	}
	return above(false)
}

// cutFloatInt places a double among integers that are compared as doubles: from 2^53 on several integers equal one double.
func cutFloatInt(f float64, unsigned bool) cut {
	const exact = 1 << 53
	if math.Abs(f) >= exact || math.IsNaN(f) {
		return fuzzyFloat(f, unsigned)
	}
	fl, ce := int64(math.Floor(f)), int64(math.Ceil(f))
	lo, hi := cutWhole(fl, 0, false, unsigned), cutWhole(ce, 0, false, unsigned)
	if fl == ce {
		return lo
	}
	out := cut{kind: cutBetween}
	if lo.kind == cutExact {
		out.lo, out.hasLo = lo.lo, true
	}
	if hi.kind == cutExact {
		out.hi, out.hasHi = hi.lo, true
	}
	if !out.hasLo && !out.hasHi {
		return below(unsigned)
	}
	return out
}

// fuzzyFloat is a generous interval of the integers that may equal a large double; beyond the integers it is open to that side.
func fuzzyFloat(f float64, unsigned bool) cut {
	out := cut{kind: cutFuzzy}
	lo, hi := math.Nextafter(f, math.Inf(-1)), math.Nextafter(f, math.Inf(1))
	top := float64(math.MaxInt64)
	if unsigned {
		top = float64(math.MaxUint64)
	}
	switch {
	case math.IsNaN(f):
	case f > 0 && lo >= top:
		c := above(unsigned)
		out.lo, out.hasLo = c.lo, true
	case f > 0:
		out.lo, out.hasLo = wholeFloat(lo, unsigned), true
		if hi < top {
			out.hi, out.hasHi = wholeFloat(hi, unsigned), true
		}
	case unsigned || hi <= -top:
		c := below(unsigned)
		out.hi, out.hasHi = c.hi, true
	default:
		out.hi, out.hasHi = types.Int(int64(hi)), true
		if lo > -top {
			out.lo, out.hasLo = types.Int(int64(lo)), true
		}
	}
	return out
}

func wholeFloat(f float64, unsigned bool) types.Value {
	if unsigned {
		return types.Uint(uint64(f))
	}
	return types.Int(int64(f))
}

func cutFloat(v types.Value, t types.Type) cut {
	f, st := types.AsFloat(v, t)
	if st != 0 || math.IsNaN(f) {
		return anything
	}
	if f == 0 { // -0 and 0 are equal
		return cut{kind: cutFuzzy, lo: types.Float(math.Copysign(0, -1)), hi: types.Float(0), hasLo: true, hasHi: true}
	}
	return exactly(types.Float(f))
}

func cutDecimal(v types.Value) cut {
	switch v.Kind() {
	case types.KindDecimal:
		return exactly(v)
	case types.KindInt:
		return exactly(types.Dec(decimal.FromInt(v.Int())))
	case types.KindUint:
		return exactly(types.Dec(decimal.FromUint(v.Uint())))
	}
	return anything
}

func cutTime(v types.Value) cut {
	switch v.Kind() {
	case types.KindTime:
		return exactly(v)
	case types.KindString:
		if t, truncated, ok := types.ParseTime(v.Bytes(), 6, types.AllowInvalidDates, nil); ok && !truncated {
			return exactly(types.TimeVal(t))
		}
	}
	return anything
}

// zoneSlack bounds how far local and UTC order may disagree around a change of the clocks.
const zoneSlack = 26 * time.Hour

// cutTimestamp places a local time among UTC times. Clocks that are put back make local times ambiguous, so the cut is an interval.
func cutTimestamp(v types.Value, loc *time.Location) cut {
	c := cutTime(v)
	if c.kind != cutExact {
		return anything
	}
	t := c.lo.Time()
	if t.IsZero() || t.ZeroInDate() {
		return anything
	}
	if loc == nil {
		loc = time.UTC
	}
	g := t.GoTime(loc)
	if y := g.Year(); y < 1971 || y > 2100 {
		return anything
	}
	lo, hi := types.TimeOf(g.UTC().Add(-zoneSlack)), types.TimeOf(g.UTC().Add(zoneSlack))
	return cut{kind: cutFuzzy, lo: types.TimeVal(lo), hi: types.TimeVal(hi), hasLo: true, hasHi: true}
}

// sortKeys orders keys, in reverse when desc.
func sortKeys(ks [][]byte, desc bool) {
	slices.SortFunc(ks, func(a, b []byte) int {
		if desc {
			a, b = b, a
		}
		return bytes.Compare(a, b)
	})
}
