package exec

import (
	"context"

	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/internal/vexec"
	"github.com/cairndb/cairn/sqlnode/plan"
)

// noRow stands for "no build row": the end of a chain, or the NULL row of an outer join.
const noRow = -1

// joiner turns batches of probe rows, each with a chain of candidate build rows, into joined rows. The operators above it
// (hash, nested loop and index join) differ only in how they find the candidates.
//
// Output order is that of the probe rows, and among the matches of one probe row that of the build rows.
type joiner struct {
	env        *expr.Env
	typ        plan.JoinType
	probeCols  int
	probeFirst bool // probe columns come first in the output
	other      []*expr.Program

	build *vexec.RowStore
	next  []int32 // next[row] is the next build row of the same chain, or noRow

	// State of the batch of probe rows being joined.
	probe *chunk.Batch
	heads []int32 // first candidate of each counting probe row, or noRow
	pos   int     // the probe row at work
	chain int32   // its next candidate, when mid is true
	mid   bool

	probeRows []int // pairs gathered for one output batch
	buildRows []int32
	passed    []int32      // build rows of the probe row at work that passed other
	passedAt  int          // how many of them are gathered already
	pair      *chunk.Batch // candidates to test against other
}

func newJoiner(env *expr.Env, typ plan.JoinType, probe, build []types.Type, probeFirst bool, other []*expr.Program) *joiner {
	j := &joiner{env: env, typ: typ, probeCols: len(probe), probeFirst: probeFirst, other: other}
	if len(other) > 0 {
		first, second := probe, build
		if !probeFirst {
			first, second = build, probe
		}
		pairTypes := append(append(make([]types.Type, 0, len(probe)+len(build)), first...), second...)
		j.pair = chunk.NewBatch(pairTypes, 0)
	}
	return j
}

// start begins a batch of probe rows. heads has one entry per counting row and is kept until finished.
func (j *joiner) start(probe *chunk.Batch, heads []int32) {
	j.probe, j.heads, j.pos, j.mid = probe, heads, 0, false
}

// finished reports whether all probe rows have been joined.
func (j *joiner) finished() bool { return j.probe == nil || j.pos == len(j.heads) }

// fill appends joined rows of an inner or left join to the empty batch out, at most chunk.MaxRows. No rows means that the
// batch of probe rows is finished.
func (j *joiner) fill(ctx context.Context, out *chunk.Batch) error {
	for !j.finished() {
		j.probeRows, j.buildRows = j.probeRows[:0], j.buildRows[:0]
		if j.typ == plan.JoinLeft && len(j.other) > 0 {
			if err := j.gatherTested(ctx); err != nil {
				return err
			}
			j.write(out, j.probeRows, j.buildRows)
			return nil
		}
		j.gather()
		j.write(out, j.probeRows, j.buildRows)
		if len(j.other) > 0 {
			expr.Filter(j.env, j.other, out)
			if j.env.Err != nil {
				return j.env.Err
			}
		}
		if out.NumRows() > 0 {
			return nil
		}
		out.Reset()
		if err := context.Cause(ctx); err != nil {
			return err
		}
	}
	return nil
}

// gather collects candidate pairs.
func (j *joiner) gather() {
	for j.pos < len(j.heads) {
		row, chain := j.probe.Row(j.pos), j.chain
		if !j.mid {
			chain = j.heads[j.pos]
			if chain == noRow && j.typ == plan.JoinLeft {
				j.probeRows, j.buildRows = append(j.probeRows, row), append(j.buildRows, noRow)
			}
		}
		for chain != noRow && len(j.probeRows) < chunk.MaxRows {
			j.probeRows, j.buildRows = append(j.probeRows, row), append(j.buildRows, chain)
			chain = j.next[chain]
		}
		if chain != noRow {
			j.chain, j.mid = chain, true
			return
		}
		j.pos++
		j.mid = false
		if len(j.probeRows) >= chunk.MaxRows {
			return
		}
	}
}

// gatherTested collects pairs that passed the other conditions, and the NULL row for probe rows without any.
func (j *joiner) gatherTested(ctx context.Context) error {
	for j.pos < len(j.heads) && len(j.probeRows) < chunk.MaxRows {
		row := j.probe.Row(j.pos)
		if !j.mid {
			j.passed, j.passedAt = j.passed[:0], 0
			for chain := j.heads[j.pos]; chain != noRow; {
				var err error
				if chain, err = j.test(ctx, j.probe, row, chain); err != nil {
					return err
				}
			}
			if len(j.passed) == 0 {
				j.passed = append(j.passed, noRow)
			}
		}
		n := min(len(j.passed)-j.passedAt, chunk.MaxRows-len(j.probeRows))
		for _, b := range j.passed[j.passedAt : j.passedAt+n] {
			j.probeRows, j.buildRows = append(j.probeRows, row), append(j.buildRows, b)
		}
		j.passedAt += n
		j.mid = j.passedAt < len(j.passed)
		if !j.mid {
			j.pos++
		}
	}
	return nil
}

// test appends to passed those of the next candidates of a probe row, at most one batch from chain on, that pass the other
// conditions. It returns the rest of the chain.
func (j *joiner) test(ctx context.Context, probe *chunk.Batch, row int, chain int32) (rest int32, err error) {
	at := len(j.passed)
	for n := 0; chain != noRow && n < chunk.MaxRows; n++ {
		j.passed = append(j.passed, chain)
		chain = j.next[chain]
	}
	n, err := j.check(probe, row, j.passed[at:])
	if err != nil {
		return noRow, err
	}
	j.passed = j.passed[:at+n]
	return chain, context.Cause(ctx)
}

// check moves the candidates that pass the other conditions to the front and returns their number.
func (j *joiner) check(probe *chunk.Batch, row int, candidates []int32) (int, error) {
	j.pair.Reset()
	probeAt, buildAt := j.offsets()
	for c, src := range probe.Cols {
		for range candidates {
			j.pair.Cols[probeAt+c].AppendFrom(src, row)
		}
	}
	for _, b := range candidates {
		j.build.CopyTo(j.pair, buildAt, int(b))
	}
	if len(j.pair.Cols) == 0 {
		j.pair.SetLen(len(candidates))
	}
	expr.Filter(j.env, j.other, j.pair)
	if j.env.Err != nil {
		return 0, j.env.Err
	}
	n := j.pair.NumRows()
	for i := range n {
		candidates[i] = candidates[j.pair.Row(i)]
	}
	return n, nil
}

// passes reports whether the pair of a probe row and one build row passes the other conditions.
func (j *joiner) passes(probe *chunk.Batch, row int, build int32) (bool, error) {
	candidates := [1]int32{build}
	n, err := j.check(probe, row, candidates[:])
	return n > 0, err
}

// matches reports whether a probe row has a match, for semi and anti joins.
func (j *joiner) matches(ctx context.Context, probe *chunk.Batch, row int, head int32) (bool, error) {
	if len(j.other) == 0 {
		return head != noRow, nil
	}
	for head != noRow {
		j.passed = j.passed[:0]
		var err error
		if head, err = j.test(ctx, probe, row, head); err != nil {
			return false, err
		}
		if len(j.passed) > 0 {
			return true, nil
		}
	}
	return false, nil
}

// offsets returns where the probe and the build columns begin in the output.
func (j *joiner) offsets() (probeAt, buildAt int) {
	if j.probeFirst {
		return 0, j.probeCols
	}
	return len(j.build.Types()), 0
}

// write appends pairs to out, column by column.
func (j *joiner) write(out *chunk.Batch, probeRows []int, buildRows []int32) {
	probeAt, buildAt := j.offsets()
	for c, src := range j.probe.Cols {
		dst := out.Cols[probeAt+c]
		for _, r := range probeRows {
			dst.AppendFrom(src, r)
		}
	}
	for c := range j.build.Types() {
		dst := out.Cols[buildAt+c]
		for _, r := range buildRows {
			if r == noRow {
				dst.AppendNull()
				continue
			}
			b, row := j.build.At(int(r))
			dst.AppendFrom(b.Cols[c], row)
		}
	}
	if len(out.Cols) == 0 {
		out.SetLen(len(probeRows))
	}
}
