// Package rowcodec turns the columns of a row into the bytes of a record and back.
//
//	0x80 | flags | n u16 | m u16 | n ids | m ids | n ends | data
//
// n columns have a value and m are NULL; each list of ids ascends. ends[i] is where the data of the i-th column ends,
// counted from the start of the data. flags 0x01 ("large"): ids and ends have 4 bytes; else ids have 1 and ends 2. All
// numbers are little-endian. docs/formats/rows.md draws it with the encoding of each class.
//
// A column that is in neither list has its default: adding a column does not touch rows. Decoding checks everything it
// reads and never panics. TIMESTAMP values are stored in UTC: Encoder and Decoder convert from and to a time zone when
// they are given one.
package rowcodec

import (
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"time"

	"github.com/cairndb/cairn/internal/types"
)

// ErrMalformed tells that bytes are not a row.
var ErrMalformed = errors.New("malformed row")

const (
	version    = 0x80
	flagLarge  = 0x01
	headerSize = 6

	smallMaxID   = math.MaxUint8
	smallMaxData = math.MaxUint16
)

// Encoder writes rows. It keeps scratch memory between rows: one goroutine at a time. The zero Encoder is ready.
type Encoder struct {
	// Loc is the zone TIMESTAMP values are given in; nil means that they are in UTC.
	Loc *time.Location

	order []int
	ends  []int
	data  []byte
}

// Encode appends the row with these columns to dst. The slices go together by index; ids are positive and unlike each
// other, in any order. ts may be nil when no value is a TIMESTAMP in a zone.
func (e *Encoder) Encode(dst []byte, ids []int64, vals []types.Value, ts []types.Type) []byte {
	e.sort(ids)
	e.data, e.ends = e.data[:0], e.ends[:0]
	large := false
	nulls := 0
	for _, i := range e.order {
		large = large || ids[i] > smallMaxID
		v := vals[i]
		if v.IsNull() {
			nulls++
			continue
		}
		if ts != nil {
			v = types.ToStorage(v, ts[i], e.Loc)
		}
		e.data = appendData(e.data, v)
		e.ends = append(e.ends, len(e.data))
	}
	large = large || len(e.data) > smallMaxData
	flags := byte(0)
	if large {
		flags = flagLarge
	}
	dst = append(dst, version, flags)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(e.ends)))
	dst = binary.LittleEndian.AppendUint16(dst, uint16(nulls))
	dst = e.appendIDs(dst, ids, vals, large, false)
	dst = e.appendIDs(dst, ids, vals, large, true)
	for _, end := range e.ends {
		if large {
			dst = binary.LittleEndian.AppendUint32(dst, uint32(end))
		} else {
			dst = binary.LittleEndian.AppendUint16(dst, uint16(end))
		}
	}
	return append(dst, e.data...)
}

// sort puts the indexes of ids into ascending order of the ids.
func (e *Encoder) sort(ids []int64) {
	e.order = e.order[:0]
	sorted := true
	for i := range ids {
		e.order = append(e.order, i)
		sorted = sorted && (i == 0 || ids[i-1] < ids[i])
	}
	if !sorted {
		slices.SortFunc(e.order, func(a, b int) int { return int(ids[a] - ids[b]) })
	}
}

func (e *Encoder) appendIDs(dst []byte, ids []int64, vals []types.Value, large, null bool) []byte {
	for _, i := range e.order {
		switch {
		case vals[i].IsNull() != null:
		case large:
			dst = binary.LittleEndian.AppendUint32(dst, uint32(ids[i]))
		default:
			dst = append(dst, byte(ids[i]))
		}
	}
	return dst
}

// appendData appends the data of one column.
func appendData(dst []byte, v types.Value) []byte {
	switch v.Kind() {
	case types.KindInt, types.KindDuration:
		return appendInt(dst, int64(v.Lane()))
	case types.KindUint:
		return appendUint(dst, v.Uint())
	case types.KindDecimal:
		return v.Decimal().AppendBinary(dst)
	case types.KindString, types.KindJSON:
		return append(dst, v.Bytes()...)
	}
	return binary.LittleEndian.AppendUint64(dst, v.Lane())
}

// appendInt takes 1, 2, 4 or 8 bytes.
func appendInt(dst []byte, v int64) []byte {
	switch {
	case v == int64(int8(v)):
		return append(dst, byte(v))
	case v == int64(int16(v)):
		return binary.LittleEndian.AppendUint16(dst, uint16(v))
	case v == int64(int32(v)):
		return binary.LittleEndian.AppendUint32(dst, uint32(v))
	}
	return binary.LittleEndian.AppendUint64(dst, uint64(v))
}

// appendUint takes 1, 2, 4 or 8 bytes.
func appendUint(dst []byte, v uint64) []byte {
	switch {
	case v <= math.MaxUint8:
		return append(dst, byte(v))
	case v <= math.MaxUint16:
		return binary.LittleEndian.AppendUint16(dst, uint16(v))
	case v <= math.MaxUint32:
		return binary.LittleEndian.AppendUint32(dst, uint32(v))
	}
	return binary.LittleEndian.AppendUint64(dst, v)
}

// decodeFixed reads the data of a column that lives in a lane of eight bytes.
func decodeFixed(raw []byte, signed bool) (uint64, bool) {
	switch len(raw) {
	case 8:
		return binary.LittleEndian.Uint64(raw), true
	case 1:
		if signed {
			return uint64(int8(raw[0])), true
		}
		return uint64(raw[0]), true
	case 2:
		v := binary.LittleEndian.Uint16(raw)
		if signed {
			return uint64(int16(v)), true
		}
		return uint64(v), true
	case 4:
		v := binary.LittleEndian.Uint32(raw)
		if signed {
			return uint64(int32(v)), true
		}
		return uint64(v), true
	}
	return 0, false
}
