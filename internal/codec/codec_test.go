package codec

import (
	"bytes"
	"cmp"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestIntsKeepOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := rapid.Int64().Draw(t, "a"), rapid.Int64().Draw(t, "b")
		ka, kb := AppendInt(nil, a), AppendInt(nil, b)
		require.Equal(t, cmp.Compare(a, b), bytes.Compare(ka, kb))
		v, rest, err := DecodeInt(append(ka, 1))
		require.NoError(t, err)
		require.Equal(t, a, v)
		require.Len(t, rest, 1)
		require.Equal(t, cmp.Compare(uint64(a), uint64(b)), bytes.Compare(AppendUint(nil, uint64(a)), AppendUint(nil, uint64(b))))
	})
}

func TestFloatsKeepOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := rapid.Float64().Draw(t, "a"), rapid.Float64().Draw(t, "b")
		ka, kb := AppendFloat(nil, a), AppendFloat(nil, b)
		require.Equal(t, cmp.Compare(a, b), bytes.Compare(ka, kb))
		v, _, err := DecodeFloat(ka)
		require.NoError(t, err)
		require.Equal(t, a, v)
	})
	require.Equal(t, AppendFloat(nil, 0), AppendFloat(nil, math.Copysign(0, -1)))
	require.Negative(t, bytes.Compare(AppendFloat(nil, math.Inf(1)), AppendFloat(nil, math.NaN())))
}

func TestBytesKeepOrder(t *testing.T) {
	gen := rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 'a', 0xF7, 0xFE, 0xFF}), 0, 20)
	rapid.Check(t, func(t *rapid.T) {
		a, b := gen.Draw(t, "a"), gen.Draw(t, "b")
		tail := gen.Draw(t, "tail")
		ka, kb := AppendBytes(nil, a), AppendBytes(nil, b)
		require.Len(t, ka, BytesLen(len(a)))
		require.Equal(t, AppendBytes([]byte("x"), a), EncodeTail(append([]byte("x"), a...), 1))
		want := bytes.Compare(a, b)
		require.Equal(t, want, bytes.Compare(ka, kb))
		if want != 0 { // whatever follows does not matter
			require.Equal(t, want, bytes.Compare(append(ka, tail...), kb))
		}
		v, rest, err := DecodeBytes(nil, append(AppendBytes(nil, a), tail...))
		require.NoError(t, err)
		require.True(t, bytes.Equal(a, v))
		require.True(t, bytes.Equal(tail, rest))
		rest, err = SkipBytes(append(AppendBytes(nil, a), tail...))
		require.NoError(t, err)
		require.True(t, bytes.Equal(tail, rest))
	})
}

func FuzzDecode(f *testing.F) {
	f.Add(AppendBytes(nil, []byte("hello world")))
	f.Add([]byte{1, 2, 3})
	f.Fuzz(func(t *testing.T, b []byte) {
		if v, rest, err := DecodeBytes(nil, b); err == nil {
			require.Equal(t, b[:len(b)-len(rest)], AppendBytes(nil, v), "one encoding only")
			skipped, err := SkipBytes(b)
			require.NoError(t, err)
			require.Equal(t, rest, skipped)
		}
		_, _, _ = DecodeInt(b)
		_, _, _ = DecodeFloat(b)
	})
}

func BenchmarkAppendBytes(b *testing.B) {
	v := []byte("the quick brown fox")
	var buf []byte
	for b.Loop() {
		buf = AppendBytes(buf[:0], v)
	}
}
