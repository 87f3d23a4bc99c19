package mvcc

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLockRoundTrip(t *testing.T) {
	for _, l := range []Lock{
		{Type: LockPut, StartTS: 1, Primary: []byte("p")},
		{Type: LockDelete, StartTS: MaxTS, TTL: 1 << 40, Primary: []byte{0, 255}, TxnSize: 7},
		{Type: LockPut, StartTS: 5, Primary: []byte("p"), HasShortValue: true, ShortValue: []byte{}},
		{Type: LockPut, StartTS: 5, Primary: []byte("p"), HasShortValue: true, ShortValue: make([]byte, MaxLockShortValue)},
		{
			Type: LockLock, StartTS: 5, Primary: []byte("p"), MinCommitTS: 6, ForUpdateTS: 7, UseAsyncCommit: true,
			Secondaries: [][]byte{[]byte("a"), {}}, RollbackTS: []uint64{1, 2}, LockedWithConflict: true,
		},
		{Type: LockPessimistic, StartTS: 5, Primary: []byte("p"), UseAsyncCommit: true},
		{Type: LockShared, StartTS: 5, Primary: []byte{}},
		{Type: LockShared, Primary: []byte{}, Holders: []Lock{
			{Type: LockShared, StartTS: 5, TTL: 3, Primary: []byte("p"), ForUpdateTS: 6},
			{Type: LockShared, StartTS: 7, Primary: []byte("q"), MinCommitTS: 9},
		}},
	} {
		got, err := ParseLock(l.AppendTo(nil))
		require.NoError(t, err)
		require.Equal(t, l, got)
	}
}

// A shared lock is a set of holders by start timestamp.
func TestSharedLock(t *testing.T) {
	var none *Lock
	require.Nil(t, none.Of(5))
	l := none.With(Lock{StartTS: 7, Primary: []byte("b")}).With(Lock{StartTS: 5, Primary: []byte("a")})
	require.Equal(t, uint64(5), l.Holders[0].StartTS)
	require.Equal(t, uint64(7), l.Of(7).StartTS)
	require.Nil(t, l.Of(0), "the record itself is nobody's")
	require.True(t, l.Of(5).Pessimistic())
	again := l.With(Lock{StartTS: 5, Primary: []byte("a"), TTL: 9})
	require.Len(t, again.Holders, 2)
	require.Zero(t, l.Of(5).TTL, "locks do not change")
	info := again.Info([]byte("k"))
	require.Equal(t, uint64(5), info.StartTs)
	require.Len(t, info.Holders, 2)
	require.Len(t, l.Without(5).Holders, 1)
	require.Nil(t, l.Without(5).Without(7))
}

// A holder that holds for others, or a lock of another kind with holders, is no record.
func TestHoldersDoNotNest(t *testing.T) {
	inner := Lock{Type: LockShared, Holders: []Lock{{Type: LockShared, StartTS: 5}}}
	nested := Lock{Type: LockShared, Holders: []Lock{inner}}
	_, err := ParseLock(nested.AppendTo(nil))
	require.ErrorIs(t, err, ErrCorrupt)
	inner.Type = LockPut
	_, err = ParseLock(inner.AppendTo(nil))
	require.ErrorIs(t, err, ErrCorrupt)
}

func TestWriteRoundTrip(t *testing.T) {
	for _, w := range []Write{
		{Type: WritePut, StartTS: 1},
		{Type: WritePut, StartTS: 1, HasValue: true, Value: []byte{}},
		{Type: WritePut, StartTS: 1, HasValue: true, Value: make([]byte, MaxInlineValue)},
		{Type: WriteRollback, StartTS: MaxTS, Protected: true},
		{Type: WriteDelete, StartTS: 9, OverlappedRollback: true, HasGCFence: true},
		{Type: WriteLock, StartTS: 9, OverlappedRollback: true, HasGCFence: true, GCFence: 12},
	} {
		got, err := ParseWrite(w.AppendTo(nil))
		require.NoError(t, err)
		require.Equal(t, w, got)
	}
}

// A newer version may append fields this one does not know.
func TestUnknownTagStopsParsing(t *testing.T) {
	l := Lock{Type: LockPut, StartTS: 1, Primary: []byte("p"), MinCommitTS: 3}
	got, err := ParseLock(append(l.AppendTo(nil), "~whatever"...))
	require.NoError(t, err)
	require.Equal(t, l, got)
	w := Write{Type: WritePut, StartTS: 1, HasValue: true, Value: []byte("v")}
	gotW, err := ParseWrite(append(w.AppendTo(nil), "~whatever"...))
	require.NoError(t, err)
	require.Equal(t, w, gotW)
}

func TestCorruptRecords(t *testing.T) {
	l := Lock{Type: LockPut, StartTS: 1, Primary: []byte("primary"), HasShortValue: true, ShortValue: []byte("value")}
	full := l.AppendTo(nil)
	for n := range full {
		if _, err := ParseLock(full[:n]); err == nil {
			// Only a cut between two fields can go unnoticed.
			require.Equal(t, len(full)-len("v")-1-len("value"), n)
		} else {
			require.ErrorIs(t, err, ErrCorrupt)
		}
	}
	for _, b := range [][]byte{nil, {0}, {'X', 0, 0, 0, 0, 0, 0, 0, 1}, {'P', 1}} {
		_, err := ParseWrite(b)
		require.ErrorIs(t, err, ErrCorrupt)
	}
}

func FuzzParseLock(f *testing.F) {
	l := Lock{
		Type: LockPut, StartTS: 1, Primary: []byte("p"), MinCommitTS: 6, UseAsyncCommit: true,
		Secondaries: [][]byte{[]byte("a")}, RollbackTS: []uint64{1}, HasShortValue: true, ShortValue: []byte("v"),
	}
	f.Add(l.AppendTo(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := ParseLock(b)
		if err != nil {
			return
		}
		again, err := ParseLock(l.AppendTo(nil))
		require.NoError(t, err)
		require.Equal(t, l.AppendTo(nil), again.AppendTo(nil))
	})
}

func FuzzParseWrite(f *testing.F) {
	w := Write{Type: WritePut, StartTS: 1, HasValue: true, Value: []byte("v"), HasGCFence: true, GCFence: 2}
	f.Add(w.AppendTo(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		w, err := ParseWrite(b)
		if err != nil {
			return
		}
		again, err := ParseWrite(w.AppendTo(nil))
		require.NoError(t, err)
		require.Equal(t, w.AppendTo(nil), again.AppendTo(nil))
	})
}
