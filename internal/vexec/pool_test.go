package vexec

import (
	"testing"

	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/internal/types"
)

func TestPoolGivesBatchesBackByLayout(t *testing.T) {
	var p Pool
	a, b := []types.Type{intType, textType}, []types.Type{intType, textType}
	x := p.Get(a, 0)
	x.AppendRow(types.Int(1), types.String("s"))
	p.Put(a, x)
	if y := p.Get(b, 0); y == x {
		t.Error("a batch was given out for another list of types")
	}
	if y := p.Get(a[:1], 0); y == x || len(y.Cols) != 1 {
		t.Error("a batch was given out for a shorter list of types")
	}
	if y := p.Get(a, 0); y != x || y.Len() != 0 {
		t.Error("want the batch again, and empty")
	}
	if y := p.Get(a, 0); y == x {
		t.Error("a batch was given out twice")
	}
}

func TestPoolIsBounded(t *testing.T) {
	var p Pool
	for range 10 * poolMaxHeld {
		ts := []types.Type{intType}
		p.Put(ts, p.Get(ts, 0))
	}
	if p.held > poolMaxHeld {
		t.Errorf("%d batches held", p.held)
	}
	ts := []types.Type{textType}
	big := p.Get(ts, 0)
	big.AppendRow(types.Str(make([]byte, poolMaxBytes+1)))
	p.Put(ts, big)
	if p.Get(ts, 0) == big {
		t.Error("a huge batch was kept")
	}
}

// TestOperatorsShareAPool runs a plan again and again on one pool: no column may belong to two batches.
func TestOperatorsShareAPool(t *testing.T) {
	rng := random(t)
	var pool Pool
	mem := Memory{Pool: &pool}
	ts := []types.Type{intType, textType, intType}
	outs := []Output{ColumnOutput(2, intType), ColumnOutput(1, textType), ColumnOutput(0, intType)}
	for range 30 {
		src := newSource(rng, rng.Intn(500))
		src.types = ts
		var op Operator = src
		for range 1 + rng.Intn(3) {
			op = NewProject(&expr.Env{}, op, outs, ts, mem)
			if rng.Intn(2) == 0 {
				op = NewSort(&expr.Env{}, op, nil, mem)
			}
		}
		twice := NewProject(&expr.Env{}, NewProject(&expr.Env{}, src, outs, ts, mem), outs, ts, mem)
		want := drain(t, NewDistinct(twice, Memory{}))
		equal(t, drain(t, NewDistinct(twice, mem)), want)
		drain(t, op)
		seen := map[*chunk.Column]bool{}
		for _, list := range pool.batches {
			for _, b := range list {
				for _, c := range b.Cols {
					if seen[c] {
						t.Fatal("a column belongs to two batches")
					}
					seen[c] = true
				}
			}
		}
	}
}
