// Package table turns rows into keys and values: the record, the index entries, the unique checks, the counters.
//
// A row of a table lives under one key, keys.Row(table, handle). What the handle is says catalog.HandleKind. The row value
// holds every column, except the PRIMARY KEY column of a HandleInt table, which is the handle.
//
// An index entry's key is the indexed columns in key encoding (strings as sort keys of their collation, prefixes cut),
// and its value
//
//	unique index, no NULL among the columns: the handle
//	otherwise: one byte 0; the handle follows the columns in the key
//
// The PRIMARY KEY has no entries: its key is the row key. Entries hold no copy of the original text, so an index covers
// a column only when its key can be decoded (IndexDecodes).
//
// Values of rows are as the session sees them; TIMESTAMP columns are turned into UTC, the stored form, by the Writer's
// time zone.
package table

import (
	"context"
	"errors"
	"time"
	"unicode/utf8"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/codec"
	"github.com/cairndb/cairn/internal/keys"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/sqlnode/catalog"
)

// Txn is what a Writer needs of a transaction; *txn.Txn is one.
type Txn interface {
	// Get returns txn.ErrNotFound for an absent key; own writes are seen.
	Get(ctx context.Context, key []byte) ([]byte, error)
	Set(key, value []byte) error
	// Insert is Set of a key presumed absent, which is checked at commit.
	Insert(key, value []byte) error
	Delete(key []byte) error
	// SetDependent and DeleteDependent are Set and Delete of an entry that no two rows can have: who changes it changes the
	// row, and the row's lock is enough. covered is false while an index is filled, by one that does not lock rows.
	SetDependent(key, value []byte, covered bool) error
	DeleteDependent(key []byte, covered bool) error
	// HasWritesIn says whether the transaction itself put or deleted a key of [start, end).
	HasWritesIn(start, end []byte) bool
}

// nonUniqueValue is the value of an entry whose handle is in the key.
var nonUniqueValue = []byte{0}

// keyPart is one column of an index or of a common handle, ready to encode.
type keyPart struct {
	offset int
	length int // prefix in characters or bytes, -1 for all
	typ    types.Type
}

func keyParts(t *catalog.Table, ix *catalog.Index) []keyPart {
	parts := make([]keyPart, len(ix.Columns))
	for i, ic := range ix.Columns {
		parts[i] = keyPart{offset: ic.Offset, length: ic.Length, typ: t.Columns[ic.Offset].Type}
	}
	return parts
}

// appendValue appends the key encoding of one column value. TIMESTAMPs are turned into UTC from loc.
func (p *keyPart) appendValue(dst []byte, v types.Value, loc *time.Location) []byte {
	if p.length >= 0 {
		v = CutPrefix(v, p.typ, p.length)
	}
	return types.AppendKey(dst, types.ToStorage(v, p.typ, loc), p.typ)
}

// CutPrefix shortens a string to what an index with a prefix length keeps: characters, or bytes of binary strings.
func CutPrefix(v types.Value, t types.Type, length int) types.Value {
	if v.Kind() != types.KindString {
		return v
	}
	b := v.Bytes()
	if len(b) <= length {
		return v
	}
	if t.Collation == charset.Binary {
		return types.Str(b[:length])
	}
	i := 0
	for n := 0; n < length && i < len(b); n++ {
		_, size := utf8.DecodeRune(b[i:])
		i += size
	}
	return types.Str(b[:i])
}

// IndexDecodes says whether the value of index column i can be read back from an entry's key, so that the index can
// cover it: numbers, times, and strings whose collation keeps the bytes, not cut to a prefix.
func IndexDecodes(t *catalog.Table, ix *catalog.Index, i int) bool {
	ic := ix.Columns[i]
	return ic.Length < 0 && types.KeyInvertible(t.Columns[ic.Offset].Type)
}

// Covers says whether an entry of ix, or its handle, gives the value of the column at offset.
func Covers(t *catalog.Table, ix *catalog.Index, offset int) bool {
	for i, ic := range ix.Columns {
		if ic.Offset == offset {
			return !ix.Primary && IndexDecodes(t, ix, i)
		}
	}
	if t.PK == nil {
		return false
	}
	for i, ic := range t.PK.Columns {
		if ic.Offset == offset {
			return IndexDecodes(t, t.PK, i)
		}
	}
	return false
}

// EntryHandle finds the handle of an index entry. It aliases key or value.
func EntryHandle(t *catalog.Table, ix *catalog.Index, key, value []byte) ([]byte, error) {
	if ix.Unique && !isNonUnique(value) {
		return value, nil
	}
	rest := key[min(keys.IndexPrefixLen, len(key)):]
	var err error
	for _, ic := range ix.Columns {
		if rest, err = types.SkipKey(rest, t.Columns[ic.Offset].Type); err != nil {
			return nil, err
		}
	}
	if len(rest) == 0 {
		return nil, codec.ErrMalformed
	}
	return rest, nil
}

// isNonUnique tells the value of an entry with the handle in its key. A handle is never one byte long.
func isNonUnique(value []byte) bool { return len(value) == 1 }

// AppendHandle appends the handle of a row. rowID is used by tables without PRIMARY KEY only.
func AppendHandle(dst []byte, t *catalog.Table, row []types.Value, rowID int64, loc *time.Location) []byte {
	switch t.Handle {
	case catalog.HandleInt:
		return keys.AppendIntHandle(dst, row[t.PK.Columns[0].Offset].Int())
	case catalog.HandleRowID:
		return keys.AppendIntHandle(dst, rowID)
	}
	for _, ic := range t.PK.Columns {
		p := keyPart{offset: ic.Offset, length: ic.Length, typ: t.Columns[ic.Offset].Type}
		dst = p.appendValue(dst, row[ic.Offset], loc)
	}
	return dst
}

// DefaultValue gives the value of a column that an INSERT does not name, as the session sees it. now is the statement's
// time in the session's zone. A NOT NULL column without DEFAULT is error 1364, except AUTO_INCREMENT, which is NULL
// here: the caller generates its value.
func DefaultValue(c *catalog.Column, now time.Time) (types.Value, error) {
	switch {
	case c.Default == nil && c.AutoIncrement:
		return types.Null(), nil
	case c.Default == nil && c.NotNull():
		return types.Null(), sqlerr.New(sqlerr.ErrNoDefaultForField, c.Name)
	case c.Default == nil:
		return types.Null(), nil
	case c.Default.Now:
		return Now(c, now), nil
	}
	return types.FromStorage(c.Default.Value, c.Type, now.Location()), nil
}

// Now is the value CURRENT_TIMESTAMP has in a column: now cut to the column's fractional digits.
func Now(c *catalog.Column, now time.Time) types.Value {
	unit := time.Second
	for range c.Type.FSP() {
		unit /= 10
	}
	return types.TimeVal(types.TimeOf(now.Truncate(unit)))
}

// ZeroValue is the implicit default of a NOT NULL column: what non-strict and IGNORE statements store instead of failing.
func ZeroValue(c *catalog.Column) types.Value {
	switch c.Type.Kind() {
	case types.KindInt:
		return types.Int(0)
	case types.KindUint:
		if c.Type.Tp == types.TypeEnum {
			return types.Uint(1)
		}
		return types.Uint(0)
	case types.KindFloat:
		return types.Float(0)
	case types.KindDecimal:
		return types.Dec(decimalZero(c.Type))
	case types.KindTime:
		return types.TimeVal(0)
	case types.KindDuration:
		return types.Dur(0)
	case types.KindJSON:
		return types.JSON([]byte("null"))
	}
	return types.String("")
}

// CheckNotNull returns error 1048 for the first NULL in a NOT NULL column.
func CheckNotNull(t *catalog.Table, row []types.Value) error {
	for i, c := range t.Columns {
		if row[i].IsNull() && c.NotNull() {
			return sqlerr.New(sqlerr.ErrBadNull, c.Name)
		}
	}
	return nil
}

// DupError is a row that violates a unique key. It unwraps to the *sqlerr.Error 1062 for the client.
type DupError struct {
	Table *catalog.Table
	Index *catalog.Index
	// Handle is the handle of the row that is in the way; nil when it is not known.
	Handle []byte
	// Entry is the text of the duplicate values, joined by '-'.
	Entry string
}

// Error implements error.
func (e *DupError) Error() string { return e.Unwrap().Error() }

// Unwrap gives the client's error.
func (e *DupError) Unwrap() error { return sqlerr.New(sqlerr.ErrDupEntry, e.Entry, e.Index.Name) }

// EntryText writes the key values of a row as the 1062 message shows them.
func EntryText(t *catalog.Table, ix *catalog.Index, row []types.Value) string {
	var b []byte
	for i, ic := range ix.Columns {
		if i > 0 {
			b = append(b, '-')
		}
		v, typ := row[ic.Offset], t.Columns[ic.Offset].Type
		if v.IsNull() {
			b = append(b, "NULL"...)
			continue
		}
		if ic.Length >= 0 {
			v = CutPrefix(v, typ, ic.Length)
		}
		b = types.AppendText(b, v, typ)
	}
	return string(b)
}

// errFrozen asks the statement to be run again with a newer schema: a column is being added or dropped.
func errFrozen() error { return sqlerr.New(sqlerr.ErrTableDefChanged) }

// errHandle is a broken invariant of stored data.
var errHandle = errors.New("table: malformed handle")
