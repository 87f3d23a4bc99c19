package exec

import (
	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/internal/vexec"
)

// matchResult is the three-valued answer of IN.
type matchResult uint8

const (
	matchNo matchResult = iota
	matchYes
	matchUnknown
)

// nullAwareState is what NOT IN must remember of the build side besides the hash table: comparing with a NULL is unknown,
// which is neither a match nor the absence of one.
type nullAwareState struct {
	keys     *vexec.RowStore // the key values of every build row
	nullRows []int32         // build rows with a NULL in their key
	values   []types.Value   // scratch
}

func (s *nullAwareState) add(env *expr.Env, outs []vexec.Output, in *chunk.Batch, row int, i int32, null bool) {
	s.values = s.values[:0]
	for k := range outs {
		s.values = append(s.values, outs[k].Value(env, in, row))
	}
	s.keys.AppendValues(s.values)
	if null {
		s.nullRows = append(s.nullRows, i)
	}
}

// unknown decides, for a probe row that matches nothing, whether that is certain. It is not when some build row differs
// from it in no key column but is NULL, or faces a NULL, in one; and passes the other conditions.
func (j *hashJoin) unknown(b *chunk.Batch, row int, null bool) (matchResult, error) {
	s := j.nulls
	if !null && len(s.nullRows) == 0 {
		return matchNo, nil
	}
	s.values = s.values[:0]
	for k := range j.keys.probe {
		s.values = append(s.values, j.keys.probe[k].Value(j.env, b, row))
	}
	if j.env.Err != nil {
		return matchNo, j.env.Err
	}
	if null {
		for i := range s.keys.Len() {
			if m, err := j.unknownPair(b, row, int32(i)); err != nil || m {
				return unknownIf(m), err
			}
		}
		return matchNo, nil
	}
	for _, i := range s.nullRows {
		if m, err := j.unknownPair(b, row, i); err != nil || m {
			return unknownIf(m), err
		}
	}
	return matchNo, nil
}

func unknownIf(v bool) matchResult {
	if v {
		return matchUnknown
	}
	return matchNo
}

// unknownPair reports whether the comparison of the probe row (its key in nulls.values) with a build row is unknown.
func (j *hashJoin) unknownPair(b *chunk.Batch, row int, i int32) (bool, error) {
	keys, at := j.nulls.keys.At(int(i))
	for k, v := range j.nulls.values {
		w := keys.Cols[k].Value(at)
		if !v.IsNull() && !w.IsNull() && types.Compare(v, w, j.keys.types[k].Collation) != 0 {
			return false, nil
		}
	}
	if len(j.joiner.other) == 0 {
		return true, nil
	}
	return j.joiner.passes(b, row, i)
}
