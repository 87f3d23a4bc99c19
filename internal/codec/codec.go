// Package codec writes values so that their bytes order as the values do (memcomparable).
//
// Every Append function extends dst and never looks at what is in it, so encodings concatenate: the bytes of (a, b) order
// as the pairs do, because no encoding is a prefix of another one of the same kind. Every Decode function returns the rest
// after the value, and ErrMalformed on bytes Append cannot have written; none of them panics.
//
//	int     8 bytes, big-endian, sign bit flipped
//	uint    8 bytes, big-endian
//	float   8 bytes, big-endian bits; negative numbers inverted, others with the sign bit set; -0 is 0
//	bytes   groups of 8 bytes, the last one (0..7 bytes) padded with zeros, each followed by a marker: 0xFF minus
//	        the number of bytes of padding, so 0xFF means that another group follows
package codec

import (
	"encoding/binary"
	"errors"
	"math"
	"slices"
)

// ErrMalformed tells that bytes are not an encoding.
var ErrMalformed = errors.New("malformed encoding")

const signBit = 1 << 63

// AppendInt appends 8 bytes.
func AppendInt(dst []byte, v int64) []byte {
	return binary.BigEndian.AppendUint64(dst, uint64(v)^signBit)
}

// DecodeInt reads what AppendInt wrote.
func DecodeInt(b []byte) (v int64, rest []byte, err error) {
	u, rest, err := DecodeUint(b)
	return int64(u ^ signBit), rest, err
}

// AppendUint appends 8 bytes.
func AppendUint(dst []byte, v uint64) []byte {
	return binary.BigEndian.AppendUint64(dst, v)
}

// DecodeUint reads what AppendUint wrote.
func DecodeUint(b []byte) (v uint64, rest []byte, err error) {
	if len(b) < 8 {
		return 0, b, ErrMalformed
	}
	return binary.BigEndian.Uint64(b), b[8:], nil
}

// AppendFloat appends 8 bytes. -0 is written as 0; NaN orders after everything.
func AppendFloat(dst []byte, f float64) []byte {
	if f == 0 {
		f = 0 // drops the sign of -0
	}
	u := math.Float64bits(f)
	if u&signBit != 0 {
		u = ^u
	} else {
		u |= signBit
	}
	return binary.BigEndian.AppendUint64(dst, u)
}

// DecodeFloat reads what AppendFloat wrote.
func DecodeFloat(b []byte) (f float64, rest []byte, err error) {
	u, rest, err := DecodeUint(b)
	if u&signBit != 0 {
		u &^= signBit
	} else {
		u = ^u
	}
	return math.Float64frombits(u), rest, err
}

const (
	groupSize = 8
	// moreMarker follows a full group with more to come.
	moreMarker = 0xFF
	// lastMarker - n follows the last group, which has n bytes of padding.
	lastMarker = 0xFF
)

// AppendBytes appends (len(v)/8+1)*9 bytes.
func AppendBytes(dst, v []byte) []byte {
	for len(v) >= groupSize {
		dst = append(dst, v[:groupSize]...)
		dst = append(dst, moreMarker)
		v = v[groupSize:]
	}
	var group [groupSize + 1]byte
	copy(group[:], v)
	group[groupSize] = byte(lastMarker - (groupSize - len(v)))
	return append(dst, group[:]...)
}

// EncodeTail turns dst[at:] into what AppendBytes would have appended for it, in place: for values that are made at the
// end of dst.
func EncodeTail(dst []byte, at int) []byte {
	n := len(dst) - at
	groups := n/groupSize + 1
	total := groups * (groupSize + 1)
	dst = slices.Grow(dst, total-n)[:at+total]
	tail := dst[at:]
	for g := groups - 1; g >= 0; g-- {
		size := min(n-g*groupSize, groupSize)
		out := tail[g*(groupSize+1) : (g+1)*(groupSize+1)]
		copy(out, tail[g*groupSize:g*groupSize+size])
		clear(out[size:groupSize])
		out[groupSize] = byte(lastMarker - (groupSize - size))
	}
	return dst
}

// BytesLen is the number of bytes AppendBytes appends for n bytes.
func BytesLen(n int) int { return (n/groupSize + 1) * (groupSize + 1) }

// DecodeBytes reads what AppendBytes wrote and appends the string to dst.
func DecodeBytes(dst, b []byte) (v, rest []byte, err error) {
	for {
		if len(b) < groupSize+1 {
			return dst, b, ErrMalformed
		}
		pad := int(lastMarker - b[groupSize])
		if pad == 0 {
			dst = append(dst, b[:groupSize]...)
			b = b[groupSize+1:]
			continue
		}
		if pad > groupSize {
			return dst, b, ErrMalformed
		}
		for _, c := range b[groupSize-pad : groupSize] {
			if c != 0 {
				return dst, b, ErrMalformed
			}
		}
		return append(dst, b[:groupSize-pad]...), b[groupSize+1:], nil
	}
}

// SkipBytes returns the rest after what AppendBytes wrote.
func SkipBytes(b []byte) (rest []byte, err error) {
	for {
		if len(b) < groupSize+1 {
			return b, ErrMalformed
		}
		marker := b[groupSize]
		b = b[groupSize+1:]
		if marker != moreMarker {
			return b, nil
		}
	}
}
