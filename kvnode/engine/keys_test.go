package engine

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"math"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// keyBytes draws user keys full of the bytes the format gives a meaning to.
func keyBytes() *rapid.Generator[[]byte] {
	return rapid.SliceOfN(rapid.SampledFrom([]byte{0x00, 0x01, 0x09, 0x7f, 0xf6, 0xff}), 0, 14)
}

func timestamps() *rapid.Generator[uint64] {
	return rapid.OneOf(rapid.Uint64(), rapid.SampledFrom([]uint64{0, 1, 9, math.MaxUint64}))
}

func TestComparerHoldsPebblesContract(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var prefixes, suffixes [][]byte
		for _, k := range rapid.SliceOfN(keyBytes(), 1, 4).Draw(rt, "keys") {
			prefixes = append(prefixes, AppendKey(nil, CFWrite, k))
		}
		for _, ts := range rapid.SliceOfNDistinct(timestamps(), 1, 3, rapid.ID).Draw(rt, "ts") {
			suffixes = append(suffixes, append(binary.BigEndian.AppendUint64(nil, ^ts), versionMark))
		}
		if err := pebble.CheckComparer(Comparer(), prefixes, suffixes); err != nil {
			rt.Fatal(err)
		}
	})
}

func TestKeysSortByUserKeyThenNewestFirst(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		a, b := keyBytes().Draw(rt, "a"), keyBytes().Draw(rt, "b")
		x, y := timestamps().Draw(rt, "x"), timestamps().Draw(rt, "y")
		want := bytes.Compare(a, b)
		if want == 0 {
			want = cmp.Compare(y, x)
		}
		got := compare(AppendVersioned(nil, CFWrite, a, x), AppendVersioned(nil, CFWrite, b, y))
		if got != want {
			rt.Fatalf("compare(%x@%d, %x@%d) = %d, want %d", a, x, b, y, got, want)
		}
		if c := compare(AppendKey(nil, CFWrite, a), AppendVersioned(nil, CFWrite, a, x)); c != -1 {
			rt.Fatalf("the bare key of %x does not sort before its version %d", a, x)
		}
		if c := bytes.Compare(a, b); c != compare(AppendKey(nil, CFLock, a), AppendKey(nil, CFLock, b)) {
			rt.Fatalf("unversioned keys %x and %x are in another order than their user keys", a, b)
		}
		ka, kb := AppendVersioned(nil, CFWrite, a, x), AppendVersioned(nil, CFWrite, b, y)
		if abbreviatedKey(ka) < abbreviatedKey(kb) && got >= 0 {
			rt.Fatalf("abbreviated keys of %x and %x disagree with compare", ka, kb)
		}
	})
}

func TestKeysDecodeToWhatWasEncoded(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		k, ts := keyBytes().Draw(rt, "key"), timestamps().Draw(rt, "ts")
		cf, user, _, versioned, err := DecodeKey(AppendKey([]byte{7}, CFLock, k)[1:])
		if err != nil || cf != CFLock || versioned || !bytes.Equal(user, k) {
			rt.Fatalf("unversioned %x decodes to %d %x %v %v", k, cf, user, versioned, err)
		}
		cf, user, got, versioned, err := DecodeKey(AppendVersioned(nil, CFDefault, k, ts))
		if err != nil || cf != CFDefault || !versioned || got != ts || !bytes.Equal(user, k) {
			rt.Fatalf("%x@%d decodes to %d %x@%d %v %v", k, ts, cf, user, got, versioned, err)
		}
	})
}

func TestDecodeKeyRefusesForeignBytes(t *testing.T) {
	for _, k := range [][]byte{nil, {0}, {3}, {3, 1}, {9, 0}, {0, 0}, []byte("\x03abc"), []byte("\x0312345678\x09")} {
		_, _, _, _, err := DecodeKey(k)
		require.ErrorIs(t, err, ErrBadKey, "key %x", k)
	}
}

func FuzzDecodeKey(f *testing.F) {
	f.Add(AppendKey(nil, CFLock, []byte("k")))
	f.Add(AppendVersioned(nil, CFWrite, []byte("k\x00"), 7))
	f.Fuzz(func(t *testing.T, k []byte) {
		cf, user, ts, versioned, err := DecodeKey(k)
		if err != nil {
			return
		}
		again := AppendKey(nil, cf, user)
		if versioned {
			again = AppendVersioned(nil, cf, user, ts)
		}
		if !bytes.Equal(again, k) {
			t.Fatalf("%x decodes and encodes to %x", k, again)
		}
	})
}

func FuzzOps(f *testing.F) {
	db := openMem(f)
	b := db.NewBatch()
	b.Set(CFLock, []byte("k"), []byte("v"))
	b.DeleteVersioned(CFWrite, []byte("k"), 7)
	f.Add(append([]byte(nil), b.Repr()...))
	require.NoError(f, b.Close())
	f.Fuzz(func(t *testing.T, repr []byte) {
		n := 0
		err := Ops(repr, func(Op) error { n++; return nil })
		if err != nil && !errors.Is(err, ErrBadBatch) && !errors.Is(err, ErrBadKey) {
			t.Fatalf("unexpected error %v", err)
		}
	})
}
