package types

import (
	"bytes"
	"cmp"
	"math"

	"github.com/cairndb/cairn/internal/charset"
)

// Compare orders two values of the same kind: -1, 0 or 1 (any negative or positive number for strings). NULL comes before
// everything and equals NULL. Signed and unsigned integers compare with each other. Strings compare by coll, which other
// kinds ignore. Values of kinds that have no common order compare by kind, so that sorting is never undefined.
func Compare(a, b Value, coll charset.ID) int {
	if a.kind != b.kind {
		return compareMixed(a, b)
	}
	switch a.kind {
	case KindNull:
		return 0
	case KindInt, KindDuration:
		return cmp.Compare(int64(a.a), int64(b.a))
	case KindUint, KindTime:
		return cmp.Compare(a.a, b.a)
	case KindFloat:
		return cmp.Compare(math.Float64frombits(a.a), math.Float64frombits(b.a))
	case KindDecimal:
		return a.Decimal().Cmp(b.Decimal())
	case KindString:
		return charset.Get(coll).Compare(a.Bytes(), b.Bytes())
	}
	return bytes.Compare(a.Bytes(), b.Bytes())
}

func compareMixed(a, b Value) int {
	switch {
	case a.kind == KindInt && b.kind == KindUint:
		return CompareIntUint(a.Int(), b.Uint())
	case a.kind == KindUint && b.kind == KindInt:
		return -CompareIntUint(b.Int(), a.Uint())
	}
	return cmp.Compare(a.kind, b.kind)
}

// CompareIntUint orders a signed and an unsigned integer.
func CompareIntUint(a int64, b uint64) int {
	if a < 0 {
		return -1
	}
	return cmp.Compare(uint64(a), b)
}

// Equal tells whether two values are the same in the sense of Compare.
func Equal(a, b Value, coll charset.ID) bool {
	if a.kind == KindString && b.kind == KindString {
		return charset.Get(coll).Equal(a.Bytes(), b.Bytes())
	}
	return Compare(a, b, coll) == 0
}
