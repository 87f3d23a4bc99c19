package exec

import (
	"fmt"
	"math"

	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/internal/vexec"
	"github.com/cairndb/cairn/sqlnode/plan"
)

// Build makes the operator tree of a plan. Nothing is read before Open. c must stay unchanged, but for Info, until the
// operator is closed.
func Build(c *Context, n plan.Node) (Operator, error) {
	switch n := n.(type) {
	case *plan.PointGet:
		return newPointGet(c, n)
	case *plan.BatchPointGet:
		return newBatchPointGet(c, n)
	case *plan.TableScan:
		return newTableScan(c, n)
	case *plan.IndexScan:
		return newIndexScan(c, n)
	case *plan.IndexLookup:
		return newIndexLookup(c, n)
	case *plan.MemTable:
		return newMemTable(c, n)
	case *plan.Dual:
		return &dual{types: n.Types()}, nil
	case *plan.Empty:
		return &empty{types: n.Types()}, nil
	case *plan.Values:
		return newValues(c, n)
	case *plan.Insert:
		return newInsert(c, n)
	case *plan.Update:
		return newUpdate(c, n)
	case *plan.Delete:
		return newDelete(c, n)
	case *plan.UnionAll:
		return newUnion(c, n)
	case *plan.HashJoin, *plan.NLJoin, *plan.IndexJoin:
		return buildJoin(c, n)
	}
	return buildUnary(c, n)
}

// buildUnary builds nodes with one input that vexec has the operators for.
func buildUnary(c *Context, n plan.Node) (Operator, error) {
	children := n.Children()
	if len(children) != 1 {
		return nil, fmt.Errorf("exec: no operator for %T", n)
	}
	input, err := Build(c, children[0])
	if err != nil {
		return nil, err
	}
	switch n := n.(type) {
	case *plan.Filter:
		preds, err := programs(n.Conds)
		return vexec.NewFilter(c.Env, input, preds), err
	case *plan.Project:
		outs, err := outputs(c.Env, n.Exprs)
		return vexec.NewProject(c.Env, input, retype(outs, n.Types()), n.Types(), c.memory()), err
	case *plan.Sort:
		items, err := sortItems(c.Env, n.Keys)
		return vexec.NewSort(c.Env, input, items, c.memory()), err
	case *plan.TopN:
		return newTopN(c, n, input)
	case *plan.Limit:
		return newLimit(c, n, input)
	case *plan.LockRows:
		return newLockRows(c, n, input)
	case *plan.HashAgg:
		return newAgg(c, input, n.Groups, n.Aggs, n.NoGroups, n.Types(), false)
	case *plan.StreamAgg:
		return newAgg(c, input, n.Groups, n.Aggs, n.NoGroups, n.Types(), true)
	}
	return nil, fmt.Errorf("exec: no operator for %T", n)
}

// retype gives outputs the types the plan promises to the node above.
func retype(outs []vexec.Output, ts []types.Type) []vexec.Output {
	for i := range outs {
		outs[i].Type = ts[i]
	}
	return outs
}

func newTopN(c *Context, n *plan.TopN, input Operator) (Operator, error) {
	offset, count, err := limitOf(c.Env, n.Offset, n.Count)
	if err != nil {
		return nil, err
	}
	items, err := sortItems(c.Env, n.Keys)
	return vexec.NewTopN(c.Env, input, items, offset, count, c.memory()), err
}

func newLimit(c *Context, n *plan.Limit, input Operator) (Operator, error) {
	offset, count, err := limitOf(c.Env, n.Offset, n.Count)
	return vexec.NewLimit(input, offset, count), err
}

func limitOf(env *expr.Env, offset, count plan.Scalar) (off, n uint64, err error) {
	if off, err = rowCount(env, offset, 0); err != nil {
		return 0, 0, err
	}
	n, err = rowCount(env, count, math.MaxUint64)
	return off, n, err
}

// newAgg chooses the aggregation: groups without aggregates are DISTINCT, which can pass rows on at once.
func newAgg(c *Context, input Operator, groups []plan.Scalar, aggs []plan.Agg, noGroups bool, ts []types.Type, ordered bool) (Operator, error) {
	outs, err := outputs(c.Env, groups)
	if err != nil {
		return nil, err
	}
	outs = retype(outs, ts[:len(outs)])
	if len(aggs) == 0 && !noGroups {
		return vexec.NewDistinct(vexec.NewProject(c.Env, input, outs, ts, c.memory()), c.memory()), nil
	}
	progs := make([]*expr.AggProgram, len(aggs))
	for i := range aggs {
		progs[i] = aggs[i].Prog
	}
	return vexec.NewAggregate(c.Env, input, vexec.AggregateOptions{
		Groups: outs, Aggs: progs, Types: ts, OneGroup: noGroups, Ordered: ordered, Memory: c.memory(),
	}), nil
}

func buildJoin(c *Context, n plan.Node) (Operator, error) {
	if n, ok := n.(*plan.IndexJoin); ok {
		outer, err := Build(c, n.Outer)
		if err != nil {
			return nil, err
		}
		return newIndexJoin(c, n, outer)
	}
	left, err := Build(c, n.Children()[0])
	if err != nil {
		return nil, err
	}
	right, err := Build(c, n.Children()[1])
	if err != nil {
		return nil, err
	}
	switch n := n.(type) {
	case *plan.HashJoin:
		return newHashJoin(c, n, left, right)
	case *plan.NLJoin:
		return newNLJoin(c, n, left, right)
	}
	return nil, fmt.Errorf("exec: no operator for %T", n)
}
