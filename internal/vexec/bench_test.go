package vexec

import (
	"context"
	"math/rand"
	"testing"

	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/internal/types"
)

// replay gives out one prepared batch many times, without copying.
type replay struct {
	batch *chunk.Batch
	times int
	left  int
}

func (r *replay) Types() []types.Type { return r.batch.Types() }

func (r *replay) Open(context.Context) error {
	r.left = r.times
	return nil
}

func (r *replay) Close() error { return nil }

func (r *replay) Next(_ context.Context, b *chunk.Batch) error {
	if r.left == 0 {
		b.Reset()
		// The lent columns were emptied with b; another execution needs them filled.
		return nil
	}
	r.left--
	b.Cols, b.Sel = append(b.Cols[:0], r.batch.Cols...), nil
	return nil
}

const benchRows = 100 * chunk.MaxRows

func newReplay() *replay {
	rng := rand.New(rand.NewSource(1))
	b := chunk.NewBatch([]types.Type{intType, textType, intType}, chunk.MaxRows)
	words := []string{"alpha", "beta", "gamma", "delta", "epsilon"}
	for i := range chunk.MaxRows {
		b.AppendRow(types.Int(int64(rng.Intn(100))), types.String(words[rng.Intn(len(words))]), types.Int(int64(i)))
	}
	return &replay{batch: b, times: benchRows / chunk.MaxRows}
}

func runBench(b *testing.B, op func(Operator) Operator) {
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		o := op(newReplay())
		out := chunk.NewBatch(o.Types(), 0)
		b.StartTimer()
		if err := o.Open(ctx); err != nil {
			b.Fatal(err)
		}
		for {
			if err := o.Next(ctx, out); err != nil {
				b.Fatal(err)
			}
			if out.NumRows() == 0 {
				break
			}
		}
		o.Close()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchRows, "ns/row")
}

func BenchmarkAggregateByInt(b *testing.B) {
	p := agg(b, "sum", false, 2)
	runBench(b, func(in Operator) Operator {
		return NewAggregate(&expr.Env{}, in, AggregateOptions{
			Groups: []Output{ColumnOutput(0, intType)}, Aggs: []*expr.AggProgram{p}, Types: []types.Type{intType, p.Type},
		})
	})
}

func BenchmarkAggregateByText(b *testing.B) {
	p := agg(b, "sum", false, 2)
	runBench(b, func(in Operator) Operator {
		return NewAggregate(&expr.Env{}, in, AggregateOptions{
			Groups: []Output{ColumnOutput(1, textType)}, Aggs: []*expr.AggProgram{p}, Types: []types.Type{textType, p.Type},
		})
	})
}

func BenchmarkSumOfAll(b *testing.B) {
	p := agg(b, "sum", false, 2)
	runBench(b, func(in Operator) Operator {
		return NewAggregate(&expr.Env{}, in, AggregateOptions{Aggs: []*expr.AggProgram{p}, Types: []types.Type{p.Type}, OneGroup: true})
	})
}

func BenchmarkFilter(b *testing.B) {
	cond, err := expr.NewCall(&expr.BuildEnv{}, ">", &expr.Column{Index: 0, Typ: intType}, expr.NewConst(types.Int(50), intType))
	if err != nil {
		b.Fatal(err)
	}
	prog, err := expr.Compile(cond)
	if err != nil {
		b.Fatal(err)
	}
	runBench(b, func(in Operator) Operator { return NewFilter(&expr.Env{}, in, []*expr.Program{prog}) })
}

func BenchmarkSortByText(b *testing.B) {
	runBench(b, func(in Operator) Operator {
		return NewSort(&expr.Env{}, in, []SortItem{{Output: ColumnOutput(1, textType)}, {Output: ColumnOutput(2, intType)}}, Memory{})
	})
}

func BenchmarkTop10(b *testing.B) {
	runBench(b, func(in Operator) Operator {
		return NewTopN(&expr.Env{}, in, []SortItem{{Output: ColumnOutput(2, intType), Desc: true}}, 0, 10, Memory{})
	})
}
