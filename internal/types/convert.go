package types

import (
	"math"
	"time"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/decimal"
	"github.com/cairndb/cairn/internal/sqlerr"
)

// ConvContext says how Convert treats values that do not fit, and names the column for the messages. It belongs to one
// statement; only Column and Row change between values.
type ConvContext struct {
	// Strict makes a value that does not fit an error; otherwise it is clipped or cut and a warning is given.
	Strict bool
	// TimeFlags are the dates that sql_mode refuses.
	TimeFlags TimeFlags
	// Loc is the session's time zone; nil means UTC. TIMESTAMP values are checked in it.
	Loc *time.Location
	// Now is the statement's clock in Loc: a TIME becomes a DATETIME of today.
	Now time.Time
	// Warn receives notes and warnings; nil drops them.
	Warn func(sqlerr.Warning)
	// Column and Row (counted from 1) appear in messages.
	Column string
	Row    int
}

// Convert turns a value into one of a column's type, as assignment does. from is the type of v: it tells what a number of
// an ENUM, SET or BIT stands for and how a time is written. NULL stays NULL: whether the column takes it is not asked here.
//
// In strict mode a value that does not fit gives an *sqlerr.Error (1264, 1265, 1292, 1366, 1406, 3140); otherwise the
// nearest value and a warning. Lost fractional digits are a note in both modes. A TIMESTAMP comes back as the session
// sees it, not in UTC: see ToStorage. Bytes of the result may alias those of v.
func Convert(c *ConvContext, v Value, from, to Type) (Value, error) {
	if v.kind == KindNull {
		return v, nil
	}
	switch to.Tp {
	case TypeTiny, TypeShort, TypeInt24, TypeLong, TypeLonglong:
		return c.toInteger(v, &from, &to)
	case TypeFloat, TypeDouble:
		return c.toFloat(v, &from, &to)
	case TypeNewDecimal:
		return c.toDecimal(v, &from, &to)
	case TypeDate, TypeDatetime, TypeTimestamp:
		return c.toTime(v, &from, &to)
	case TypeDuration:
		return c.toDuration(v, &from, &to)
	case TypeYear:
		return c.toYear(v, &from, &to)
	case TypeBit:
		return c.toBit(v, &from, &to)
	case TypeEnum:
		return c.toEnum(v, &from, &to)
	case TypeSet:
		return c.toSet(v, &from, &to)
	case TypeJSON:
		return c.toJSON(v, &from)
	case TypeNull:
		return Null(), nil
	}
	return c.toString(v, &from, &to)
}

// fail reports a value that does not fit: the error in strict mode, else a warning.
func (c *ConvContext) fail(e *sqlerr.Error) error {
	if c.Strict {
		return e
	}
	c.warn(e, sqlerr.WarningLevel)
	return nil
}

func (c *ConvContext) warn(e *sqlerr.Error, l sqlerr.Level) {
	if c.Warn != nil {
		c.Warn(e.Warning(l))
	}
}

func (c *ConvContext) outOfRange() error {
	return c.fail(sqlerr.New(sqlerr.ErrWarnDataOutOfRange, c.Column, c.Row))
}

func (c *ConvContext) truncated() error {
	return c.fail(sqlerr.New(sqlerr.ErrDataTruncated, c.Column, c.Row))
}

// note reports lost fractional digits: never an error.
func (c *ConvContext) note() {
	c.warn(sqlerr.New(sqlerr.ErrDataTruncated, c.Column, c.Row), sqlerr.Note)
}

// incorrect reports text that is no value of the kind named: 1366.
func (c *ConvContext) incorrect(kind string, text []byte) error {
	return c.fail(sqlerr.Newf(sqlerr.ErrTruncatedWrongValueForField, "Incorrect %s value: '%-.128s' for column '%s' at row %d",
		kind, text, c.Column, c.Row))
}

// incorrectTime reports a date or time that is none: 1292.
func (c *ConvContext) incorrectTime(kind string, text []byte) error {
	return c.fail(sqlerr.Newf(sqlerr.ErrTruncatedWrongValue, "Incorrect %s value: '%-.128s' for column '%s' at row %d",
		kind, text, c.Column, c.Row))
}

// intBits is the width of an integer type.
func intBits(tp byte) uint {
	switch tp {
	case TypeTiny:
		return 8
	case TypeShort:
		return 16
	case TypeInt24:
		return 24
	case TypeLong:
		return 32
	}
	return 64
}

// IntRange gives the least and the greatest value of an integer type; of an unsigned one the least is 0.
func IntRange(t Type) (least int64, greatest uint64) {
	bits := intBits(t.Tp)
	if t.Flags&FlagUnsigned != 0 {
		return 0, math.MaxUint64 >> (64 - bits)
	}
	return math.MinInt64 >> (64 - bits), math.MaxInt64 >> (64 - bits)
}

func (c *ConvContext) toInteger(v Value, from, to *Type) (Value, error) {
	if v.kind == KindInt || v.kind == KindUint {
		return c.fitInteger(v, to)
	}
	d, f, isFloat, err := c.number(v, from, "integer")
	if err != nil {
		return v, err
	}
	if isFloat {
		return c.floatToInteger(f, to)
	}
	if d.Sign() < 0 {
		i, over := d.ToInt64()
		if over {
			return c.clipInteger(true, to)
		}
		return c.fitInteger(Int(i), to)
	}
	u, over := d.ToUint64()
	if over {
		return c.clipInteger(false, to)
	}
	return c.fitInteger(Uint(u), to)
}

func (c *ConvContext) floatToInteger(f float64, to *Type) (Value, error) {
	f = math.RoundToEven(f)
	switch {
	case f < -1<<63:
		return c.clipInteger(true, to)
	case f >= 1<<64 || f != f:
		return c.clipInteger(false, to)
	case f < 0:
		return c.fitInteger(Int(int64(f)), to)
	}
	return c.fitInteger(Uint(uint64(f)), to)
}

// number reads a value for a column of numbers. Text with something after the number is truncation, text without a number
// incorrect; "" names the columns (FLOAT, DOUBLE) for which both are truncation.
func (c *ConvContext) number(v Value, from *Type, kind string) (d decimal.Decimal, f float64, isFloat bool, err error) {
	switch v.kind {
	case KindFloat:
		return d, v.Float(), true, nil
	case KindString, KindJSON:
		d, ds := decimal.Parse(v.Bytes())
		st := fromDecimal(ds)
		if st&Overflow != 0 || ds&decimal.Rounded != 0 { // more digits than a decimal holds: the double decides
			if f, fst := ParseFloat(v.Bytes()); fst&Overflow == 0 && math.Abs(f) > 1e60 {
				return d, f, true, c.garbage(v, st, kind)
			}
		}
		return d, 0, false, c.garbage(v, st, kind)
	}
	d, _ = AsDecimal(v, *from)
	return d, 0, false, nil
}

// garbage reports text around a number.
func (c *ConvContext) garbage(v Value, st Status, kind string) error {
	switch {
	case st&Invalid != 0 && kind != "":
		return c.incorrect(kind, v.Bytes())
	case st&(Truncated|Invalid) != 0:
		return c.truncated()
	}
	return nil
}

// fitInteger checks the range of an integer.
func (c *ConvContext) fitInteger(v Value, to *Type) (Value, error) {
	least, greatest := IntRange(*to)
	unsigned := to.Flags&FlagUnsigned != 0
	if v.kind == KindInt && v.Int() < 0 {
		if v.Int() < least {
			return c.clipInteger(true, to)
		}
		return v, nil
	}
	if v.a > greatest {
		return c.clipInteger(false, to)
	}
	if unsigned {
		return Uint(v.a), nil
	}
	return Int(int64(v.a)), nil
}

func (c *ConvContext) clipInteger(low bool, to *Type) (Value, error) {
	least, greatest := IntRange(*to)
	v := Int(int64(greatest))
	switch {
	case to.Flags&FlagUnsigned != 0 && low:
		v = Uint(0)
	case to.Flags&FlagUnsigned != 0:
		v = Uint(greatest)
	case low:
		v = Int(least)
	}
	return v, c.outOfRange()
}

func (c *ConvContext) toFloat(v Value, from, to *Type) (Value, error) {
	var f float64
	switch v.kind {
	case KindString, KindJSON:
		var st Status
		f, st = ParseFloat(v.Bytes())
		if st&Overflow != 0 {
			return Float(f), c.outOfRange()
		}
		if st&(Truncated|Invalid) != 0 {
			if err := c.truncated(); err != nil {
				return v, err
			}
		}
	default:
		f, _ = AsFloat(v, *from)
	}
	return c.fitFloat(f, to)
}

// fitFloat applies (M,D), the range of FLOAT and UNSIGNED.
func (c *ConvContext) fitFloat(f float64, to *Type) (Value, error) {
	greatest := math.MaxFloat64
	if to.Tp == TypeFloat {
		greatest = math.MaxFloat32
	}
	if to.Decimal >= 0 && to.Decimal < 31 && to.Flen > 0 {
		limit := math.Pow10(int(to.Flen-to.Decimal)) - math.Pow10(-int(to.Decimal))
		greatest = min(greatest, limit)
		scale := math.Pow10(int(to.Decimal))
		if r := math.RoundToEven(f*scale) / scale; !math.IsInf(r, 0) {
			f = r
		}
	}
	switch {
	case f != f:
		return Float(0), c.outOfRange()
	case f < 0 && to.Flags&FlagUnsigned != 0:
		return Float(0), c.outOfRange()
	case f > greatest:
		return Float(greatest), c.outOfRange()
	case f < -greatest:
		return Float(-greatest), c.outOfRange()
	}
	if to.Tp == TypeFloat {
		f = float64(float32(f))
	}
	return Float(f), nil
}

func (c *ConvContext) toDecimal(v Value, from, to *Type) (Value, error) {
	d, st := AsDecimal(v, *from)
	if err := c.garbage(v, st, "decimal"); err != nil {
		return v, err
	}
	if d.Sign() < 0 && to.Flags&FlagUnsigned != 0 {
		zero, _ := decimal.Decimal{}.Round(max(int(to.Decimal), 0))
		return Dec(zero), c.outOfRange()
	}
	precision, scale := int(to.Flen), max(int(to.Decimal), 0)
	if precision <= 0 {
		precision = 10
	}
	r, rounded, over := d.Fit(precision, scale)
	switch {
	case over || st&Overflow != 0:
		return Dec(r), c.outOfRange()
	case rounded || st&Rounded != 0 && st&Truncated == 0:
		c.note()
	}
	return Dec(r), nil
}

func (c *ConvContext) toYear(v Value, from, to *Type) (Value, error) {
	big := Type{Tp: TypeLonglong}
	n, err := c.toInteger(v, from, &big)
	if err != nil {
		return v, err
	}
	y := n.Int()
	zeroText := v.kind == KindString && y == 0 && len(trimSpaces(v.Bytes())) < 4
	switch {
	case y == 0 && !zeroText:
		return Uint(0), nil
	case y >= 0 && y < 70:
		y += 2000
	case y >= 70 && y < 100:
		y += 1900
	case y < 1901 || y > 2155:
		return Uint(0), c.outOfRange()
	}
	return Uint(uint64(y)), nil
}

func (c *ConvContext) toBit(v Value, from, to *Type) (Value, error) {
	bits := max(int(to.Flen), 1)
	var u uint64
	switch v.kind {
	case KindString, KindJSON:
		s := v.Bytes()
		for len(s) > 0 && s[0] == 0 {
			s = s[1:]
		}
		if len(s) > 8 {
			return c.clipBit(bits)
		}
		for _, b := range s {
			u = u<<8 | uint64(b)
		}
	case KindInt, KindUint:
		u = v.a
	default:
		var st Status
		if u, st = AsUint(v, *from); st != 0 {
			return c.clipBit(bits)
		}
	}
	if bits < 64 && u>>bits != 0 {
		return c.clipBit(bits)
	}
	return Uint(u), nil
}

func (c *ConvContext) clipBit(bits int) (Value, error) {
	return Uint(math.MaxUint64 >> (64 - bits)), c.fail(sqlerr.New(sqlerr.ErrDataTooLong, c.Column, c.Row))
}

// textOf reads a value as text for a column of strings.
func textOf(v Value, from *Type) []byte {
	if v.kind == KindString || v.kind == KindJSON {
		return v.Bytes()
	}
	return AppendText(make([]byte, 0, 32), v, *from)
}

func (c *ConvContext) toEnum(v Value, from, to *Type) (Value, error) {
	switch v.kind {
	case KindInt, KindUint, KindFloat, KindDecimal:
		if from.TextForm() {
			break
		}
		if u, st := AsUint(v, *from); st == 0 && u <= uint64(len(to.Elems)) && (u > 0 || !c.Strict) {
			return Uint(u), nil
		}
		return Uint(0), c.truncated()
	}
	text := textOf(v, from)
	if i := to.member(text); i > 0 {
		return Uint(uint64(i)), nil
	}
	if u, st := ParseUint(text); st == 0 && u > 0 && u <= uint64(len(to.Elems)) {
		return Uint(u), nil
	}
	return Uint(0), c.truncated()
}

// member finds a member of ENUM or SET by its text and counts from 1; 0 when there is none.
func (t *Type) member(text []byte) int {
	coll := charset.Get(t.Collation)
	for len(text) > 0 && text[len(text)-1] == ' ' {
		text = text[:len(text)-1]
	}
	for i, e := range t.Elems {
		if coll.Equal([]byte(e), text) {
			return i + 1
		}
	}
	return 0
}

func (c *ConvContext) toSet(v Value, from, to *Type) (Value, error) {
	all := uint64(math.MaxUint64)
	if n := len(to.Elems); n < 64 {
		all = 1<<n - 1
	}
	switch v.kind {
	case KindInt, KindUint, KindFloat, KindDecimal:
		if from.TextForm() {
			break
		}
		if u, st := AsUint(v, *from); st == 0 && u&^all == 0 {
			return Uint(u), nil
		} else {
			return Uint(u & all), c.truncated()
		}
	}
	text := textOf(v, from)
	bits, ok := to.setBits(text)
	if !ok {
		if u, st := ParseUint(text); st == 0 && u&^all == 0 && len(text) > 0 {
			return Uint(u), nil
		}
		return Uint(bits), c.truncated()
	}
	return Uint(bits), nil
}

// setBits reads member names with commas between them; unknown ones are left out and make ok false.
func (t *Type) setBits(text []byte) (bits uint64, ok bool) {
	ok = true
	for start := 0; len(text) > 0 && start <= len(text); {
		end := start
		for end < len(text) && text[end] != ',' {
			end++
		}
		if i := t.member(text[start:end]); i > 0 {
			bits |= 1 << (i - 1)
		} else {
			ok = false
		}
		start = end + 1
	}
	return bits, ok
}

// now is the statement's clock in the session's zone.
func (c *ConvContext) now() time.Time {
	if c.Loc != nil {
		return c.Now.In(c.Loc)
	}
	return c.Now.UTC()
}
