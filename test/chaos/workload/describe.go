package workload

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// around is how many operations are shown before and after the first that has no place.
const around = 12

// describe shows the operations about the end of the longest beginning, in the
// order of their calls, that has an order.
func describe(h []porcupine.Operation) string {
	h = slices.Clone(h)
	slices.SortFunc(h, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
	good, bad := 0, len(h) // the first good are legal, the first bad are not
	for bad-good > 1 {
		mid := (good + bad) / 2
		if porcupine.CheckOperationsTimeout(register, cutAt(h, mid), checkWithin) == porcupine.Illegal {
			bad = mid
		} else {
			good = mid
		}
	}
	var out strings.Builder
	for i := max(0, bad-around); i < min(len(h), bad+around); i++ {
		op := h[i]
		end := "      ?"
		if op.Return != math.MaxInt64 {
			end = fmt.Sprintf("%9.4f", time.Duration(op.Return).Seconds())
		}
		mark := " "
		if i == bad-1 {
			mark = ">"
		}
		fmt.Fprintf(&out, "  %s %9.4f %s client %d %s\n", mark, time.Duration(op.Call).Seconds(), end, op.ClientId, register.DescribeOperation(op.Input, op.Output))
	}
	return out.String()
}

// cutAt is the beginning of a history: n operations, of which those that wrote and
// ended after the last call may have happened or not.
func cutAt(h []porcupine.Operation, n int) []porcupine.Operation {
	part := slices.Clone(h[:n])
	// A read of a write that was called later is a fault of the whole, not of the
	// beginning: writes of all that were called before the last return are kept.
	var end int64
	for _, op := range part {
		if op.Return != math.MaxInt64 {
			end = max(end, op.Return)
		}
	}
	for _, op := range h[n:] {
		if op.Call < end && op.Input.(act).kind != actRead {
			op.Return, op.Output = math.MaxInt64, answer{}
			part = append(part, op)
		}
	}
	return part
}
