// Package types knows SQL values and the types of columns: how values are held, compared, hashed, written as text and
// turned into each other by MySQL's rules.
//
// A Value is one value of any class, 32 bytes, without an interface. A Type is what a column or an expression promises:
// it decides the class of its values. The classes are what code is written for; a BIGINT UNSIGNED, a YEAR, an ENUM and a
// BIT are all ClassInt and differ in how they are read and shown, which the Type knows.
//
// Bytes in a Value are never copied and never changed by this package: whoever made the Value says how long they live.
package types

import (
	"math"
	"unsafe"

	"github.com/cairndb/cairn/internal/decimal"
)

// Kind tells how a Value is held.
type Kind uint8

// The kinds. The zero Value is KindNull.
const (
	KindNull     Kind = iota
	KindInt           // signed 64 bits
	KindUint          // unsigned 64 bits; also ENUM (index), SET and BIT (bits)
	KindFloat         // double
	KindDecimal       // exact number
	KindString        // characters (UTF-8) or bytes
	KindTime          // date and time of day
	KindDuration      // TIME
	KindJSON          // JSON document as text
)

// String names the kind for messages of ours.
func (k Kind) String() string {
	names := [...]string{"null", "int", "uint", "float", "decimal", "string", "time", "duration", "json"}
	if int(k) < len(names) {
		return names[k]
	}
	return "invalid"
}

// Value is one SQL value. Accessors do not check the kind: reading a string as an Int gives nonsense, not a panic.
type Value struct {
	a, b  uint64         // number; low and high word of a decimal; length of a string
	p     unsafe.Pointer // first byte of a string; a decimal wider than 128 bits
	kind  Kind
	scale uint8
	neg   bool
}

// Null is NULL.
func Null() Value { return Value{} }

// Int makes a signed integer.
func Int(v int64) Value { return Value{a: uint64(v), kind: KindInt} }

// Uint makes an unsigned integer.
func Uint(v uint64) Value { return Value{a: v, kind: KindUint} }

// Bool makes 1 or 0.
func Bool(v bool) Value {
	if v {
		return Int(1)
	}
	return Int(0)
}

// Float makes a double.
func Float(v float64) Value { return Value{a: math.Float64bits(v), kind: KindFloat} }

// Dec makes an exact number.
func Dec(d decimal.Decimal) Value {
	hi, lo, scale, neg, ok := d.Parts()
	if !ok {
		boxed := d
		return Value{p: unsafe.Pointer(&boxed), kind: KindDecimal}
	}
	return Value{a: lo, b: hi, scale: scale, neg: neg, kind: KindDecimal}
}

// Str makes a string of the bytes themselves, without copying.
func Str(b []byte) Value {
	return Value{a: uint64(len(b)), p: unsafe.Pointer(unsafe.SliceData(b)), kind: KindString}
}

// String makes a string.
func String(s string) Value {
	return Value{a: uint64(len(s)), p: unsafe.Pointer(unsafe.StringData(s)), kind: KindString}
}

// JSON makes a JSON document of its text, without copying.
func JSON(text []byte) Value {
	v := Str(text)
	v.kind = KindJSON
	return v
}

// TimeVal makes a date and time.
func TimeVal(t Time) Value { return Value{a: uint64(t), kind: KindTime} }

// Dur makes a TIME.
func Dur(d Duration) Value { return Value{a: uint64(d), kind: KindDuration} }

// Kind tells how v is held.
func (v Value) Kind() Kind { return v.kind }

// IsNull tells whether v is NULL.
func (v Value) IsNull() bool { return v.kind == KindNull }

// Int reads KindInt; of KindUint it gives the same bits.
func (v Value) Int() int64 { return int64(v.a) }

// Uint reads KindUint; of KindInt it gives the same bits.
func (v Value) Uint() uint64 { return v.a }

// Float reads KindFloat.
func (v Value) Float() float64 { return math.Float64frombits(v.a) }

// Decimal reads KindDecimal.
func (v Value) Decimal() decimal.Decimal {
	if v.p != nil {
		return *(*decimal.Decimal)(v.p)
	}
	return decimal.FromParts(v.b, v.a, v.scale, v.neg)
}

// Bytes reads KindString and KindJSON. The bytes are those the Value was made of and must not be changed.
func (v Value) Bytes() []byte { return unsafe.Slice((*byte)(v.p), int(v.a)) }

// Text is Bytes as a string that shares memory with v: valid as long as the bytes v was made of stay unchanged.
func (v Value) Text() string { return unsafe.String((*byte)(v.p), int(v.a)) }

// Time reads KindTime.
func (v Value) Time() Time { return Time(v.a) }

// Duration reads KindDuration.
func (v Value) Duration() Duration { return Duration(v.a) }

// Lane gives the eight bytes that hold an integer, float, time or duration, for packages that store values in lanes.
func (v Value) Lane() uint64 { return v.a }

// FromLane makes a Value of a kind for which Lane is all there is.
func FromLane(k Kind, lane uint64) Value { return Value{a: lane, kind: k} }

// Clone returns v with its own copy of the bytes.
func (v Value) Clone() Value {
	if v.kind == KindString || v.kind == KindJSON {
		v.p = unsafe.Pointer(unsafe.SliceData(append([]byte(nil), v.Bytes()...)))
	}
	return v
}
