package types

import "github.com/cairndb/cairn/internal/charset"

// Column type codes of MySQL's protocol.
const (
	TypeTiny       byte = 1
	TypeShort      byte = 2
	TypeLong       byte = 3
	TypeFloat      byte = 4
	TypeDouble     byte = 5
	TypeNull       byte = 6
	TypeTimestamp  byte = 7
	TypeLonglong   byte = 8
	TypeInt24      byte = 9
	TypeDate       byte = 10
	TypeDuration   byte = 11 // TIME
	TypeDatetime   byte = 12
	TypeYear       byte = 13
	TypeVarchar    byte = 15
	TypeBit        byte = 16
	TypeJSON       byte = 0xf5
	TypeNewDecimal byte = 0xf6
	TypeEnum       byte = 0xf7
	TypeSet        byte = 0xf8
	TypeTinyBlob   byte = 0xf9
	TypeMediumBlob byte = 0xfa
	TypeLongBlob   byte = 0xfb
	TypeBlob       byte = 0xfc
	TypeVarString  byte = 0xfd
	TypeString     byte = 0xfe // CHAR, BINARY
)

// Column flags of MySQL's protocol.
const (
	FlagNotNull        uint32 = 1 << 0
	FlagPri            uint32 = 1 << 1
	FlagUni            uint32 = 1 << 2
	FlagMul            uint32 = 1 << 3
	FlagBlob           uint32 = 1 << 4
	FlagUnsigned       uint32 = 1 << 5
	FlagZerofill       uint32 = 1 << 6
	FlagBinary         uint32 = 1 << 7
	FlagEnum           uint32 = 1 << 8
	FlagAutoInc        uint32 = 1 << 9
	FlagTimestamp      uint32 = 1 << 10
	FlagSet            uint32 = 1 << 11
	FlagNoDefaultValue uint32 = 1 << 12
	FlagOnUpdateNow    uint32 = 1 << 13
	FlagNum            uint32 = 1 << 15
)

// UnspecifiedLength stands in Flen and Decimal for "not given".
const UnspecifiedLength = -1

// Type is the type of a column or an expression.
type Type struct {
	// Tp is the column type code.
	Tp byte
	// Collation is charset.Binary for everything but character strings, ENUM and SET.
	Collation charset.ID
	// Flags are the column flags.
	Flags uint32
	// Flen is the declared length: digits of a number (precision of DECIMAL), characters of CHAR and VARCHAR, bytes of
	// BINARY, VARBINARY and the BLOB and TEXT types, bits of BIT. UnspecifiedLength when there is none.
	Flen int32
	// Decimal is the number of digits after the point: the scale of DECIMAL, the D of FLOAT(M,D) and DOUBLE(M,D), the
	// fractional seconds precision 0..6 of temporal types. UnspecifiedLength when there is none.
	Decimal int32
	// Elems are the members of ENUM and SET.
	Elems []string
}

// Class tells how values of a type are held and which code works on them.
type Class uint8

// The classes.
const (
	ClassInt      Class = iota // KindInt, or KindUint when the type is unsigned; also YEAR, BIT, ENUM, SET
	ClassFloat                 // KindFloat: FLOAT, DOUBLE
	ClassDecimal               // KindDecimal
	ClassString                // KindString: CHAR, VARCHAR, TEXT, BINARY, VARBINARY, BLOB; also NULL
	ClassTime                  // KindTime: DATE, DATETIME, TIMESTAMP
	ClassDuration              // KindDuration: TIME
	ClassJSON                  // KindJSON
)

// String names the class for messages of ours.
func (c Class) String() string {
	names := [...]string{"int", "float", "decimal", "string", "time", "duration", "json"}
	if int(c) < len(names) {
		return names[c]
	}
	return "invalid"
}

// Class of the type's values.
func (t *Type) class() Class {
	switch t.Tp {
	case TypeTiny, TypeShort, TypeInt24, TypeLong, TypeLonglong, TypeYear, TypeBit, TypeEnum, TypeSet:
		return ClassInt
	case TypeFloat, TypeDouble:
		return ClassFloat
	case TypeNewDecimal:
		return ClassDecimal
	case TypeDate, TypeDatetime, TypeTimestamp:
		return ClassTime
	case TypeDuration:
		return ClassDuration
	case TypeJSON:
		return ClassJSON
	}
	return ClassString
}

// Class tells how values of the type are held.
func (t Type) Class() Class { return t.class() }

// Unsigned tells that integers of the type are KindUint: UNSIGNED columns, and always BIT, ENUM, SET and YEAR.
func (t Type) Unsigned() bool {
	switch t.Tp {
	case TypeYear, TypeBit, TypeEnum, TypeSet:
		return true
	}
	return t.Flags&FlagUnsigned != 0
}

// NotNull tells that the type has no NULL.
func (t Type) NotNull() bool { return t.Flags&FlagNotNull != 0 }

// Kind of the type's values that are not NULL.
func (t Type) Kind() Kind {
	switch t.class() {
	case ClassInt:
		if t.Unsigned() {
			return KindUint
		}
		return KindInt
	case ClassFloat:
		return KindFloat
	case ClassDecimal:
		return KindDecimal
	case ClassTime:
		return KindTime
	case ClassDuration:
		return KindDuration
	case ClassJSON:
		return KindJSON
	}
	return KindString
}

// FSP is the number of fractional digits of seconds, 0..6.
func (t Type) FSP() int {
	if t.Decimal < 0 {
		return 0
	}
	return int(min(t.Decimal, 6))
}

// IsString tells whether values are strings or bytes: ClassString but for the type of NULL.
func (t Type) IsString() bool { return t.class() == ClassString && t.Tp != TypeNull }

// IsCharacter tells whether values are character strings, not bytes.
func (t Type) IsCharacter() bool { return t.IsString() && t.Collation != charset.Binary }

// IsBlob tells whether the type is one of TEXT and BLOB.
func (t Type) IsBlob() bool { return t.Tp >= TypeTinyBlob && t.Tp <= TypeBlob }

// IsTemporal tells whether the type is a date, a time or both.
func (t Type) IsTemporal() bool {
	c := t.class()
	return c == ClassTime || c == ClassDuration
}

// IsNumeric tells whether the type is a number to MySQL's clients.
func (t Type) IsNumeric() bool {
	switch t.Tp {
	case TypeEnum, TypeSet:
		return false
	}
	c := t.class()
	return c == ClassInt || c == ClassFloat || c == ClassDecimal
}

// TextForm tells whether a value reads as a string in expressions although it is held otherwise: ENUM and SET.
func (t Type) TextForm() bool { return t.Tp == TypeEnum || t.Tp == TypeSet }

// Constructors of the types expressions have.

// NewInt is BIGINT.
func NewInt() Type {
	return Type{Tp: TypeLonglong, Flen: 20, Collation: charset.Binary, Flags: FlagBinary}
}

// NewUint is BIGINT UNSIGNED.
func NewUint() Type {
	return Type{Tp: TypeLonglong, Flen: 20, Collation: charset.Binary, Flags: FlagBinary | FlagUnsigned}
}

// NewBool is the type of a comparison: BIGINT of one digit.
func NewBool() Type {
	return Type{Tp: TypeLonglong, Flen: 1, Collation: charset.Binary, Flags: FlagBinary}
}

// NewFloat is DOUBLE.
func NewFloat() Type {
	return Type{Tp: TypeDouble, Flen: 23, Decimal: UnspecifiedLength, Collation: charset.Binary, Flags: FlagBinary}
}

// NewDecimal is DECIMAL(precision, scale).
func NewDecimal(precision, scale int) Type {
	return Type{Tp: TypeNewDecimal, Flen: int32(precision), Decimal: int32(scale), Collation: charset.Binary, Flags: FlagBinary}
}

// NewString is VARCHAR(n) in a collation; n UnspecifiedLength when not known.
func NewString(n int, coll charset.ID) Type {
	t := Type{Tp: TypeVarString, Flen: int32(n), Decimal: UnspecifiedLength, Collation: coll}
	if coll == charset.Binary {
		t.Flags = FlagBinary
	}
	return t
}

// NewTemporal is DATE, DATETIME, TIMESTAMP or TIME (a type code) with fsp fractional digits.
func NewTemporal(tp byte, fsp int) Type {
	t := Type{Tp: tp, Decimal: int32(fsp), Collation: charset.Binary, Flags: FlagBinary}
	t.Flen = int32(t.DisplayLength())
	return t
}

// NewNull is the type of NULL.
func NewNull() Type {
	return Type{Tp: TypeNull, Collation: charset.Binary, Flags: FlagBinary}
}

// NewJSON is JSON.
func NewJSON() Type {
	return Type{Tp: TypeJSON, Flen: UnspecifiedLength, Collation: charset.Binary, Flags: FlagBinary}
}

// DisplayLength is the greatest number of characters a value's text has, as ColumnDefinition and INFORMATION_SCHEMA count
// it; for BLOB and TEXT the number of bytes.
func (t Type) DisplayLength() int {
	if n := fixedLength(t); n >= 0 {
		return n
	}
	switch t.class() {
	case ClassDecimal:
		n := int(t.Flen)
		if t.Flen < 0 {
			n = 10
		}
		if t.Decimal > 0 {
			n++
		}
		if t.Flags&FlagUnsigned == 0 {
			n++
		}
		return n
	}
	switch t.Tp {
	case TypeEnum:
		n := 0
		for _, e := range t.Elems {
			n = max(n, charset.RuneLen([]byte(e)))
		}
		return n
	case TypeSet:
		n := max(len(t.Elems)-1, 0)
		for _, e := range t.Elems {
			n += charset.RuneLen([]byte(e))
		}
		return n
	}
	return max(int(t.Flen), 0)
}

// fixedLength is the display length of types whose text has the same length at most, whatever was declared; -1 of others.
func fixedLength(t Type) int {
	frac := t.FSP()
	if frac > 0 {
		frac++
	}
	switch t.Tp {
	case TypeDate:
		return 10
	case TypeDuration:
		return 10 + frac
	case TypeDatetime, TypeTimestamp:
		return 19 + frac
	case TypeYear:
		return 4
	case TypeTinyBlob:
		return 255
	case TypeBlob:
		if t.Flen < 0 {
			return 65535
		}
	case TypeMediumBlob:
		return 16777215
	case TypeLongBlob, TypeJSON:
		return 4294967295
	case TypeNull:
		return 0
	}
	if t.Flen >= 0 {
		return -1
	}
	return defaultNumberLength(t)
}

// defaultNumberLength is the display width of a number declared without one; -1 of other types.
func defaultNumberLength(t Type) int {
	unsigned := t.Flags&FlagUnsigned != 0
	pick := func(signed, uns int) int {
		if unsigned {
			return uns
		}
		return signed
	}
	switch t.Tp {
	case TypeTiny:
		return pick(4, 3)
	case TypeShort:
		return pick(6, 5)
	case TypeInt24:
		return pick(9, 8)
	case TypeLong:
		return pick(11, 10)
	case TypeLonglong:
		return 20
	case TypeFloat:
		return 12
	case TypeDouble:
		return 22
	case TypeBit:
		return 1
	}
	return -1
}
