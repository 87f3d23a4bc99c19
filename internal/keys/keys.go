// Package keys lays out the key space: which key holds which row, index entry or piece of metadata.
//
//	t | tableID | r | handle                    one row
//	t | tableID | i | indexID | columns [| handle]   one index entry; the handle when the columns alone are not unique
//	m | ...                                     the catalog and other metadata
//	u | ...                                     pairs of programs that use transactions without SQL
//	r | ...                                     raw pairs, without transactions
//
// Table and index ids are 8 bytes, memcomparable. An integer handle is 8 bytes, memcomparable; a handle of several
// columns is their concatenated key encoding (types.AppendKey). The layout is drawn in docs/formats/keys.md.
package keys

import (
	"errors"

	"github.com/cairndb/cairn/internal/codec"
)

// ErrNotTableKey tells that a key is not what a Decode function reads.
var ErrNotTableKey = errors.New("not a key of this kind")

const (
	tableByte = 't'
	metaByte  = 'm'
	rowByte   = 'r'
	indexByte = 'i'

	// tableLen is the length of TablePrefix, rowLen of the prefix of rows, indexLen of the prefix of an index.
	tableLen = 1 + 8
	rowLen   = tableLen + 1
	indexLen = rowLen + 8
)

// AppendTablePrefix appends what all keys of a table begin with.
func AppendTablePrefix(dst []byte, tableID int64) []byte {
	return codec.AppendInt(append(dst, tableByte), tableID)
}

// TablePrefix returns the range [start, end) of all keys of a table, its rows and indexes.
func TablePrefix(tableID int64) (start, end []byte) {
	start = AppendTablePrefix(nil, tableID)
	return start, PrefixEnd(start)
}

// AppendRowPrefix appends what all row keys of a table begin with.
func AppendRowPrefix(dst []byte, tableID int64) []byte {
	return append(AppendTablePrefix(dst, tableID), rowByte)
}

// RowPrefix returns the range [start, end) of the rows of a table.
func RowPrefix(tableID int64) (start, end []byte) {
	start = AppendRowPrefix(nil, tableID)
	return start, PrefixEnd(start)
}

// AppendRow appends the key of the row with this handle.
func AppendRow(dst []byte, tableID int64, handle []byte) []byte {
	return append(AppendRowPrefix(dst, tableID), handle...)
}

// Row is AppendRow into a new slice.
func Row(tableID int64, handle []byte) []byte {
	return AppendRow(make([]byte, 0, rowLen+len(handle)), tableID, handle)
}

// AppendIntHandle appends an integer handle.
func AppendIntHandle(dst []byte, handle int64) []byte { return codec.AppendInt(dst, handle) }

// IntHandle is AppendIntHandle into a new slice.
func IntHandle(handle int64) []byte { return AppendIntHandle(make([]byte, 0, 8), handle) }

// AppendIntRow appends the key of the row with an integer handle.
func AppendIntRow(dst []byte, tableID, handle int64) []byte {
	return AppendIntHandle(AppendRowPrefix(dst, tableID), handle)
}

// DecodeIntHandle reads an integer handle.
func DecodeIntHandle(handle []byte) (int64, error) {
	v, rest, err := codec.DecodeInt(handle)
	if err != nil || len(rest) != 0 {
		return 0, ErrNotTableKey
	}
	return v, nil
}

// AppendIndexPrefix appends what all entries of an index begin with.
func AppendIndexPrefix(dst []byte, tableID, indexID int64) []byte {
	return codec.AppendInt(append(AppendTablePrefix(dst, tableID), indexByte), indexID)
}

// IndexPrefix returns the range [start, end) of the entries of an index.
func IndexPrefix(tableID, indexID int64) (start, end []byte) {
	start = AppendIndexPrefix(nil, tableID, indexID)
	return start, PrefixEnd(start)
}

// AppendIndex appends the key of an index entry. handle is empty for the entry of a unique index without NULL.
func AppendIndex(dst []byte, tableID, indexID int64, columns, handle []byte) []byte {
	return append(append(AppendIndexPrefix(dst, tableID, indexID), columns...), handle...)
}

// Index is AppendIndex into a new slice.
func Index(tableID, indexID int64, columns, handle []byte) []byte {
	return AppendIndex(make([]byte, 0, indexLen+len(columns)+len(handle)), tableID, indexID, columns, handle)
}

// DecodeTable reads the table id of a row or index key.
func DecodeTable(key []byte) (tableID int64, rest []byte, err error) {
	if len(key) < tableLen || key[0] != tableByte {
		return 0, nil, ErrNotTableKey
	}
	tableID, rest, err = codec.DecodeInt(key[1:])
	return tableID, rest, err
}

// DecodeRow splits a row key. The handle aliases key.
func DecodeRow(key []byte) (tableID int64, handle []byte, err error) {
	tableID, rest, err := DecodeTable(key)
	if err != nil || len(rest) == 0 || rest[0] != rowByte {
		return 0, nil, ErrNotTableKey
	}
	return tableID, rest[1:], nil
}

// DecodeIndex splits an index key into the ids and the columns with the handle. The rest aliases key.
func DecodeIndex(key []byte) (tableID, indexID int64, rest []byte, err error) {
	tableID, rest, err = DecodeTable(key)
	if err != nil || len(rest) < 1+8 || rest[0] != indexByte {
		return 0, 0, nil, ErrNotTableKey
	}
	indexID, rest, err = codec.DecodeInt(rest[1:])
	return tableID, indexID, rest, err
}

// RowPrefixLen is the length of what AppendRowPrefix appends: the handle of a row key starts there.
const RowPrefixLen = rowLen

// IndexPrefixLen is the length of what AppendIndexPrefix appends: the columns of an index key start there.
const IndexPrefixLen = indexLen

// AppendMeta appends the key of a piece of metadata with this name.
func AppendMeta(dst []byte, name string) []byte { return append(append(dst, metaByte), name...) }

// Meta is AppendMeta into a new slice.
func Meta(name string) []byte { return AppendMeta(make([]byte, 0, 1+len(name)), name) }

// MetaPrefix returns the range [start, end) of the metadata whose names begin with prefix.
func MetaPrefix(prefix string) (start, end []byte) {
	start = Meta(prefix)
	return start, PrefixEnd(start)
}

// DecodeMeta reads the name of a metadata key.
func DecodeMeta(key []byte) (name string, err error) {
	if len(key) == 0 || key[0] != metaByte {
		return "", ErrNotTableKey
	}
	return string(key[1:]), nil
}

// PrefixEnd returns the least key greater than all keys that begin with prefix; nil when there is none (prefix empty or
// all 0xFF), which means unbounded.
func PrefixEnd(prefix []byte) []byte {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] != 0xFF {
			end := append([]byte(nil), prefix[:i+1]...)
			end[i]++
			return end
		}
	}
	return nil
}

// Next returns the least key greater than key.
func Next(key []byte) []byte { return append(append(make([]byte, 0, len(key)+1), key...), 0) }
