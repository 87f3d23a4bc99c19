package wire

import (
	"encoding/binary"
	"math"
	"strconv"

	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/types"
)

// nullText is the length byte of NULL in a text row.
const nullText = 0xfb

// WriteRows writes one packet per selected row of b. typs are the types of the
// columns, in order; bin chooses the binary protocol (prepared statements).
// It returns the error of the connection, so that a producer can stop early.
func (c *Conn) WriteRows(b *chunk.Batch, typs []types.Type, bin bool) error {
	n := b.NumRows()
	for i := range n {
		row := i
		if b.Sel != nil {
			row = int(b.Sel[i])
		}
		c.begin()
		if bin {
			c.wbuf = appendBinaryRow(c.wbuf, b, typs, row)
		} else {
			c.wbuf = appendTextRow(c.wbuf, b, typs, row)
		}
		c.end()
		if c.err != nil {
			return c.err
		}
	}
	return nil
}

func appendTextRow(dst []byte, b *chunk.Batch, typs []types.Type, row int) []byte {
	for i, col := range b.Cols {
		if col.IsNull(row) {
			dst = append(dst, nullText)
			continue
		}
		t := &typs[i]
		switch t.Class() {
		case types.ClassString, types.ClassJSON:
			dst = appendLenString(dst, col.Bytes(row))
		case types.ClassInt:
			if plainInt(t) {
				dst = appendShort(dst, func(d []byte) []byte {
					if t.Unsigned() {
						return strconv.AppendUint(d, uint64(col.Int(row)), 10)
					}
					return strconv.AppendInt(d, col.Int(row), 10)
				})
				continue
			}
			dst = appendLong(dst, col.Value(row), *t)
		default:
			dst = appendLong(dst, col.Value(row), *t)
		}
	}
	return dst
}

// plainInt reports whether the text of an integer type is just its digits.
func plainInt(t *types.Type) bool {
	if t.Flags&types.FlagZerofill != 0 {
		return false
	}
	switch t.Tp {
	case types.TypeBit, types.TypeEnum, types.TypeSet, types.TypeYear:
		return false
	}
	return true
}

// appendShort appends what f appends, which is shorter than 251 bytes, behind its length.
func appendShort(dst []byte, f func([]byte) []byte) []byte {
	at := len(dst)
	dst = f(append(dst, 0))
	dst[at] = byte(len(dst) - at - 1)
	return dst
}

// appendLong appends the text of v behind its length, of whatever size.
func appendLong(dst []byte, v types.Value, t types.Type) []byte {
	at := len(dst)
	dst = types.AppendText(append(dst, 0), v, t)
	n := len(dst) - at - 1
	if n < 251 {
		dst[at] = byte(n)
		return dst
	}
	text := append([]byte(nil), dst[at+1:]...)
	return appendLenString(dst[:at], text)
}

func appendBinaryRow(dst []byte, b *chunk.Batch, typs []types.Type, row int) []byte {
	dst = append(dst, 0)
	bitmap := len(dst)
	for range (len(b.Cols) + 7 + 2) / 8 {
		dst = append(dst, 0)
	}
	for i, col := range b.Cols {
		if col.IsNull(row) {
			dst[bitmap+(i+2)/8] |= 1 << ((i + 2) % 8)
			continue
		}
		dst = appendBinary(dst, col, &typs[i], row)
	}
	return dst
}

func appendBinary(dst []byte, col *chunk.Column, t *types.Type, row int) []byte {
	switch t.Tp {
	case types.TypeTiny:
		return append(dst, byte(col.Int(row)))
	case types.TypeShort, types.TypeYear:
		return binary.LittleEndian.AppendUint16(dst, uint16(col.Int(row)))
	case types.TypeLong, types.TypeInt24:
		return binary.LittleEndian.AppendUint32(dst, uint32(col.Int(row)))
	case types.TypeLonglong:
		return binary.LittleEndian.AppendUint64(dst, uint64(col.Int(row)))
	case types.TypeFloat:
		return binary.LittleEndian.AppendUint32(dst, math.Float32bits(float32(col.Float(row))))
	case types.TypeDouble:
		return binary.LittleEndian.AppendUint64(dst, math.Float64bits(col.Float(row)))
	case types.TypeDate, types.TypeDatetime, types.TypeTimestamp:
		return appendBinaryTime(dst, col.Time(row), t.Tp == types.TypeDate)
	case types.TypeDuration:
		return appendBinaryDuration(dst, col.Duration(row))
	}
	if t.IsString() || t.Class() == types.ClassJSON {
		return appendLenString(dst, col.Bytes(row))
	}
	return appendLong(dst, col.Value(row), *t)
}

func appendBinaryTime(dst []byte, t types.Time, dateOnly bool) []byte {
	y, mo, d := t.Date()
	h, mi, s, us := t.Clock()
	n := byte(11)
	switch {
	case t.IsZero():
		return append(dst, 0)
	case dateOnly || h|mi|s|us == 0:
		n = 4
	case us == 0:
		n = 7
	}
	dst = append(dst, n, byte(y), byte(y>>8), byte(mo), byte(d))
	if n >= 7 {
		dst = append(dst, byte(h), byte(mi), byte(s))
	}
	if n == 11 {
		dst = binary.LittleEndian.AppendUint32(dst, uint32(us))
	}
	return dst
}

func appendBinaryDuration(dst []byte, d types.Duration) []byte {
	neg, h, mi, s, us := d.Parts()
	if d == 0 {
		return append(dst, 0)
	}
	sign := byte(0)
	if neg {
		sign = 1
	}
	n := byte(8)
	if us != 0 {
		n = 12
	}
	dst = append(dst, n, sign)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(h/24))
	dst = append(dst, byte(h%24), byte(mi), byte(s))
	if us != 0 {
		dst = binary.LittleEndian.AppendUint32(dst, uint32(us))
	}
	return dst
}
