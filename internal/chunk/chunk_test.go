package chunk

import (
	"fmt"
	"math/rand"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/decimal"
	"github.com/cairndb/cairn/internal/types"
)

var columnTypes = []types.Type{
	types.NewInt(), types.NewUint(), types.NewFloat(), types.NewDecimal(10, 2), types.NewString(-1, charset.Default),
	types.NewTemporal(types.TypeDatetime, 0), types.NewTemporal(types.TypeDuration, 0), types.NewJSON(),
}

func randomRow(r *rand.Rand) []types.Value {
	row := []types.Value{
		types.Int(r.Int63() - 1<<62), types.Uint(r.Uint64()), types.Float(r.NormFloat64()), types.Dec(decimal.New(r.Int63(), 2)),
		types.String(fmt.Sprint(r.Intn(1000))), types.TimeVal(types.MakeDate(r.Intn(9999), 1, 1)), types.Dur(types.Duration(r.Intn(1000))),
		types.JSON([]byte(fmt.Sprint(r.Intn(10)))),
	}
	for i := range row {
		if r.Intn(4) == 0 {
			row[i] = types.Null()
		}
	}
	return row
}

func requireRows(t *testing.T, want [][]types.Value, b *Batch) {
	t.Helper()
	require.Equal(t, len(want), b.NumRows())
	for i, row := range want {
		r := b.Row(i)
		for k, c := range b.Cols {
			require.Equal(t, row[k].IsNull(), c.IsNull(r))
			require.Equal(t, types.Text(row[k], c.Type()), types.Text(c.Value(r), c.Type()))
		}
	}
}

// TestTwinBatch does random things to a batch and to a slice of rows.
func TestTwinBatch(t *testing.T) {
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewSource(seed))
	b, other := NewBatch(columnTypes, 0), NewBatch(columnTypes, 4)
	var model [][]types.Value
	for range 2000 {
		switch r.Intn(7) {
		case 0, 1, 2:
			if b.Sel == nil {
				row := randomRow(r)
				model = append(model, row)
				b.AppendRow(row...)
			}
		case 3:
			n := r.Intn(len(model) + 1)
			b.Truncate(n)
			model = model[:min(n, len(model))]
		case 4:
			sel := b.SelBuffer()
			var kept [][]types.Value
			for i := range model {
				if r.Intn(4) > 0 {
					sel, kept = append(sel, uint16(b.Row(i))), append(kept, model[i])
				}
			}
			b.Sel, model = sel, kept
		case 5:
			n := r.Intn(3)
			b.Skip(n)
			model = model[min(n, len(model)):]
		case 6:
			other.Reset()
			other.AppendRow(model1(r)...)
			other.Reset()
			if n := b.NumRows(); n > 0 {
				mid := r.Intn(n)
				other.AppendBatch(b, 0, mid)
				for i := mid; i < n; i++ {
					other.AppendFrom(b, b.Row(i))
				}
			}
			b, other = other, b
		}
		requireRows(t, model, b)
	}
}

func model1(r *rand.Rand) []types.Value { return randomRow(r) }

func TestBatchWithoutColumns(t *testing.T) {
	b := NewBatch(nil, 0)
	b.SetLen(3)
	require.Equal(t, 3, b.NumRows())
	b.Truncate(2)
	require.Equal(t, 2, b.Len())
	b.AppendRow()
	require.Equal(t, 3, b.Len())
	b.Reset()
	require.Zero(t, b.Len())
}

func TestArenaInPlace(t *testing.T) {
	c := NewColumn(types.NewString(-1, charset.Default), 1)
	c.FinishBytes(append(c.Arena(), "abc"...))
	c.AppendBytes([]byte("de"))
	require.Equal(t, "abc", string(c.Bytes(0)))
	require.Equal(t, "de", string(c.Bytes(1)))
	require.Equal(t, 2, c.Len())
}

func TestWarmBatchDoesNotAllocate(t *testing.T) {
	b := NewBatch(columnTypes, MaxRows)
	row := []types.Value{
		types.Int(1), types.Uint(2), types.Float(3), types.Dec(decimal.New(4, 2)), types.String("five"), types.TimeVal(6), types.Dur(7), types.Null(),
	}
	fill := func() {
		b.Reset()
		for range MaxRows {
			b.AppendRow(row...)
		}
		b.Sel = b.AllRows()
	}
	fill()
	require.Zero(t, testing.AllocsPerRun(10, fill))
	require.Positive(t, b.MemBytes())
}

func BenchmarkAppendInt(b *testing.B) {
	c := NewColumn(types.NewInt(), MaxRows)
	for b.Loop() {
		if c.Len() == MaxRows {
			c.Reset()
		}
		c.AppendInt(5)
	}
}

func BenchmarkAppendBytes(b *testing.B) {
	c := NewColumn(types.NewString(-1, charset.Default), MaxRows)
	s := []byte("the quick brown fox")
	for b.Loop() {
		if c.Len() == MaxRows {
			c.Reset()
		}
		c.AppendBytes(s)
	}
}

func BenchmarkSumInts(b *testing.B) {
	c := NewColumn(types.NewInt(), MaxRows)
	for i := range MaxRows {
		c.AppendInt(int64(i))
	}
	var sum int64
	for b.Loop() {
		for r := range MaxRows {
			if !c.IsNull(r) {
				sum += c.Int(r)
			}
		}
	}
	_ = sum
}
