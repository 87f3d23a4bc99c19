package types

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/decimal"
	"github.com/cairndb/cairn/internal/sqlerr"
)

func intType(tp byte, unsigned bool) Type {
	t := Type{Tp: tp, Flen: UnspecifiedLength, Decimal: UnspecifiedLength, Collation: charset.Binary}
	if unsigned {
		t.Flags = FlagUnsigned
	}
	return t
}

func dec(s string) Value {
	d, ok := decimal.FromString(s)
	if !ok {
		panic(s)
	}
	return Dec(d)
}

var (
	tinyint  = intType(TypeTiny, false)
	utinyint = intType(TypeTiny, true)
	intT     = intType(TypeLong, false)
	bigint   = intType(TypeLonglong, false)
	ubigint  = intType(TypeLonglong, true)
	dec52    = NewDecimal(5, 2)
	udec52   = Type{Tp: TypeNewDecimal, Flen: 5, Decimal: 2, Flags: FlagUnsigned}
	double   = NewFloat()
	float    = Type{Tp: TypeFloat, Flen: 12, Decimal: UnspecifiedLength}
	float52  = Type{Tp: TypeFloat, Flen: 5, Decimal: 2}
	char3    = Type{Tp: TypeString, Flen: 3, Collation: charset.Default}
	varchar3 = Type{Tp: TypeVarchar, Flen: 3, Collation: charset.Default}
	latin3   = Type{Tp: TypeVarchar, Flen: 3, Collation: charset.Latin1Swedish}
	utf8mb33 = Type{Tp: TypeVarchar, Flen: 3, Collation: charset.UTF8MB3General}
	tinytext = Type{Tp: TypeTinyBlob, Flen: 255, Collation: charset.Default}
	binary3  = Type{Tp: TypeString, Flen: 3, Collation: charset.Binary}
	varbin3  = Type{Tp: TypeVarchar, Flen: 3, Collation: charset.Binary}
	date     = NewTemporal(TypeDate, 0)
	datetime = NewTemporal(TypeDatetime, 0)
	stamp    = NewTemporal(TypeTimestamp, 0)
	timeT    = NewTemporal(TypeDuration, 0)
	year     = Type{Tp: TypeYear, Flen: 4}
	bit4     = Type{Tp: TypeBit, Flen: 4}
	enumT    = Type{Tp: TypeEnum, Elems: []string{"a", "b", "3"}, Collation: charset.Default}
	setT     = Type{Tp: TypeSet, Elems: []string{"x", "y", "z"}, Collation: charset.Default}
	textT    = NewString(UnspecifiedLength, charset.Default)
)

// convertCase is one assignment: what it gives when mode is strict (an error number, or 0 and the text), and else.
type convertCase struct {
	v       Value
	from    Type
	to      Type
	want    string // text of the value; of the lenient mode when strict gives an error
	strict  uint16 // number of the error in strict mode, 0 when there is none
	lenient uint16 // number of the warning otherwise, 0 when there is none
	msg     string // text of the strict error, or of the note
}

func runConvert(t *testing.T, cases []convertCase) {
	t.Helper()
	for _, c := range cases {
		name := fmt.Sprintf("%s %q -> %d(%d)", c.v.Kind(), AppendText(nil, c.v, c.from), c.to.Tp, c.to.Flen)
		var warnings []sqlerr.Warning
		ctx := &ConvContext{
			Column: "c", Row: 1, Loc: time.UTC, Now: time.Date(2024, 6, 1, 12, 0, 0, 0, time.UTC),
			TimeFlags: NoZeroDate | NoZeroInDate,
			Warn:      func(w sqlerr.Warning) { warnings = append(warnings, w) },
		}
		got, err := Convert(ctx, c.v, c.from, c.to)
		require.NoError(t, err, name)
		require.Equal(t, c.want, Text(got, c.to), name)
		require.Equal(t, c.to.Kind(), got.Kind(), name)
		if c.lenient == 0 {
			require.Empty(t, warnings, name)
		} else {
			require.Len(t, warnings, 1, name)
			require.Equal(t, c.lenient, warnings[0].Code, name)
		}
		ctx.Strict = true
		warnings = nil
		got, err = Convert(ctx, c.v, c.from, c.to)
		require.Equal(t, c.strict, sqlerr.Code(err), "%s: %v", name, err)
		if err == nil {
			require.Equal(t, c.want, Text(got, c.to), name)
		} else if c.msg != "" {
			e, _ := sqlerr.As(err)
			require.Equal(t, c.msg, e.Msg)
		}
	}
}

func TestConvertIntegers(t *testing.T) {
	runConvert(t, []convertCase{
		{Int(127), bigint, tinyint, "127", 0, 0, ""},
		{Int(128), bigint, tinyint, "127", 1264, 1264, "Out of range value for column 'c' at row 1"},
		{Int(-129), bigint, tinyint, "-128", 1264, 1264, ""},
		{Int(-1), bigint, utinyint, "0", 1264, 1264, ""},
		{Int(255), bigint, utinyint, "255", 0, 0, ""},
		{Uint(math.MaxUint64), ubigint, bigint, "9223372036854775807", 1264, 1264, ""},
		{Uint(math.MaxUint64), ubigint, ubigint, "18446744073709551615", 0, 0, ""},
		{Int(-1), bigint, ubigint, "0", 1264, 1264, ""},
		{Float(1.5), double, intT, "2", 0, 0, ""},
		{Float(2.5), double, intT, "2", 0, 0, ""},
		{Float(-0.4), double, ubigint, "0", 0, 0, ""},
		{Float(1e30), double, intT, "2147483647", 1264, 1264, ""},
		{Float(-1e30), double, intT, "-2147483648", 1264, 1264, ""},
		{dec("2.5"), dec52, intT, "3", 0, 0, ""},
		{dec("-2.5"), dec52, intT, "-3", 0, 0, ""},
		{dec("99999999999999999999"), dec52, bigint, "9223372036854775807", 1264, 1264, ""},
		{String("12"), textT, intT, "12", 0, 0, ""},
		{String(" 12 "), textT, intT, "12", 0, 0, ""},
		{String("1.5"), textT, intT, "2", 0, 0, ""},
		{String("1e2"), textT, intT, "100", 0, 0, ""},
		{String("12abc"), textT, intT, "12", 1265, 1265, "Data truncated for column 'c' at row 1"},
		{String("abc"), textT, intT, "0", 1366, 1366, "Incorrect integer value: 'abc' for column 'c' at row 1"},
		{String(""), textT, intT, "0", 1366, 1366, "Incorrect integer value: '' for column 'c' at row 1"},
		{String("18446744073709551615"), textT, ubigint, "18446744073709551615", 0, 0, ""},
		{String("18446744073709551616"), textT, ubigint, "18446744073709551615", 1264, 1264, ""},
		{TimeVal(MakeTime(2024, 1, 31, 10, 20, 30, 0)), datetime, bigint, "20240131102030", 0, 0, ""},
		{TimeVal(MakeDate(2024, 1, 31)), date, bigint, "20240131", 0, 0, ""},
		{Dur(MakeDuration(true, 1, 2, 3, 0)), timeT, bigint, "-10203", 0, 0, ""},
		{Uint(2), enumT, intT, "2", 0, 0, ""},
	})
}

func TestConvertNumbers(t *testing.T) {
	runConvert(t, []convertCase{
		{dec("123.456"), NewDecimal(6, 3), dec52, "123.46", 0, 1265, ""},
		{dec("1000"), dec52, dec52, "999.99", 1264, 1264, ""},
		{dec("-1000"), dec52, dec52, "-999.99", 1264, 1264, ""},
		{dec("-1"), dec52, udec52, "0.00", 1264, 1264, ""},
		{Int(7), bigint, dec52, "7.00", 0, 0, ""},
		{Float(1.1), double, dec52, "1.10", 0, 0, ""},
		{String("1.5"), textT, dec52, "1.50", 0, 0, ""},
		{String("abc"), textT, dec52, "0.00", 1366, 1366, "Incorrect decimal value: 'abc' for column 'c' at row 1"},
		{String("1.5x"), textT, dec52, "1.50", 1265, 1265, ""},
		{String("1e80"), textT, dec52, "999.99", 1264, 1264, ""},
		{Float(1.1), double, double, "1.1", 0, 0, ""},
		{String("1.5e3"), textT, double, "1500", 0, 0, ""},
		{String("abc"), textT, double, "0", 1265, 1265, "Data truncated for column 'c' at row 1"},
		{String("1.5x"), textT, double, "1.5", 1265, 1265, ""},
		{Float(1e39), double, float, "3.40282e38", 1264, 1264, ""},
		{Float(0.1), double, float, "0.1", 0, 0, ""},
		{Float(16777217), double, float, "16777200", 0, 0, ""},
		{Float(1.005), double, float52, "1.00", 0, 0, ""},
		{Float(1234.5), double, float52, "999.99", 1264, 1264, ""},
		{Int(2024), bigint, year, "2024", 0, 0, ""},
		{Int(24), bigint, year, "2024", 0, 0, ""},
		{Int(70), bigint, year, "1970", 0, 0, ""},
		{Int(0), bigint, year, "0000", 0, 0, ""},
		{String("0"), textT, year, "2000", 0, 0, ""},
		{String("0000"), textT, year, "0000", 0, 0, ""},
		{Int(1900), bigint, year, "0000", 1264, 1264, ""},
		{Int(2156), bigint, year, "0000", 1264, 1264, ""},
		{Int(15), bigint, bit4, "\x0f", 0, 0, ""},
		{Int(16), bigint, bit4, "\x0f", 1406, 1406, "Data too long for column 'c' at row 1"},
		{String("\x03"), textT, bit4, "\x03", 0, 0, ""},
	})
}

func TestConvertStrings(t *testing.T) {
	runConvert(t, []convertCase{
		{String("abc"), textT, varchar3, "abc", 0, 0, ""},
		{String("äöü"), textT, varchar3, "äöü", 0, 0, ""},
		{String("abcd"), textT, varchar3, "abc", 1406, 1265, "Data too long for column 'c' at row 1"},
		{String("äöüß"), textT, varchar3, "äöü", 1406, 1265, ""},
		{String("abc  "), textT, varchar3, "abc", 0, 1265, ""},
		{String("ab "), textT, varchar3, "ab ", 0, 0, ""},
		{String("ab   "), textT, char3, "ab", 0, 0, ""},
		{String("abcd"), textT, char3, "abc", 1406, 1265, ""},
		{Int(123), bigint, varchar3, "123", 0, 0, ""},
		{Int(1234), bigint, varchar3, "123", 1406, 1265, ""},
		{Float(1.5), double, varchar3, "1.5", 0, 0, ""},
		{Uint(2), enumT, varchar3, "b", 0, 0, ""},
		{Uint(5), setT, varchar3, "x,z", 0, 0, ""},
		{String("é"), textT, latin3, "é", 0, 0, ""},
		{String("a中"), textT, latin3, "a?", 1366, 1366, `Incorrect string value: '\xE4\xB8\xAD' for column 'c' at row 1`},
		{String("a😀"), textT, utf8mb33, "a?", 1366, 1366, `Incorrect string value: '\xF0\x9F\x98\x80' for column 'c' at row 1`},
		{String("a\xff"), textT, varchar3, "a", 1366, 1366, `Incorrect string value: '\xFF' for column 'c' at row 1`},
		{String("a\xff"), textT, varbin3, "a\xff", 0, 0, ""},
		{String("a"), textT, binary3, "a\x00\x00", 0, 0, ""},
		{String("abcd"), textT, binary3, "abc", 1406, 1265, ""},
		{String("abcd"), textT, varbin3, "abc", 1406, 1265, ""},
		{String(strings.Repeat("x", 256)), textT, tinytext, strings.Repeat("x", 255), 1406, 1265, ""},
		{String("b"), textT, enumT, "b", 0, 0, ""},
		{String("B"), textT, enumT, "b", 0, 0, ""},
		{String("2"), textT, enumT, "b", 0, 0, ""},
		{String("3"), textT, enumT, "3", 0, 0, ""},
		{String("q"), textT, enumT, "", 1265, 1265, "Data truncated for column 'c' at row 1"},
		{Int(1), bigint, enumT, "a", 0, 0, ""},
		{Int(4), bigint, enumT, "", 1265, 1265, ""},
		{String("z,x"), textT, setT, "x,z", 0, 0, ""},
		{String(""), textT, setT, "", 0, 0, ""},
		{String("x,q"), textT, setT, "x", 1265, 1265, ""},
		{Int(6), bigint, setT, "y,z", 0, 0, ""},
		{Int(8), bigint, setT, "", 1265, 1265, ""},
		{String(` {"a": 1} `), textT, NewJSON(), `{"a": 1}`, 0, 0, ""},
		{Int(5), bigint, NewJSON(), "5", 0, 0, ""},
	})
	_, err := Convert(&ConvContext{Column: "j"}, String("{"), textT, NewJSON())
	require.EqualValues(t, 3140, sqlerr.Code(err))
}

func TestConvertTimes(t *testing.T) {
	runConvert(t, []convertCase{
		{String("2024-01-31 10:20:30"), textT, datetime, "2024-01-31 10:20:30", 0, 0, ""},
		{String("2024-01-31 10:20:30.6"), textT, datetime, "2024-01-31 10:20:31", 0, 0, ""},
		{String("2024-01-31 10:20:30"), textT, date, "2024-01-31", 0, 1265, ""},
		{String("2024-02-30"), textT, date, "0000-00-00", 1292, 1264, "Incorrect date value: '2024-02-30' for column 'c' at row 1"},
		{String("abc"), textT, datetime, "0000-00-00 00:00:00", 1292, 1265, "Incorrect datetime value: 'abc' for column 'c' at row 1"},
		{String("0000-00-00"), textT, date, "0000-00-00", 1292, 1264, "Incorrect date value: '0000-00-00' for column 'c' at row 1"},
		{String("2024-00-01"), textT, date, "0000-00-00", 1292, 1264, ""},
		{String("2024-01-31x"), textT, date, "2024-01-31", 1292, 1265, ""},
		{Int(20240131), bigint, date, "2024-01-31", 0, 0, ""},
		{Int(20241331), bigint, date, "0000-00-00", 1292, 1264, "Incorrect date value: '20241331' for column 'c' at row 1"},
		{dec("20240131102030.5"), NewDecimal(20, 1), NewTemporal(TypeDatetime, 1), "2024-01-31 10:20:30.5", 0, 0, ""},
		{TimeVal(MakeTime(2024, 1, 31, 10, 20, 30, 500000)), NewTemporal(TypeDatetime, 6), datetime, "2024-01-31 10:20:31", 0, 0, ""},
		{TimeVal(MakeDate(2024, 1, 31)), date, datetime, "2024-01-31 00:00:00", 0, 0, ""},
		{Dur(MakeDuration(false, 1, 2, 3, 0)), timeT, datetime, "2024-06-01 01:02:03", 0, 0, ""},
		{String("2024-01-31 10:20:30"), textT, stamp, "2024-01-31 10:20:30", 0, 0, ""},
		{String("1969-01-01"), textT, stamp, "0000-00-00 00:00:00", 1292, 1264, "Incorrect datetime value: '1969-01-01' for column 'c' at row 1"},
		{String("10:20:30"), textT, timeT, "10:20:30", 0, 0, ""},
		{String("900:00:00"), textT, timeT, "838:59:59", 1292, 1264, "Incorrect time value: '900:00:00' for column 'c' at row 1"},
		{String("abc"), textT, timeT, "00:00:00", 1292, 1265, ""},
		{Int(102030), bigint, timeT, "10:20:30", 0, 0, ""},
		{TimeVal(MakeTime(2024, 1, 31, 10, 20, 30, 0)), datetime, timeT, "10:20:30", 0, 0, ""},
	})
	ctx := &ConvContext{Strict: true, Loc: time.UTC}
	v, err := Convert(ctx, String("0000-00-00"), textT, datetime)
	require.NoError(t, err)
	require.Zero(t, v.Time())
	v, err = Convert(ctx, Null(), NewNull(), intT)
	require.NoError(t, err)
	require.True(t, v.IsNull())
}

func TestSkippedHourIsRefused(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	require.NoError(t, err)
	_, err = Convert(&ConvContext{Strict: true, Loc: berlin, Column: "c", Row: 1}, String("2024-03-31 02:30:00"), textT, stamp)
	require.EqualValues(t, 1292, sqlerr.Code(err))
}
