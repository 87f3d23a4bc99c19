package rowcodec

import (
	"fmt"
	"math"
	"math/rand"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/decimal"
	"github.com/cairndb/cairn/internal/types"
)

var classes = []types.Type{
	types.NewInt(), types.NewUint(), types.NewFloat(), types.NewDecimal(65, 30), types.NewString(-1, charset.Default),
	types.NewTemporal(types.TypeDatetime, 6), types.NewTemporal(types.TypeDuration, 6), types.NewJSON(),
	types.NewTemporal(types.TypeTimestamp, 0),
}

func randomValue(r *rand.Rand, t types.Type, big bool) types.Value {
	if r.Intn(5) == 0 {
		return types.Null()
	}
	switch t.Kind() {
	case types.KindInt:
		return types.Int(int64(r.Uint64()) >> r.Intn(64))
	case types.KindUint:
		return types.Uint(r.Uint64() >> r.Intn(64))
	case types.KindFloat:
		return types.Float(r.NormFloat64())
	case types.KindDecimal:
		d, _ := decimal.FromString(fmt.Sprintf("%d%d.%d", r.Int63()-1<<62, r.Int63(), r.Intn(1000)))
		return types.Dec(d)
	case types.KindTime:
		return types.TimeVal(types.MakeTime(1971+r.Intn(60), 1+r.Intn(12), 1+r.Intn(28), r.Intn(24), r.Intn(60), r.Intn(60), 0))
	case types.KindDuration:
		return types.Dur(types.Duration(r.Int63n(int64(types.MaxDuration)*2)) - types.MaxDuration)
	case types.KindJSON:
		return types.JSON([]byte(fmt.Sprintf(`{"a":%d}`, r.Intn(100))))
	}
	n := r.Intn(30)
	if big {
		n = r.Intn(100_000)
	}
	return types.Str(make([]byte, n))
}

// TestTwinRows writes random rows and reads random columns of them in all ways, against a map.
func TestTwinRows(t *testing.T) {
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewSource(seed))
	var enc Encoder
	for round := range 500 {
		maxID := []int{10, 200, 1000}[r.Intn(3)]
		model := map[int64]types.Value{}
		typeOf := map[int64]types.Type{}
		var ids []int64
		var vals []types.Value
		var ts []types.Type
		for _, id := range r.Perm(maxID)[:r.Intn(min(maxID, 20))] {
			id := int64(id + 1)
			tp := classes[r.Intn(len(classes))]
			v := randomValue(r, tp, round%50 == 0)
			ids, vals, ts = append(ids, id), append(vals, v), append(ts, tp)
			model[id], typeOf[id] = v, tp
		}
		record := enc.Encode(nil, ids, vals, ts)
		var cols []DecodeCol
		for range 1 + r.Intn(10) {
			id := int64(1 + r.Intn(maxID))
			if len(ids) > 0 && r.Intn(3) > 0 {
				id = ids[r.Intn(len(ids))]
			}
			tp, ok := typeOf[id]
			if !ok {
				tp = types.NewInt()
				model[id] = types.Int(77)
				typeOf[id] = tp
			}
			cols = append(cols, DecodeCol{ID: id, Type: tp, Default: types.Int(77)})
		}
		cols = append(cols, DecodeCol{ID: 5000, Type: types.NewInt(), FromHandle: true, Handle: 1})
		handle := []types.Value{types.Null(), types.Int(42)}
		requireRow(t, cols, record, handle, func(c DecodeCol) types.Value {
			if c.FromHandle {
				return handle[c.Handle]
			}
			return model[c.ID]
		})
	}
}

func requireRow(t *testing.T, cols []DecodeCol, record []byte, handle []types.Value, want func(DecodeCol) types.Value) {
	t.Helper()
	d := NewDecoder(cols)
	require.Equal(t, len(cols), d.Len())
	var ts []types.Type
	for _, c := range cols {
		ts = append(ts, c.Type)
	}
	b := chunk.NewBatch(ts, 0)
	require.NoError(t, d.DecodeToBatch(record, handle, b))
	require.NoError(t, d.DecodeToBatch(record, handle, b))
	vals, err := d.DecodeValues([]types.Value{types.Int(1)}, record, handle)
	require.NoError(t, err)
	raws, err := d.Raw(nil, record)
	require.NoError(t, err)
	for i, c := range cols {
		w := want(c)
		require.Equal(t, types.Text(w, c.Type), types.Text(vals[i+1], c.Type))
		require.Equal(t, w.IsNull(), vals[i+1].IsNull())
		got := b.Cols[i].Value(1)
		require.Equal(t, types.Text(w, c.Type), types.Text(got, c.Type))
		require.Equal(t, w.IsNull(), got.IsNull())
		if c.FromHandle {
			require.Equal(t, InHandle, raws[i].State)
			continue
		}
		data, state, err := Find(record, c.ID)
		require.NoError(t, err)
		require.Equal(t, raws[i].State, state)
		if state == Present {
			v, err := DecodeData(data, c.Type)
			require.NoError(t, err)
			require.Equal(t, types.Text(w, c.Type), types.Text(v, c.Type))
		}
	}
}

func TestNarrowIntegers(t *testing.T) {
	var enc Encoder
	for v, size := range map[int64]int{0: 1, -128: 1, 128: 2, -32768: 2, 32768: 4, math.MinInt32: 4, math.MaxInt32 + 1: 8, math.MinInt64: 8} {
		record := enc.Encode(nil, []int64{1}, []types.Value{types.Int(v)}, nil)
		data, state, err := Find(record, 1)
		require.NoError(t, err)
		require.Equal(t, Present, state)
		require.Len(t, data, size)
		got, err := DecodeData(data, types.NewInt())
		require.NoError(t, err)
		require.Equal(t, v, got.Int())
	}
}

func TestTimestampsAreStoredInUTC(t *testing.T) {
	zone := time.FixedZone("east", 7200)
	stamp := types.NewTemporal(types.TypeTimestamp, 0)
	local := types.MakeTime(2024, 1, 31, 12, 0, 0, 0)
	enc := Encoder{Loc: zone}
	record := enc.Encode(nil, []int64{1}, []types.Value{types.TimeVal(local)}, []types.Type{stamp})
	d := NewDecoder([]DecodeCol{{ID: 1, Type: stamp}, {ID: 2, Type: stamp, Default: types.TimeVal(types.MakeDate(2024, 1, 1))}})
	vals, err := d.DecodeValues(nil, record, nil)
	require.NoError(t, err)
	require.Equal(t, "2024-01-31 10:00:00", vals[0].Time().Format(0))
	vals, err = d.In(zone).DecodeValues(nil, record, nil)
	require.NoError(t, err)
	require.Equal(t, local, vals[0].Time())
	require.Equal(t, "2024-01-01 02:00:00", vals[1].Time().Format(0))
	b := chunk.NewBatch([]types.Type{stamp, stamp}, 0)
	require.NoError(t, d.In(zone).DecodeToBatch(record, nil, b))
	require.Equal(t, local, b.Cols[0].Time(0))
	require.Equal(t, "2024-01-01 02:00:00", b.Cols[1].Time(0).Format(0))
	plain := NewDecoder([]DecodeCol{{ID: 1, Type: types.NewInt()}})
	require.Same(t, plain, plain.In(zone))
}

func TestRowsWithoutColumns(t *testing.T) {
	var enc Encoder
	record := enc.Encode(nil, nil, nil, nil)
	b := chunk.NewBatch(nil, 0)
	require.NoError(t, NewDecoder(nil).DecodeToBatch(record, nil, b))
	require.Equal(t, 1, b.Len())
}

func FuzzDecode(f *testing.F) {
	var enc Encoder
	var ts []types.Type
	var cols []DecodeCol
	var ids []int64
	var vals []types.Value
	r := rand.New(rand.NewSource(1))
	for i, tp := range classes {
		ids, ts, vals = append(ids, int64(i+1)), append(ts, tp), append(vals, randomValue(r, tp, false))
		cols = append(cols, DecodeCol{ID: int64(i + 1), Type: tp})
	}
	f.Add(enc.Encode(nil, ids, vals, ts))
	f.Add([]byte{0x80, 1, 1, 0, 0, 0, 1, 0, 0, 0, 255, 255, 255, 255})
	d := NewDecoder(cols)
	f.Fuzz(func(t *testing.T, record []byte) {
		b := chunk.NewBatch(ts, 0)
		errBatch := d.DecodeToBatch(record, nil, b)
		got, err := d.DecodeValues(nil, record, nil)
		require.Equal(t, err, errBatch)
		_, _ = d.Raw(nil, record)
		for id := range int64(12) {
			_, _, _ = Find(record, id)
		}
		if err == nil {
			for i, v := range got {
				types.AppendText(nil, v, ts[i])
			}
		}
	})
}

// sbtest is the row of sysbench: id in the handle, k, c, pad.
func sbtest() (d *Decoder, record []byte, ts []types.Type, ids []int64, vals []types.Value) {
	ts = []types.Type{types.NewInt(), types.NewInt(), types.NewString(120, charset.Default), types.NewString(60, charset.Default)}
	ids = []int64{2, 3, 4}
	vals = []types.Value{types.Int(499_284), types.Str(make([]byte, 119)), types.Str(make([]byte, 59))}
	d = NewDecoder([]DecodeCol{
		{ID: 1, Type: ts[0], FromHandle: true}, {ID: 2, Type: ts[1]}, {ID: 3, Type: ts[2]}, {ID: 4, Type: ts[3]},
	})
	var enc Encoder
	return d, enc.Encode(nil, ids, vals, nil), ts, ids, vals
}

func BenchmarkDecodeToBatch(b *testing.B) {
	d, record, ts, _, _ := sbtest()
	batch := chunk.NewBatch(ts, chunk.MaxRows)
	handle := []types.Value{types.Int(7)}
	b.ReportAllocs()
	for b.Loop() {
		if batch.Full() {
			batch.Reset()
		}
		if err := d.DecodeToBatch(record, handle, batch); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeValues(b *testing.B) {
	d, record, _, _, _ := sbtest()
	handle := []types.Value{types.Int(7)}
	var vals []types.Value
	b.ReportAllocs()
	for b.Loop() {
		vals, _ = d.DecodeValues(vals[:0], record, handle)
	}
}

func BenchmarkEncode(b *testing.B) {
	_, _, _, ids, vals := sbtest()
	var enc Encoder
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = enc.Encode(buf[:0], ids, vals, nil)
	}
}
