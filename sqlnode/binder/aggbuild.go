package binder

import "github.com/cairndb/cairn/internal/expr"

// newAgg builds an aggregate over its arguments.
func newAgg(build *expr.BuildEnv, fn string, distinct bool, args []expr.Expr, order []expr.AggOrder, sep string) (*expr.Agg, error) {
	return expr.NewAgg(build, fn, distinct, args, order, sep)
}
