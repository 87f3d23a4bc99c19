package plan

import (
	"bytes"
	"slices"

	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/internal/types"
)

// Ranges describes parts of a key space (a table's handles or an index) by expressions. Build turns them into bytes once the parameters are
// known. The rows in the ranges are a superset of the rows that satisfy the conditions they were made from; where they are not exactly
// those rows the optimizer keeps the conditions as a filter.
type Ranges struct {
	Key  *KeyBuilder
	Alts []Range // union; empty = no rows
}

// Range is one interval: equality on the first len(Eq) key columns, then bounds on the next one.
type Range struct {
	Eq    []EqCond
	Lows  []Bound // all must hold
	Highs []Bound // all must hold
	// NotNull, without Lows, excludes NULLs of the bounded column. Highs imply it.
	NotNull bool
}

// EqCond says that a key column equals one of Vals.
type EqCond struct {
	Vals     []Scalar
	NullSafe bool // a NULL value matches NULL (IS NULL, <=>) instead of nothing
}

// Bound is one end of an interval.
type Bound struct {
	Scalar
	Incl bool
}

// KeyRange is a range of encoded keys [Start, End).
type KeyRange struct {
	Start, End []byte
}

// MaxBuiltRanges bounds the number of intervals a plan may describe by IN lists; the optimizer uses fewer columns beyond it.
const MaxBuiltRanges = 16384

// Build computes the key ranges: disjoint, non-empty, in the order of the values they hold. The result belongs to the caller.
func (r *Ranges) Build(env *expr.Env) ([]KeyRange, error) {
	out := make([]KeyRange, 0, len(r.Alts))
	for i := range r.Alts {
		var err error
		if out, err = r.Key.appendRange(out, env, &r.Alts[i]); err != nil {
			return nil, err
		}
	}
	out = normalize(out)
	if r.Key.IntHandle() && r.Key.Cols[0].domain == domainUint {
		out = r.Key.wrapUnsigned(out)
	}
	return out, nil
}

// wrapUnsigned maps ranges of unsigned handles, computed in unsigned order, to the stored encoding: the bits of a signed integer, so that
// handles from 2^63 on are stored before the others. The result is in the order of the values, which then is not the order of the keys.
func (k *KeyBuilder) wrapUnsigned(rs []KeyRange) []KeyRange {
	prefix := k.prefix(nil)
	end := keyAfter(slices.Clone(prefix))
	half := append(slices.Clone(prefix), 0x80)
	flip := func(key []byte) []byte {
		if len(key) == len(prefix) {
			return append(key, 0x80)
		}
		key[len(prefix)] ^= 0x80
		return key
	}
	var low, high []KeyRange
	for _, r := range rs {
		s, e := r.Start, r.End
		if bytes.Compare(s, half) < 0 {
			out := KeyRange{Start: flip(slices.Clone(s)), End: end}
			if bytes.Compare(e, half) < 0 {
				out.End = flip(slices.Clone(e))
			}
			low = append(low, out)
		}
		if bytes.Compare(e, half) > 0 {
			out := KeyRange{Start: prefix, End: half}
			if bytes.Compare(s, half) > 0 {
				out.Start = flip(slices.Clone(s))
			}
			if bytes.Compare(e, end) < 0 {
				out.End = flip(slices.Clone(e))
			}
			high = append(high, out)
		}
	}
	return append(low, high...)
}

// normalize sorts ranges and merges those that overlap or touch.
func normalize(rs []KeyRange) []KeyRange {
	if len(rs) < 2 {
		return rs
	}
	sorted := slices.IsSortedFunc(rs, compareStart)
	if !sorted {
		slices.SortFunc(rs, compareStart)
	}
	out := rs[:1]
	for _, r := range rs[1:] {
		last := &out[len(out)-1]
		if bytes.Compare(r.Start, last.End) > 0 {
			out = append(out, r)
			continue
		}
		if bytes.Compare(r.End, last.End) > 0 {
			last.End = r.End
		}
	}
	return out
}

func compareStart(a, b KeyRange) int { return bytes.Compare(a.Start, b.Start) }

// appendRange appends the intervals of one Range, in key order of the IN lists as given.
func (k *KeyBuilder) appendRange(out []KeyRange, env *expr.Env, r *Range) ([]KeyRange, error) {
	prefix := k.prefix(make([]byte, 0, 32+len(k.Cols)*10))
	return k.appendEq(out, env, r, prefix, 0)
}

// appendEq extends prefix with the values of equality column i and recurses; past the last it adds the bounds.
func (k *KeyBuilder) appendEq(out []KeyRange, env *expr.Env, r *Range, prefix []byte, i int) ([]KeyRange, error) {
	if i == len(r.Eq) {
		return k.appendBounds(out, env, r, prefix)
	}
	cond := &r.Eq[i]
	for j := range cond.Vals {
		v := cond.Vals[j].Value(env, nil, 0)
		if env.Err != nil {
			return nil, env.Err
		}
		if v.IsNull() {
			if !cond.NullSafe || k.IntHandle() {
				continue
			}
			var err error
			if out, err = k.appendEq(out, env, r, k.appendColumn(prefix[:len(prefix):len(prefix)], i, v), i+1); err != nil {
				return nil, err
			}
			continue
		}
		c, err := k.cut(env, i, v, cond.Vals[j].Expr.Type())
		if err != nil {
			return nil, err
		}
		switch c.kind {
		case cutExact:
			next := k.appendColumn(prefix[:len(prefix):len(prefix)], i, c.lo)
			if out, err = k.appendEq(out, env, r, next, i+1); err != nil {
				return nil, err
			}
		case cutFuzzy:
			start, end := k.span(prefix, i, c)
			if cond.NullSafe { // a value that cannot be converted compares as NULL
				start = slices.Clone(prefix)
			}
			if bytes.Compare(start, end) < 0 {
				out = append(out, KeyRange{Start: start, End: end})
			}
		}
	}
	return out, nil
}

// span is the interval of a fuzzy cut: everything that may equal the value.
func (k *KeyBuilder) span(prefix []byte, i int, c cut) (start, end []byte) {
	start = k.afterNull(prefix, i)
	if c.hasLo {
		start = k.appendColumn(slices.Clone(prefix), i, c.lo)
	}
	end = keyAfter(slices.Clone(prefix))
	if c.hasHi {
		end = keyAfter(k.appendColumn(slices.Clone(prefix), i, c.hi))
	}
	return start, end
}

// appendBounds adds the interval of the bounded column len(r.Eq), or the whole prefix.
func (k *KeyBuilder) appendBounds(out []KeyRange, env *expr.Env, r *Range, prefix []byte) ([]KeyRange, error) {
	col := len(r.Eq)
	start, end := slices.Clone(prefix), keyAfter(slices.Clone(prefix))
	if col < len(k.Cols) && (r.NotNull || len(r.Lows)+len(r.Highs) > 0) {
		start = k.afterNull(prefix, col)
	}
	for i := range r.Lows {
		b, empty, err := k.lowBound(env, prefix, col, &r.Lows[i])
		if err != nil || empty {
			return out, err
		}
		if b != nil && bytes.Compare(b, start) > 0 {
			start = b
		}
	}
	for i := range r.Highs {
		b, empty, err := k.highBound(env, prefix, col, &r.Highs[i])
		if err != nil || empty {
			return out, err
		}
		if b != nil && bytes.Compare(b, end) < 0 {
			end = b
		}
	}
	if bytes.Compare(start, end) < 0 {
		out = append(out, KeyRange{Start: start, End: end})
	}
	return out, nil
}

// lowBound computes the first key of x > v or x >= v; nil = unbounded.
func (k *KeyBuilder) lowBound(env *expr.Env, prefix []byte, col int, b *Bound) (key []byte, empty bool, err error) {
	c, empty, err := k.boundCut(env, col, b)
	if err != nil || empty {
		return nil, empty, err
	}
	switch c.kind {
	case cutExact:
		key = k.appendColumn(slices.Clone(prefix), col, c.lo)
		if !b.Incl {
			key = keyAfter(key)
		}
		return key, false, nil
	case cutBetween:
		if !c.hasHi {
			return nil, true, nil
		}
		return k.appendColumn(slices.Clone(prefix), col, c.hi), false, nil
	default:
		if !c.hasLo {
			return nil, false, nil
		}
		return k.appendColumn(slices.Clone(prefix), col, c.lo), false, nil
	}
}

// highBound computes the end key of x < v or x <= v; nil = unbounded.
func (k *KeyBuilder) highBound(env *expr.Env, prefix []byte, col int, b *Bound) (key []byte, empty bool, err error) {
	c, empty, err := k.boundCut(env, col, b)
	if err != nil || empty {
		return nil, empty, err
	}
	switch c.kind {
	case cutExact:
		key = k.appendColumn(slices.Clone(prefix), col, c.lo)
		if b.Incl {
			key = keyAfter(key)
		}
		return key, false, nil
	case cutBetween:
		if !c.hasLo {
			return nil, true, nil
		}
		return keyAfter(k.appendColumn(slices.Clone(prefix), col, c.lo)), false, nil
	default:
		if !c.hasHi {
			return nil, false, nil
		}
		return keyAfter(k.appendColumn(slices.Clone(prefix), col, c.hi)), false, nil
	}
}

func (k *KeyBuilder) boundCut(env *expr.Env, col int, b *Bound) (c cut, empty bool, err error) {
	v := b.Value(env, nil, 0)
	if env.Err != nil {
		return cut{}, false, env.Err
	}
	if v.IsNull() {
		return cut{}, true, nil
	}
	c, err = k.cut(env, col, v, b.Expr.Type())
	return c, false, err
}

// afterNull is the first key of the prefix whose column col is not NULL.
func (k *KeyBuilder) afterNull(prefix []byte, col int) []byte {
	if k.IntHandle() || k.Cols[col].NotNull {
		return slices.Clone(prefix)
	}
	return keyAfter(k.appendColumn(slices.Clone(prefix), col, types.Null()))
}

// keyAfter turns b, in place, into the smallest key greater than every key that starts with b.
func keyAfter(b []byte) []byte {
	for i := len(b) - 1; i >= 0; i-- {
		if b[i] != 0xff {
			b[i]++
			return b[:i+1]
		}
	}
	return append(b, bytes.Repeat([]byte{0xff}, 8)...) // unreachable: keys start with a table prefix
}

// OrderedWhole describes the whole key space where reading it in the order of the values takes more than one range: unsigned handles. nil
// means that the key order is the order of the values.
func (k *KeyBuilder) OrderedWhole() *Ranges {
	if !k.IntHandle() || k.Cols[0].domain != domainUint {
		return nil
	}
	return &Ranges{Key: k, Alts: []Range{{}}}
}
