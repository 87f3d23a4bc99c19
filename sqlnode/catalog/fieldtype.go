package catalog

import (
	"strings"

	ptypes "github.com/pingcap/tidb/pkg/parser/types"

	"github.com/pingcap/tidb/pkg/parser/mysql"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
)

// ResolveCollation decides a collation from optional CHARACTER SET and COLLATE names, inheriting when both are empty.
// Errors are 1115 unknown character set, 1273 unknown collation, 1253 collation of another character set.
func ResolveCollation(cs, collation string, inherit charset.ID) (charset.ID, error) {
	var set *charset.Charset
	if cs != "" {
		var ok bool
		if set, ok = charset.LookupCharset(cs); !ok {
			return 0, sqlerr.New(sqlerr.ErrUnknownCharacterSet, cs)
		}
	}
	if collation != "" {
		c, ok := charset.Lookup(collation)
		if !ok {
			return 0, sqlerr.New(sqlerr.ErrUnknownCollation, collation)
		}
		if set != nil && c.Charset != set {
			return 0, sqlerr.New(sqlerr.ErrCollationCharsetMismatch, collation, cs)
		}
		return c.ID, nil
	}
	if set != nil {
		return set.Default, nil
	}
	return inherit, nil
}

// FieldTypeFromParser converts a column type as written. name is the column's, for messages; collate is a COLLATE
// option of the column, "" if none; inherit is the collation of the table. The result has no NOT NULL flag yet.
func FieldTypeFromParser(ft *ptypes.FieldType, name, collate string, inherit charset.ID) (types.Type, error) {
	t := types.Type{
		Tp: ft.GetType(), Flen: int32(min(int64(ft.GetFlen()), 1<<31-1)), Decimal: int32(ft.GetDecimal()), Collation: charset.Binary,
		Flags: uint32(ft.GetFlag()) & (types.FlagUnsigned | types.FlagZerofill),
	}
	if t.Flags&types.FlagZerofill != 0 {
		t.Flags |= types.FlagUnsigned
	}
	switch t.Tp {
	case types.TypeTiny, types.TypeShort, types.TypeInt24, types.TypeLong, types.TypeLonglong, types.TypeYear, types.TypeBit:
		return integerType(t, name)
	case types.TypeFloat, types.TypeDouble, types.TypeNewDecimal:
		return fractionType(t, name)
	case types.TypeDate, types.TypeDatetime, types.TypeTimestamp, types.TypeDuration:
		return temporalType(t, name)
	case types.TypeJSON:
		t.Flen, t.Decimal, t.Flags = types.UnspecifiedLength, types.UnspecifiedLength, types.FlagBinary|types.FlagBlob
		return t, nil
	case types.TypeString, types.TypeVarchar, types.TypeVarString, types.TypeEnum, types.TypeSet,
		types.TypeTinyBlob, types.TypeBlob, types.TypeMediumBlob, types.TypeLongBlob:
	default:
		return t, sqlerr.New(sqlerr.ErrNotSupportedYet, strings.ToUpper(ft.CompactStr())+" columns")
	}
	coll, err := stringCollation(ft, collate, inherit)
	if err != nil {
		return t, err
	}
	t.Collation = coll
	if t.Tp == types.TypeEnum || t.Tp == types.TypeSet {
		return memberType(t, ft.GetElems(), name)
	}
	return stringType(t, name)
}

// stringCollation resolves the collation of a string column. The BINARY attribute of a character type means the _bin
// collation of its character set.
func stringCollation(ft *ptypes.FieldType, collate string, inherit charset.ID) (charset.ID, error) {
	if collate == "" {
		collate = ft.GetCollate()
	}
	coll, err := ResolveCollation(ft.GetCharset(), collate, inherit)
	if err != nil {
		return 0, err
	}
	if ft.GetFlag()&mysql.BinaryFlag != 0 && collate == "" && coll != charset.Binary {
		coll = charset.Get(coll).Charset.Bin
	}
	return coll, nil
}

func integerType(t types.Type, name string) (types.Type, error) {
	t.Flags |= types.FlagBinary
	t.Decimal = 0
	limit := int32(255)
	if t.Tp == types.TypeBit {
		limit = 64
	}
	if t.Flen > limit {
		return t, sqlerr.New(sqlerr.ErrTooBigDisplaywidth, name, int(limit))
	}
	switch {
	case t.Tp == types.TypeBit:
		t.Flags |= types.FlagUnsigned
		if t.Flen <= 0 {
			t.Flen = 1
		}
	case t.Tp == types.TypeYear:
		t.Flen = 4
		t.Flags |= types.FlagUnsigned | types.FlagZerofill
	case t.Flen < 0:
		t.Flen = displayWidth(t)
	}
	return t, nil
}

// displayWidth is the width MySQL 8.0.11 shows for an integer declared without one.
func displayWidth(t types.Type) int32 {
	var w int32
	switch t.Tp {
	case types.TypeTiny:
		w = 4
	case types.TypeShort:
		w = 6
	case types.TypeInt24:
		w = 9
	case types.TypeLong:
		w = 11
	default:
		return 20
	}
	if t.Flags&types.FlagUnsigned != 0 {
		w--
	}
	return w
}

func fractionType(t types.Type, name string) (types.Type, error) {
	t.Flags |= types.FlagBinary
	if t.Tp == types.TypeNewDecimal {
		if t.Flen < 0 {
			t.Flen = 10
		}
		if t.Flen == 0 {
			t.Flen = 10
		}
		if t.Decimal < 0 {
			t.Decimal = 0
		}
	}
	switch {
	case t.Tp == types.TypeNewDecimal && t.Flen > 65:
		return t, sqlerr.New(sqlerr.ErrTooBigPrecision, int(t.Flen), name, 65)
	case t.Tp != types.TypeNewDecimal && t.Flen > 255:
		return t, sqlerr.New(sqlerr.ErrTooBigDisplaywidth, name, 255)
	case t.Decimal > 30:
		return t, sqlerr.New(sqlerr.ErrTooBigScale, int(t.Decimal), name, 30)
	case t.Flen >= 0 && t.Decimal > t.Flen:
		return t, sqlerr.New(sqlerr.ErrMBiggerThanD, name)
	}
	return t, nil
}

func temporalType(t types.Type, name string) (types.Type, error) {
	t.Flags |= types.FlagBinary
	if t.Tp == types.TypeDate {
		t.Decimal = 0
	}
	if t.Decimal < 0 {
		t.Decimal = 0
	}
	if t.Decimal > 6 {
		return t, sqlerr.New(sqlerr.ErrTooBigPrecision, int(t.Decimal), name, 6)
	}
	t.Flen = types.UnspecifiedLength
	t.Flen = int32(t.DisplayLength())
	return t, nil
}

func memberType(t types.Type, elems []string, name string) (types.Type, error) {
	kind, limit := "ENUM", 65535
	t.Flags |= types.FlagEnum
	if t.Tp == types.TypeSet {
		kind, limit = "SET", 64
		t.Flags = t.Flags&^types.FlagEnum | types.FlagSet
	}
	if len(elems) > limit {
		return t, sqlerr.New(sqlerr.ErrTooBigSet, name)
	}
	coll := charset.Get(t.Collation)
	seen := make(map[string]bool, len(elems))
	for _, e := range elems {
		key := string(coll.AppendSortKey(nil, []byte(e)))
		if seen[key] {
			return t, sqlerr.New(sqlerr.ErrDuplicatedValueInType, name, e, kind)
		}
		if t.Tp == types.TypeSet && strings.Contains(e, ",") {
			return t, sqlerr.New(sqlerr.ErrIllegalValueForType, "set", e)
		}
		seen[key] = true
	}
	t.Elems = append([]string(nil), elems...)
	t.Decimal = 0
	t.Flen = int32(t.DisplayLength())
	return t, nil
}

// Greatest declared lengths.
const (
	maxCharLen    = 255
	maxVarBytes   = 65535
	maxBlob       = 65535
	maxTinyBlob   = 255
	maxMediumBlob = 1<<24 - 1
)

func stringType(t types.Type, name string) (types.Type, error) {
	t.Decimal = types.UnspecifiedLength
	if t.Collation == charset.Binary {
		t.Flags |= types.FlagBinary
	}
	width := int64(charset.Get(t.Collation).Charset.MaxLen)
	switch t.Tp {
	case types.TypeString:
		if t.Flen < 0 {
			t.Flen = 1
		}
		if t.Flen > maxCharLen {
			return t, sqlerr.New(sqlerr.ErrTooBigFieldlength, name, maxCharLen)
		}
	case types.TypeVarchar, types.TypeVarString:
		t.Tp = types.TypeVarchar
		if int64(t.Flen)*width > maxVarBytes {
			return t, sqlerr.New(sqlerr.ErrTooBigFieldlength, name, int(maxVarBytes/width))
		}
	default:
		t = blobType(t, width)
	}
	return t, nil
}

// blobType picks the smallest BLOB or TEXT that holds a declared length and sets the length in bytes.
func blobType(t types.Type, width int64) types.Type {
	t.Flags |= types.FlagBlob
	if t.Tp == types.TypeBlob && t.Flen >= 0 {
		switch n := int64(t.Flen) * width; {
		case n <= maxTinyBlob:
			t.Tp = types.TypeTinyBlob
		case n <= maxBlob:
		case n <= maxMediumBlob:
			t.Tp = types.TypeMediumBlob
		default:
			t.Tp = types.TypeLongBlob
		}
	}
	switch t.Tp {
	case types.TypeTinyBlob:
		t.Flen = maxTinyBlob
	case types.TypeBlob:
		t.Flen = maxBlob
	case types.TypeMediumBlob:
		t.Flen = maxMediumBlob
	default:
		t.Flen = 1<<31 - 1
	}
	return t
}
