package wire

import (
	"encoding/binary"
	"errors"
	"math"
	"testing"

	"github.com/cairndb/cairn/internal/types"
)

// execution builds the data of COM_STMT_EXECUTE behind the statement id.
type execution struct {
	nulls []byte
	types []byte // pairs; nil = not declared anew
	data  []byte
}

func (e execution) bytes() []byte {
	b := append([]byte{0, 1, 0, 0, 0}, e.nulls...)
	if e.types == nil {
		return append(append(b, 0), e.data...)
	}
	b = append(append(b, 1), e.types...)
	return append(b, e.data...)
}

func le(n int, v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v)[:n] }

func cat(parts ...[]byte) (out []byte) {
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

func sameValue(a, b types.Value) bool {
	return a.Kind() == b.Kind() && (a.IsNull() || a == b || a.Kind() == types.KindString && string(a.Bytes()) == string(b.Bytes()))
}

func TestExecuteDecodesEveryType(t *testing.T) {
	const unsigned = 0x80
	cases := []struct {
		name string
		tp   [2]byte
		data []byte
		want types.Value
	}{
		{"tiny", [2]byte{types.TypeTiny, 0}, []byte{0xff}, types.Int(-1)},
		{"unsigned tiny", [2]byte{types.TypeTiny, unsigned}, []byte{0xff}, types.Uint(255)},
		{"short", [2]byte{types.TypeShort, 0}, le(2, 0x8000), types.Int(-32768)},
		{"unsigned short", [2]byte{types.TypeShort, unsigned}, le(2, 0x8000), types.Uint(32768)},
		{"long", [2]byte{types.TypeLong, 0}, le(4, 1<<31), types.Int(math.MinInt32)},
		{"unsigned long", [2]byte{types.TypeLong, unsigned}, le(4, 1<<31), types.Uint(1 << 31)},
		{"longlong", [2]byte{types.TypeLonglong, 0}, le(8, 1<<63), types.Int(math.MinInt64)},
		{"unsigned longlong", [2]byte{types.TypeLonglong, unsigned}, le(8, math.MaxUint64), types.Uint(math.MaxUint64)},
		{"float", [2]byte{types.TypeFloat, 0}, le(4, uint64(math.Float32bits(1.5))), types.Float(1.5)},
		{"double", [2]byte{types.TypeDouble, 0}, le(8, math.Float64bits(-2.25)), types.Float(-2.25)},
		{"string", [2]byte{types.TypeVarString, 0}, []byte("\x03abc"), types.String("abc")},
		{"empty string", [2]byte{types.TypeVarString, 0}, []byte{0}, types.String("")},
		{"long string", [2]byte{types.TypeBlob, 0}, appendLenString(nil, string(make([]byte, 300))), types.String(string(make([]byte, 300)))},
		{"decimal as text", [2]byte{types.TypeNewDecimal, 0}, []byte("\x041.50"), types.String("1.50")},
		{"null type", [2]byte{types.TypeNull, 0}, nil, types.Null()},
		{"date", [2]byte{types.TypeDate, 0}, cat([]byte{4}, le(2, 2024), []byte{2, 29}), types.TimeVal(types.MakeDate(2024, 2, 29))},
		{"datetime", [2]byte{types.TypeDatetime, 0}, cat([]byte{7}, le(2, 2024), []byte{2, 29, 23, 59, 58}), types.TimeVal(types.MakeTime(2024, 2, 29, 23, 59, 58, 0))},
		{"timestamp with microseconds", [2]byte{types.TypeTimestamp, 0}, cat([]byte{11}, le(2, 2024), []byte{2, 29, 23, 59, 58}, le(4, 123456)), types.TimeVal(types.MakeTime(2024, 2, 29, 23, 59, 58, 123456))},
		{"zero datetime", [2]byte{types.TypeDatetime, 0}, []byte{0}, types.TimeVal(0)},
		{"time", [2]byte{types.TypeDuration, 0}, cat([]byte{8, 1}, le(4, 2), []byte{3, 4, 5}), types.Dur(types.MakeDuration(true, 51, 4, 5, 0))},
		{"time with microseconds", [2]byte{types.TypeDuration, 0}, cat([]byte{12, 0}, le(4, 34), []byte{22, 59, 59}, le(4, 999999)), types.Dur(types.MakeDuration(false, 838, 59, 59, 999999))},
		{"zero time", [2]byte{types.TypeDuration, 0}, []byte{0}, types.Dur(0)},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			st := Statement{Params: 1}
			// Twice: the second execution does not declare its types.
			for _, declared := range [][]byte{c.tp[:], nil} {
				e, err := st.Execute(execution{[]byte{0}, declared, c.data}.bytes(), nil)
				if err != nil {
					t.Fatal(err)
				}
				if len(e.Values) != 1 || !sameValue(e.Values[0], c.want) {
					t.Fatalf("want %v, got %v", c.want, e.Values)
				}
			}
			if c.tp[0] == types.TypeNull {
				return
			}
			if e, err := st.Execute(execution{[]byte{1}, nil, nil}.bytes(), nil); err != nil || !e.Values[0].IsNull() {
				t.Fatalf("NULL: got %v, %v", e.Values, err)
			}
			for cut := range c.data {
				if _, err := st.Execute(execution{[]byte{0}, nil, c.data[:cut]}.bytes(), nil); !errors.Is(err, ErrMalformed) {
					t.Fatalf("%d of %d bytes: want %v, got %v", cut, len(c.data), ErrMalformed, err)
				}
			}
		})
	}
}

func TestExecuteManyParametersWithNulls(t *testing.T) {
	const n = 20
	st := Statement{Params: n}
	e := execution{nulls: make([]byte, 3)}
	for i := range n {
		e.types = append(e.types, types.TypeLonglong, 0)
		if i%3 == 0 {
			e.nulls[i/8] |= 1 << (i % 8)
			continue
		}
		e.data = append(e.data, le(8, uint64(i))...)
	}
	got, err := st.Execute(e.bytes(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range got.Values {
		if i%3 == 0 && !v.IsNull() || i%3 != 0 && v.Int() != int64(i) {
			t.Errorf("parameter %d: got %v", i, v)
		}
	}
}

func TestExecuteRefuses(t *testing.T) {
	date := func(b ...byte) []byte { return append([]byte{byte(len(b))}, b...) }
	cases := []struct {
		name string
		tp   byte
		data []byte
	}{
		{"a month that does not exist", types.TypeDatetime, date(0, 0, 13, 1)},
		{"a date of a strange length", types.TypeDate, date(0, 0, 1)},
		{"a clock that does not exist", types.TypeDatetime, date(0, 0, 1, 1, 24, 0, 0)},
		{"a year after 9999", types.TypeDate, date(0xff, 0xff, 1, 1)},
		{"a time of a strange length", types.TypeDuration, date(0, 0, 0)},
		{"a time of too many days", types.TypeDuration, date(0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0)},
		{"a string longer than the packet", types.TypeVarString, []byte{0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			st := Statement{Params: 1}
			if _, err := st.Execute(execution{[]byte{0}, []byte{c.tp, 0}, c.data}.bytes(), nil); !errors.Is(err, ErrMalformed) {
				t.Fatalf("want %v, got %v", ErrMalformed, err)
			}
		})
	}
	t.Run("types that were never declared", func(t *testing.T) {
		st := Statement{Params: 1}
		if _, err := st.Execute(execution{[]byte{0}, nil, []byte{1}}.bytes(), nil); !errors.Is(err, ErrMalformed) {
			t.Fatalf("want %v, got %v", ErrMalformed, err)
		}
	})
	t.Run("nothing", func(t *testing.T) {
		for _, params := range []int{0, 1} {
			st := Statement{Params: params}
			if _, err := st.Execute(nil, nil); !errors.Is(err, ErrMalformed) {
				t.Fatalf("want %v, got %v", ErrMalformed, err)
			}
		}
	})
}

func TestLongData(t *testing.T) {
	st := Statement{Params: 2}
	for _, piece := range []string{"ab", "", "cd"} {
		if err := st.AppendLong(cat(le(2, 1), []byte(piece)), 100); err != nil {
			t.Fatal(err)
		}
	}
	e := execution{[]byte{0}, []byte{types.TypeLonglong, 0, types.TypeBlob, 0}, le(8, 7)}
	got, err := st.Execute(e.bytes(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got.Values[0].Int() != 7 || string(got.Values[1].Bytes()) != "abcd" {
		t.Fatalf("got %v", got.Values)
	}
	// Consumed: the next execution reads both from the packet.
	e.data = cat(le(8, 8), []byte("\x01x"))
	if got, err = st.Execute(e.bytes(), nil); err != nil || string(got.Values[1].Bytes()) != "x" {
		t.Fatalf("got %v, %v", got.Values, err)
	}
	// Sent and empty is an empty string, not NULL and not in the packet.
	if err := st.AppendLong(le(2, 1), 100); err != nil {
		t.Fatal(err)
	}
	e.data = le(8, 9)
	if got, err = st.Execute(e.bytes(), nil); err != nil || got.Values[1].IsNull() || len(got.Values[1].Bytes()) != 0 {
		t.Fatalf("got %v, %v", got.Values, err)
	}
	if err := st.AppendLong(cat(le(2, 2), []byte("x")), 100); !errors.Is(err, ErrMalformed) {
		t.Errorf("parameter 2 of 2: want %v, got %v", ErrMalformed, err)
	}
	if err := st.AppendLong([]byte{0}, 100); !errors.Is(err, ErrMalformed) {
		t.Errorf("no parameter: want %v, got %v", ErrMalformed, err)
	}
	if err := st.AppendLong(cat(le(2, 0), make([]byte, 60)), 100); err != nil {
		t.Fatal(err)
	}
	if err := st.AppendLong(cat(le(2, 0), make([]byte, 60)), 100); !errors.Is(err, ErrPacketTooLarge) {
		t.Errorf("too much: want %v, got %v", ErrPacketTooLarge, err)
	}
	st.Reset()
	if st.Long != nil {
		t.Error("long data survived a reset")
	}
}

func FuzzExecuteArgs(f *testing.F) {
	f.Add(byte(1), execution{[]byte{0}, []byte{types.TypeVarString, 0}, []byte("\x03abc")}.bytes(), []byte{0, 0, 'x'})
	f.Add(byte(2), execution{[]byte{1}, []byte{types.TypeLonglong, 0x80, types.TypeDatetime, 0}, cat([]byte{11}, le(2, 2024), []byte{2, 29, 23, 59, 58}, le(4, 1))}.bytes(), []byte{})
	f.Add(byte(1), execution{[]byte{0}, []byte{types.TypeDuration, 0}, cat([]byte{12, 0}, le(4, 34), []byte{22, 59, 59}, le(4, 999999))}.bytes(), []byte{1})
	f.Fuzz(func(t *testing.T, params byte, data, long []byte) {
		st := Statement{Params: int(params)}
		_ = st.AppendLong(long, 1<<10)
		first, err := st.Execute(data, nil)
		if err != nil {
			return
		}
		if len(first.Values) != st.Params {
			t.Fatalf("%d values for %d parameters", len(first.Values), st.Params)
		}
		for _, p := range st.Types {
			_ = p.Type(255)
		}
		// Without long data the same bytes must not crash either.
		_, _ = st.Execute(data, first.Values)
	})
}
