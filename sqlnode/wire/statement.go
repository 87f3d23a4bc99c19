package wire

import (
	"fmt"
	"math"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/types"
)

// ParamType is the type a client declared for a parameter: its column type
// code and whether it is unsigned.
type ParamType struct {
	Tp       byte
	Unsigned bool
}

// Statement is what the protocol remembers of a prepared statement between
// commands. The zero value with Params set is a fresh one.
type Statement struct {
	Params int // number of parameters
	// Types were declared by an earlier execution; a client declares them only
	// when it binds anew.
	Types []ParamType
	// Long holds data sent ahead by COM_STMT_SEND_LONG_DATA, by parameter.
	Long map[int][]byte
}

// Execution is one COM_STMT_EXECUTE, decoded.
type Execution struct {
	Cursor byte          // CURSOR_TYPE_* flags
	Values []types.Value // strings alias the command's bytes
}

// StatementID reads the statement id that starts every COM_STMT_* command and
// returns the rest.
func StatementID(data []byte) (id uint32, rest []byte, err error) {
	r := &reader{b: data}
	id = uint32(r.uint(4))
	if r.bad {
		return 0, nil, fmt.Errorf("%w: no statement id", ErrMalformed)
	}
	return id, r.b, nil
}

// AppendLong handles COM_STMT_SEND_LONG_DATA, whose command has no answer.
// limit is the most a parameter may grow to (max_allowed_packet).
func (s *Statement) AppendLong(rest []byte, limit int) error {
	r := &reader{b: rest}
	p := int(r.uint(2))
	if r.bad || p >= s.Params {
		return fmt.Errorf("%w: COM_STMT_SEND_LONG_DATA for parameter %d of %d", ErrMalformed, p, s.Params)
	}
	if len(s.Long[p])+len(r.b) > limit {
		return ErrPacketTooLarge
	}
	if s.Long == nil {
		s.Long = map[int][]byte{}
	}
	s.Long[p] = append(s.Long[p], r.b...)
	if s.Long[p] == nil {
		s.Long[p] = []byte{} // sent, and empty
	}
	return nil
}

// Reset forgets long data (COM_STMT_RESET).
func (s *Statement) Reset() { s.Long = nil }

// Execute decodes the rest of COM_STMT_EXECUTE behind the statement id into
// vals, which is reused. Long data is consumed.
func (s *Statement) Execute(rest []byte, vals []types.Value) (Execution, error) {
	r := &reader{b: rest}
	e := Execution{Cursor: byte(r.uint(1)), Values: vals[:0]}
	r.bytes(4) // iteration count, always 1
	if s.Params == 0 {
		if r.bad {
			return e, fmt.Errorf("%w: COM_STMT_EXECUTE", ErrMalformed)
		}
		return e, nil
	}
	nulls := r.bytes((s.Params + 7) / 8)
	if r.uint(1) == 1 {
		s.readTypes(r)
	}
	if r.bad || len(s.Types) != s.Params {
		return e, fmt.Errorf("%w: COM_STMT_EXECUTE", ErrMalformed)
	}
	for i, t := range s.Types {
		long, isLong := s.Long[i]
		switch {
		case isLong:
			e.Values = append(e.Values, types.Str(long))
		case nulls[i/8]&(1<<(i%8)) != 0 || t.Tp == types.TypeNull:
			e.Values = append(e.Values, types.Null())
		default:
			e.Values = append(e.Values, readParam(r, t))
		}
	}
	s.Long = nil
	if r.bad {
		return e, fmt.Errorf("%w: parameters of COM_STMT_EXECUTE", ErrMalformed)
	}
	return e, nil
}

func (s *Statement) readTypes(r *reader) {
	raw := r.bytes(2 * s.Params)
	if r.bad {
		return
	}
	s.Types = make([]ParamType, s.Params)
	for i := range s.Types {
		s.Types[i] = ParamType{Tp: raw[2*i], Unsigned: raw[2*i+1]&0x80 != 0}
	}
}

func readParam(r *reader, t ParamType) types.Value {
	switch t.Tp {
	case types.TypeTiny:
		return intParam(uint64(int64(int8(r.uint(1)))), 8, t.Unsigned)
	case types.TypeShort, types.TypeYear:
		return intParam(uint64(int64(int16(r.uint(2)))), 16, t.Unsigned)
	case types.TypeLong, types.TypeInt24:
		return intParam(uint64(int64(int32(r.uint(4)))), 32, t.Unsigned)
	case types.TypeLonglong:
		return intParam(r.uint(8), 64, t.Unsigned)
	case types.TypeFloat:
		return types.Float(float64(math.Float32frombits(uint32(r.uint(4)))))
	case types.TypeDouble:
		return types.Float(math.Float64frombits(r.uint(8)))
	case types.TypeDate, types.TypeDatetime, types.TypeTimestamp:
		return timeParam(r)
	case types.TypeDuration:
		return durationParam(r)
	}
	return types.Str(r.lenString())
}

// intParam takes a sign-extended value of the given width.
func intParam(v uint64, bits int, unsigned bool) types.Value {
	if !unsigned {
		return types.Int(int64(v))
	}
	if bits < 64 {
		v &= 1<<bits - 1
	}
	return types.Uint(v)
}

func timeParam(r *reader) types.Value {
	p := &reader{b: r.bytes(int(r.uint(1)))}
	if n := len(p.b); n != 0 && n != 4 && n != 7 && n != 11 {
		r.bad = true
		return types.Null()
	}
	if len(p.b) == 0 {
		return types.TimeVal(0)
	}
	y, mo, d := int(p.uint(2)), int(p.uint(1)), int(p.uint(1))
	var h, mi, s, us int
	if len(p.b) > 0 {
		h, mi, s = int(p.uint(1)), int(p.uint(1)), int(p.uint(1))
	}
	if len(p.b) > 0 {
		us = int(p.uint(4))
	}
	if y > 9999 || mo > 12 || d > 31 || h > 23 || mi > 59 || s > 59 || us > 999999 {
		r.bad = true
		return types.Null()
	}
	return types.TimeVal(types.MakeTime(y, mo, d, h, mi, s, us))
}

func durationParam(r *reader) types.Value {
	p := &reader{b: r.bytes(int(r.uint(1)))}
	if n := len(p.b); n != 0 && n != 8 && n != 12 {
		r.bad = true
		return types.Null()
	}
	if len(p.b) == 0 {
		return types.Dur(0)
	}
	neg := p.uint(1) == 1
	days := int(p.uint(4))
	h, mi, s := int(p.uint(1)), int(p.uint(1)), int(p.uint(1))
	us := 0
	if len(p.b) > 0 {
		us = int(p.uint(4))
	}
	if days > 34 || h > 23 || mi > 59 || s > 59 || us > 999999 {
		r.bad = true
		return types.Null()
	}
	return types.Dur(types.MakeDuration(neg, days*24+h, mi, s, us))
}

// Type is the SQL type values of this declaration have. Text arrives in the
// connection's collation; blobs are bytes.
func (p ParamType) Type(coll charset.ID) types.Type {
	switch p.Tp {
	case types.TypeTiny, types.TypeShort, types.TypeYear, types.TypeLong, types.TypeInt24, types.TypeLonglong:
		if p.Unsigned {
			return types.NewUint()
		}
		return types.NewInt()
	case types.TypeFloat, types.TypeDouble:
		return types.NewFloat()
	case types.TypeDuration:
		return types.NewTemporal(types.TypeDuration, 6)
	case types.TypeDate:
		return types.NewTemporal(types.TypeDate, 0)
	case types.TypeDatetime, types.TypeTimestamp:
		return types.NewTemporal(types.TypeDatetime, 6)
	case types.TypeNull:
		return types.NewNull()
	case types.TypeTinyBlob, types.TypeBlob, types.TypeMediumBlob, types.TypeLongBlob:
		coll = charset.Binary
	}
	return types.NewString(types.UnspecifiedLength, coll)
}

// Definition is the column definition of a result column; lengths of strings
// are in bytes of utf8mb4, what clients size their buffers by.
func Definition(t types.Type) (typ byte, length uint32, flags uint16, decimals byte, cs uint16) {
	typ, flags, cs = t.Tp, uint16(t.Flags), uint16(t.Collation)
	n := max(t.DisplayLength(), 0)
	switch {
	case t.IsCharacter() && !t.IsBlob():
		n *= 4
	case t.Tp == types.TypeEnum || t.Tp == types.TypeSet:
		n *= 4
		flags |= enumSetFlag(t.Tp)
		typ = types.TypeString // as MySQL sends them
	}
	if t.IsBlob() {
		typ = types.TypeBlob // the length tells the size
		flags |= uint16(types.FlagBlob)
	}
	if t.Tp == types.TypeVarchar {
		typ = types.TypeVarString
	}
	if t.Collation == charset.Binary {
		flags |= uint16(types.FlagBinary)
	}
	decimals = definitionDecimals(t)
	return typ, uint32(min(n, math.MaxUint32)), flags, decimals, cs
}

func enumSetFlag(tp byte) uint16 {
	if tp == types.TypeEnum {
		return uint16(types.FlagEnum)
	}
	return uint16(types.FlagSet)
}

// definitionDecimals is 31 for floating numbers without a fixed scale and for
// nothing else.
func definitionDecimals(t types.Type) byte {
	switch t.Class() {
	case types.ClassFloat:
		if t.Decimal < 0 {
			return 31
		}
		return byte(t.Decimal)
	case types.ClassDecimal, types.ClassTime, types.ClassDuration:
		return byte(max(t.Decimal, 0))
	}
	return 0
}
