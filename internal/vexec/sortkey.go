package vexec

import (
	"bytes"
	"encoding/binary"

	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/internal/types"
)

// SortItem is one item of an ordering.
type SortItem struct {
	Output
	// Desc puts the greatest first. NULL is less than everything.
	Desc bool
}

// AppendSortKey appends bytes whose order is the order of the rows under items.
func AppendSortKey(dst []byte, env *expr.Env, items []SortItem, b *chunk.Batch, row int) []byte {
	for i := range items {
		it := &items[i]
		if i == len(items)-1 && !it.Desc {
			return types.AppendLastKey(dst, it.Value(env, b, row), it.Type)
		}
		at := len(dst)
		dst = types.AppendKey(dst, it.Value(env, b, row), it.Type)
		if it.Desc {
			for j := at; j < len(dst); j++ {
				dst[j] = ^dst[j]
			}
		}
	}
	return dst
}

// sortRef is a row to sort: the first eight bytes of its key decide most comparisons without touching the key.
type sortRef struct {
	prefix uint64
	key    []byte
	row    int
}

func newSortRef(key []byte, row int) sortRef {
	var head [8]byte
	copy(head[:], key)
	return sortRef{prefix: binary.BigEndian.Uint64(head[:]), key: key, row: row}
}

// compareRefs orders by key, then by the order of arrival, so that sorting is stable.
func compareRefs(a, b sortRef) int {
	switch {
	case a.prefix < b.prefix:
		return -1
	case a.prefix > b.prefix:
		return 1
	}
	if c := bytes.Compare(a.key, b.key); c != 0 {
		return c
	}
	return a.row - b.row
}
