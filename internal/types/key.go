package types

import (
	"encoding/binary"
	"errors"
	"math"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/codec"
	"github.com/cairndb/cairn/internal/decimal"
)

// A key is a flag byte and, unless the value is NULL, the value in the memcomparable encoding of its class.
const (
	keyNull  = 0x00
	keyValue = 0x01
)

// ErrKeyNotInvertible tells that a key does not hold what the value was: a sort key of a collation.
var ErrKeyNotInvertible = errors.New("key cannot be turned back into the value")

// AppendKey appends bytes that order as Compare orders values of the type, NULL first. v must be NULL or of the type's
// kind; a TIMESTAMP must be in UTC. Encodings concatenate: the keys of (a, b) order as the pairs do. Strings that are
// equal in the type's collation have the same key.
func AppendKey(dst []byte, v Value, t Type) []byte {
	if v.kind == KindNull {
		return append(dst, keyNull)
	}
	dst = append(dst, keyValue)
	switch v.kind {
	case KindInt:
		if t.class() == ClassInt && t.Unsigned() {
			return codec.AppendUint(dst, v.a)
		}
		return codec.AppendInt(dst, int64(v.a))
	case KindUint:
		if t.class() == ClassInt && !t.Unsigned() {
			return codec.AppendInt(dst, int64(v.a))
		}
		return codec.AppendUint(dst, v.a)
	case KindTime:
		return codec.AppendUint(dst, v.a)
	case KindDuration:
		return codec.AppendInt(dst, int64(v.a))
	case KindFloat:
		return codec.AppendFloat(dst, v.Float())
	case KindDecimal:
		return v.Decimal().AppendKey(dst)
	case KindString:
		return appendStringKey(dst, v.Bytes(), t.Collation)
	}
	return codec.AppendBytes(dst, v.Bytes())
}

// AppendLastKey is AppendKey of the last of several values: nothing may follow it, and it may be shorter. It orders as
// AppendKey does among its own kind.
func AppendLastKey(dst []byte, v Value, t Type) []byte {
	if v.kind != KindString {
		return AppendKey(dst, v, t)
	}
	dst = append(dst, keyValue)
	c := charset.Get(t.Collation)
	if c.Bytewise {
		return append(dst, c.Trim(v.Bytes())...)
	}
	return c.AppendSortKey(dst, v.Bytes())
}

func appendStringKey(dst, s []byte, coll charset.ID) []byte {
	c := charset.Get(coll)
	if c.Bytewise {
		return codec.AppendBytes(dst, c.Trim(s))
	}
	at := len(dst)
	return codec.EncodeTail(c.AppendSortKey(dst, s), at)
}

// KeyInvertible tells whether DecodeKey works for the type.
func KeyInvertible(t Type) bool {
	if t.class() != ClassString {
		return true
	}
	c := charset.Get(t.Collation)
	return c.Bytewise && (!c.PadSpace || t.Tp == TypeString)
}

// DecodeKey reads what AppendKey wrote. Bytes of the value are newly made. It gives ErrKeyNotInvertible for types of
// which KeyInvertible is false.
func DecodeKey(b []byte, t Type) (v Value, rest []byte, err error) {
	if len(b) == 0 {
		return Null(), b, codec.ErrMalformed
	}
	switch b[0] {
	case keyNull:
		return Null(), b[1:], nil
	case keyValue:
		b = b[1:]
	default:
		return Null(), b, codec.ErrMalformed
	}
	kind := t.Kind()
	var u uint64
	switch kind {
	case KindInt, KindDuration:
		var i int64
		i, rest, err = codec.DecodeInt(b)
		u = uint64(i)
	case KindUint, KindTime:
		u, rest, err = codec.DecodeUint(b)
	case KindFloat:
		var f float64
		f, rest, err = codec.DecodeFloat(b)
		u = math.Float64bits(f)
	case KindDecimal:
		var d decimal.Decimal
		if d, rest, err = decimal.DecodeKey(b, int(t.Decimal)); err == nil {
			return Dec(d), rest, nil
		}
	default:
		return decodeStringKey(b, t, kind)
	}
	if err != nil {
		return Null(), b, err
	}
	return FromLane(kind, u), rest, nil
}

func decodeStringKey(b []byte, t Type, kind Kind) (Value, []byte, error) {
	if !KeyInvertible(t) {
		return Null(), b, ErrKeyNotInvertible
	}
	s, rest, err := codec.DecodeBytes(nil, b)
	if err != nil {
		return Null(), b, err
	}
	v := Str(s)
	v.kind = kind
	return v, rest, nil
}

// SkipKey returns the rest after what AppendKey wrote for the type.
func SkipKey(b []byte, t Type) (rest []byte, err error) {
	if len(b) == 0 || b[0] > keyValue {
		return b, codec.ErrMalformed
	}
	if b[0] == keyNull {
		return b[1:], nil
	}
	b = b[1:]
	switch t.Kind() {
	case KindDecimal:
		return decimal.SkipKey(b)
	case KindString, KindJSON:
		return codec.SkipBytes(b)
	}
	if len(b) < 8 {
		return b, codec.ErrMalformed
	}
	return b[8:], nil
}

// AppendHashKey appends bytes that are equal for equal values and different for different ones, in no order: shorter and
// faster than AppendKey, for hash tables. Values that are to meet must be of one kind, but for integers of either sign.
func AppendHashKey(dst []byte, v Value, coll charset.ID) []byte {
	switch v.kind {
	case KindNull:
		return append(dst, keyNull)
	case KindInt:
		if int64(v.a) < 0 {
			return binary.LittleEndian.AppendUint64(append(dst, 2), v.a)
		}
		return binary.LittleEndian.AppendUint64(append(dst, keyValue), v.a)
	case KindFloat:
		u := v.a
		if v.Float() == 0 {
			u = 0
		}
		return binary.LittleEndian.AppendUint64(append(dst, keyValue), u)
	case KindDecimal:
		return v.Decimal().AppendKey(append(dst, keyValue))
	case KindString, KindJSON:
		return appendStringHashKey(dst, v, coll)
	}
	return binary.LittleEndian.AppendUint64(append(dst, keyValue), v.a)
}

// appendStringHashKey writes the length of the sort key after the key has been appended in place.
func appendStringHashKey(dst []byte, v Value, coll charset.ID) []byte {
	dst = append(dst, keyValue, 0, 0, 0, 0)
	at := len(dst)
	if v.kind == KindJSON {
		dst = append(dst, v.Bytes()...)
	} else {
		dst = charset.Get(coll).AppendSortKey(dst, v.Bytes())
	}
	binary.LittleEndian.PutUint32(dst[at-4:], uint32(len(dst)-at))
	return dst
}
