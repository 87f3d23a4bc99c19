package exec

import (
	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/internal/vexec"
	"github.com/cairndb/cairn/sqlnode/plan"
)

// output turns an expression of a plan into what operators compute. Parameters are read now: their values do not change
// while a statement runs.
func output(env *expr.Env, s plan.Scalar) (vexec.Output, error) {
	switch e := s.Expr.(type) {
	case *expr.Const:
		return vexec.ValueOutput(e.Val, e.Typ), nil
	case *expr.Param:
		if e.Index >= len(env.Params) {
			return vexec.Output{}, sqlerr.New(sqlerr.ErrWrongArguments, "EXECUTE")
		}
		if v := env.Params[e.Index]; v.IsNull() || v.Kind() == e.Typ.Kind() {
			return vexec.ValueOutput(v, e.Typ), nil
		}
	}
	p, err := s.Program()
	if err != nil {
		return vexec.Output{}, err
	}
	return vexec.ProgramOutput(p), nil
}

func outputs(env *expr.Env, ss []plan.Scalar) ([]vexec.Output, error) {
	outs := make([]vexec.Output, len(ss))
	for i := range ss {
		var err error
		if outs[i], err = output(env, ss[i]); err != nil {
			return nil, err
		}
	}
	return outs, nil
}

func programs(ss []plan.Scalar) ([]*expr.Program, error) {
	if len(ss) == 0 {
		return nil, nil
	}
	ps := make([]*expr.Program, len(ss))
	for i := range ss {
		var err error
		if ps[i], err = ss[i].Program(); err != nil {
			return nil, err
		}
	}
	return ps, nil
}

func sortItems(env *expr.Env, keys []plan.SortKey) ([]vexec.SortItem, error) {
	items := make([]vexec.SortItem, len(keys))
	for i := range keys {
		o, err := output(env, keys[i].Scalar)
		if err != nil {
			return nil, err
		}
		items[i] = vexec.SortItem{Output: o, Desc: keys[i].Desc}
	}
	return items, nil
}

// rowCount evaluates a LIMIT operand; an absent one is absent.
func rowCount(env *expr.Env, s plan.Scalar, absent uint64) (uint64, error) {
	if s.IsZero() {
		return absent, nil
	}
	v := s.Value(env, oneRow(), 0)
	if env.Err != nil {
		return 0, env.Err
	}
	switch v.Kind() {
	case types.KindUint:
		return v.Uint(), nil
	case types.KindInt:
		if v.Int() >= 0 {
			return uint64(v.Int()), nil
		}
	}
	return 0, sqlerr.New(sqlerr.ErrWrongArguments, "LIMIT")
}
