package keys

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestRowKeys(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		table, handle := rapid.Int64().Draw(t, "table"), rapid.Int64().Draw(t, "handle")
		key := Row(table, IntHandle(handle))
		require.Equal(t, key, AppendIntRow(nil, table, handle))
		require.Len(t, key, RowPrefixLen+8)
		gotTable, h, err := DecodeRow(key)
		require.NoError(t, err)
		require.Equal(t, table, gotTable)
		gotHandle, err := DecodeIntHandle(h)
		require.NoError(t, err)
		require.Equal(t, handle, gotHandle)
		start, end := RowPrefix(table)
		require.True(t, bytes.Compare(start, key) <= 0 && bytes.Compare(key, end) < 0)
		start, end = TablePrefix(table)
		require.True(t, bytes.Compare(start, key) <= 0 && (end == nil || bytes.Compare(key, end) < 0))
		_, _, _, err = DecodeIndex(key)
		require.ErrorIs(t, err, ErrNotTableKey)
	})
}

func TestIndexKeys(t *testing.T) {
	key := Index(5, 2, []byte("cols"), []byte("h"))
	table, index, rest, err := DecodeIndex(key)
	require.NoError(t, err)
	require.EqualValues(t, 5, table)
	require.EqualValues(t, 2, index)
	require.Equal(t, "colsh", string(rest))
	require.Equal(t, "colsh", string(key[IndexPrefixLen:]))
	start, end := IndexPrefix(5, 2)
	require.True(t, bytes.Compare(start, key) <= 0 && bytes.Compare(key, end) < 0)
	other := Index(5, 3, nil, nil)
	require.True(t, bytes.Compare(end, other) <= 0)
	_, _, err = DecodeRow(key)
	require.ErrorIs(t, err, ErrNotTableKey)
}

func TestMetaKeys(t *testing.T) {
	name, err := DecodeMeta(Meta("schema/1"))
	require.NoError(t, err)
	require.Equal(t, "schema/1", name)
	start, end := MetaPrefix("schema/")
	require.True(t, bytes.Compare(start, Meta("schema/1")) < 0 && bytes.Compare(Meta("schema/zzz"), end) < 0)
	require.True(t, bytes.Compare(end, Meta("schemb")) <= 0)
	_, err = DecodeMeta([]byte("t"))
	require.ErrorIs(t, err, ErrNotTableKey)
}

func TestPrefixEnd(t *testing.T) {
	require.Equal(t, []byte("b"), PrefixEnd([]byte("a")))
	require.Equal(t, []byte("b"), PrefixEnd([]byte("a\xff\xff")))
	require.Nil(t, PrefixEnd([]byte("\xff")))
	require.Nil(t, PrefixEnd(nil))
	require.Equal(t, []byte("a\x00"), Next([]byte("a")))
}

func FuzzDecode(f *testing.F) {
	f.Add(Row(1, IntHandle(2)))
	f.Add(Index(1, 2, []byte("x"), nil))
	f.Fuzz(func(t *testing.T, key []byte) {
		if table, handle, err := DecodeRow(key); err == nil {
			require.Equal(t, key, Row(table, handle))
		}
		if table, index, rest, err := DecodeIndex(key); err == nil {
			require.Equal(t, key, Index(table, index, rest, nil))
		}
		if name, err := DecodeMeta(key); err == nil {
			require.Equal(t, key, Meta(name))
		}
	})
}
