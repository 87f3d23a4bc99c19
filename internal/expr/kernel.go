package expr

import (
	"math"

	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/types"
)

// rangeKernel filters a whole batch by "column between two fixed values", which is what =, <, <=, >, >=, != and BETWEEN
// of a column with constants or parameters come down to. The bounds are read once for a batch and the loop runs over the
// column's lane: 1 ns a row, where the closure takes 3 with a constant and 8 with a parameter.
type rangeKernel struct {
	col    int
	lo, hi bound // inclusive; nil means unbounded
	not    bool  // rows outside of the range
}

// bound gives a bound for this execution; ok is false when it is NULL or of an unexpected kind: then the closure decides.
type bound func(env *Env) (v int64, ok bool)

// kernelFor makes the kernel of "x op y", nil when there is none.
func kernelFor(op cmpOp, x, y *Program) *rangeKernel {
	if y.col >= 0 && x.col < 0 {
		return kernelFor(swapped(op), y, x)
	}
	v := boundOf(x, y)
	if v == nil {
		return nil
	}
	k := &rangeKernel{col: x.col}
	switch op {
	case opEQ:
		k.lo, k.hi = v, v
	case opNE:
		k.lo, k.hi, k.not = v, v, true
	case opLE:
		k.hi = v
	case opGE:
		k.lo = v
	case opLT:
		k.hi = moved(v, math.MinInt64, -1)
	case opGT:
		k.lo = moved(v, math.MaxInt64, 1)
	default:
		return nil
	}
	return k
}

// boundOf reads y, a constant or parameter, as a value of x's lane; nil when x is no plain column of signed 64-bit
// numbers or times, or y is of another kind.
func boundOf(x, y *Program) bound {
	kind := types.KindInt
	switch {
	case x.col < 0:
		return nil
	case x.Int != nil && !x.Type.Unsigned() && y.Int != nil && !y.Type.Unsigned():
	case x.Time != nil && y.Time != nil:
		kind = types.KindTime
	case x.Dur != nil && y.Dur != nil:
		kind = types.KindDuration
	default:
		return nil
	}
	switch {
	case y.konst != nil && y.konst.Kind() == kind:
		v := int64(y.konst.Lane())
		return func(*Env) (int64, bool) { return v, true }
	case y.param > 0:
		i := y.param - 1
		return func(env *Env) (int64, bool) {
			if i >= len(env.Params) || env.Params[i].Kind() != kind {
				return 0, false
			}
			return int64(env.Params[i].Lane()), true
		}
	}
	return nil
}

// moved is v+by, not ok at the end of the numbers.
func moved(v bound, end, by int64) bound {
	return func(env *Env) (int64, bool) {
		n, ok := v(env)
		return n + by, ok && n != end
	}
}

// run narrows b.Sel; it does nothing and returns false when a bound is not known.
func (k *rangeKernel) run(env *Env, b *chunk.Batch) bool {
	lo, hi := int64(math.MinInt64), int64(math.MaxInt64)
	ok := true
	if k.lo != nil {
		if lo, ok = k.lo(env); !ok {
			return false
		}
	}
	if k.hi != nil {
		if hi, ok = k.hi(env); !ok {
			return false
		}
	}
	col := b.Cols[k.col]
	lane := col.Ints()
	out := b.SelBuffer()
	switch {
	case lo > hi:
		if k.not {
			return false
		}
	case b.Sel != nil:
		out = k.narrow(out, b.Sel, lane, lo, hi)
	default:
		out = k.selectAll(out, lane, lo, hi)
	}
	if col.HasNull() {
		kept := out[:0]
		for _, r := range out {
			if !col.IsNull(int(r)) {
				kept = append(kept, r)
			}
		}
		out = kept
	}
	if b.Sel != nil || len(out) < len(lane) {
		b.Sel = out
	}
	return true
}

// selectAll appends the rows of the lane in [lo, hi], or outside of it. A row is written always and kept by moving the
// end, which spares the branch nobody can predict.
func (k *rangeKernel) selectAll(out []uint16, lane []int64, lo, hi int64) []uint16 {
	out = out[:len(lane)]
	width, n := uint64(hi)-uint64(lo), 0
	if k.not {
		for r, v := range lane {
			out[n] = uint16(r)
			n += int(boolInt(uint64(v)-uint64(lo) > width))
		}
		return out[:n]
	}
	for r, v := range lane {
		out[n] = uint16(r)
		n += int(boolInt(uint64(v)-uint64(lo) <= width))
	}
	return out[:n]
}

// narrow is selectAll for the rows of sel, whose memory out may be.
func (k *rangeKernel) narrow(out, sel []uint16, lane []int64, lo, hi int64) []uint16 {
	width := uint64(hi) - uint64(lo)
	for _, r := range sel {
		if (uint64(lane[r])-uint64(lo) <= width) != k.not {
			out = append(out, r)
		}
	}
	return out
}
