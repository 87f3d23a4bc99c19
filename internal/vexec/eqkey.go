package vexec

import (
	"encoding/binary"
	"math"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/types"
)

const (
	eqNull  = 0
	eqValue = 1
)

// AppendEqKey appends bytes that are the same for two values of column type t exactly when SQL calls them equal under t's
// collation, or when both are NULL. The bytes of one value are no prefix of another's, so keys of several columns can be
// appended one after the other. Unlike types.AppendKey they are not ordered, and shorter.
func AppendEqKey(dst []byte, c *chunk.Column, row int, t types.Type) []byte {
	if c.IsNull(row) {
		return append(dst, eqNull)
	}
	switch t.Class() {
	case types.ClassInt:
		return appendEqLane(dst, uint64(c.Int(row)))
	case types.ClassFloat:
		return appendEqFloat(dst, c.Float(row))
	case types.ClassTime:
		return appendEqLane(dst, uint64(c.Time(row)))
	case types.ClassDuration:
		return appendEqLane(dst, uint64(c.Duration(row)))
	case types.ClassString:
		return appendEqString(dst, c.Bytes(row), t.Collation)
	}
	return types.AppendKey(dst, c.Value(row), t)
}

// AppendEqKeyValue is AppendEqKey of a single value.
func AppendEqKeyValue(dst []byte, v types.Value, t types.Type) []byte {
	if v.IsNull() {
		return append(dst, eqNull)
	}
	switch t.Class() {
	case types.ClassInt, types.ClassTime, types.ClassDuration:
		return appendEqLane(dst, v.Lane())
	case types.ClassFloat:
		return appendEqFloat(dst, v.Float())
	case types.ClassString:
		return appendEqString(dst, v.Bytes(), t.Collation)
	}
	return types.AppendKey(dst, v, t)
}

func appendEqLane(dst []byte, lane uint64) []byte {
	return binary.LittleEndian.AppendUint64(append(dst, eqValue), lane)
}

func appendEqFloat(dst []byte, f float64) []byte {
	if f == 0 {
		f = 0 // -0 equals 0
	}
	return appendEqLane(dst, math.Float64bits(f))
}

// appendEqString appends length and sort key. The length of the sort key is not known before it is made: it is filled in
// afterwards.
func appendEqString(dst []byte, s []byte, coll charset.ID) []byte {
	at := len(dst) + 1
	dst = append(dst, eqValue, 0, 0, 0, 0)
	if coll == charset.Binary {
		dst = append(dst, s...)
	} else {
		dst = charset.Get(coll).AppendSortKey(dst, s)
	}
	binary.LittleEndian.PutUint32(dst[at:], uint32(len(dst)-at-4))
	return dst
}
