package rowcodec

import (
	"encoding/binary"

	"github.com/cairndb/cairn/internal/decimal"
	"github.com/cairndb/cairn/internal/types"
)

// row is a record taken apart. It aliases the record.
type row struct {
	n, m  int // columns with a value, columns that are NULL
	large bool
	ids   []byte // n ids and then m ids
	ends  []byte
	data  []byte
}

func (r *row) parse(b []byte) error {
	if len(b) < headerSize || b[0] != version || b[1]&^flagLarge != 0 {
		return ErrMalformed
	}
	r.large = b[1]&flagLarge != 0
	r.n = int(binary.LittleEndian.Uint16(b[2:]))
	r.m = int(binary.LittleEndian.Uint16(b[4:]))
	idSize, endSize := 1, 2
	if r.large {
		idSize, endSize = 4, 4
	}
	b = b[headerSize:]
	nIDs, nEnds := (r.n+r.m)*idSize, r.n*endSize
	if len(b) < nIDs+nEnds {
		return ErrMalformed
	}
	r.ids, r.ends, r.data = b[:nIDs], b[nIDs:nIDs+nEnds], b[nIDs+nEnds:]
	return nil
}

// id of the i-th column; from n on those that are NULL.
func (r *row) id(i int) int64 {
	if r.large {
		return int64(binary.LittleEndian.Uint32(r.ids[4*i:]))
	}
	return int64(r.ids[i])
}

func (r *row) end(i int) int {
	if r.large {
		return int(binary.LittleEndian.Uint32(r.ends[4*i:]))
	}
	return int(binary.LittleEndian.Uint16(r.ends[2*i:]))
}

// raw is the data of the i-th column with a value.
func (r *row) raw(i int) ([]byte, bool) {
	start, end := 0, r.end(i)
	if i > 0 {
		start = r.end(i - 1)
	}
	if start > end || end > len(r.data) {
		return nil, false
	}
	return r.data[start:end:end], true
}

// search finds an id among the columns [from, to).
func (r *row) search(id int64, from, to int) (int, bool) {
	for from < to {
		mid := int(uint(from+to) >> 1)
		switch got := r.id(mid); {
		case got == id:
			return mid, true
		case got < id:
			from = mid + 1
		default:
			to = mid
		}
	}
	return 0, false
}

// State tells how a row holds a column.
type State uint8

const (
	// Absent: the row says nothing, the column has its default.
	Absent State = iota
	// IsNull: the column is NULL.
	IsNull
	// Present: the column has data.
	Present
	// InHandle: the column is part of the row's key. Only Decoder.Raw gives it.
	InHandle
)

// Find looks for one column of a record and gives its data, which aliases the record; DecodeData reads it.
func Find(record []byte, id int64) (data []byte, s State, err error) {
	var r row
	if err := r.parse(record); err != nil {
		return nil, Absent, err
	}
	if i, ok := r.search(id, 0, r.n); ok {
		data, ok := r.raw(i)
		if !ok {
			return nil, Absent, ErrMalformed
		}
		return data, Present, nil
	}
	if _, ok := r.search(id, r.n, r.n+r.m); ok {
		return nil, IsNull, nil
	}
	return nil, Absent, nil
}

// DecodeData reads the data of a column of this type. Bytes of the value alias data. A TIMESTAMP is in UTC.
func DecodeData(data []byte, t types.Type) (types.Value, error) { return decodeKind(data, t.Kind()) }

func decodeKind(data []byte, kind types.Kind) (types.Value, error) {
	switch kind {
	case types.KindString:
		return types.Str(data), nil
	case types.KindJSON:
		return types.JSON(data), nil
	case types.KindDecimal:
		d, err := decimal.FromBinary(data)
		if err != nil {
			return types.Null(), ErrMalformed
		}
		return types.Dec(d), nil
	}
	lane, ok := decodeFixed(data, kind == types.KindInt || kind == types.KindDuration)
	if !ok {
		return types.Null(), ErrMalformed
	}
	return types.FromLane(kind, lane), nil
}
