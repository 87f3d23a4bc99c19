package types

// toTime makes a DATE, DATETIME or TIMESTAMP.
func (c *ConvContext) toTime(v Value, from, to *Type) (Value, error) {
	fsp := to.FSP()
	if to.Tp == TypeDate {
		fsp = 6 // the time of day is cut, not rounded
	}
	var t Time
	ok, truncated := true, false
	switch v.kind {
	case KindTime:
		t, ok = v.Time().Round(fsp)
	case KindDuration:
		t, ok = TimeOf(c.now()).DateOnly().AddMicros(int64(v.Duration().Round(fsp)))
	case KindString, KindJSON:
		t, truncated, ok = ParseTime(v.Bytes(), fsp, 0, c.Loc)
	default:
		t, ok = numberToTime(v, *from, fsp)
	}
	if !ok {
		return c.noTime(v, from, to, false)
	}
	if t != 0 || c.TimeFlags&NoZeroDate != 0 {
		if !t.Valid(c.TimeFlags) {
			return c.refuseTime(t, v, from, to)
		}
	}
	if truncated {
		if err := c.truncatedTime(v, from, to); err != nil {
			return v, err
		}
	}
	if to.Tp == TypeDate {
		if d := t.DateOnly(); d != t {
			c.note()
			t = d
		}
	}
	if to.Tp == TypeTimestamp {
		if _, ok := LocalToTimestamp(t, c.Loc); !ok {
			return c.noTime(v, from, to, true)
		}
	}
	return TimeVal(t), nil
}

// numberToTime reads a number as YYYYMMDD and so on.
func numberToTime(v Value, from Type, fsp int) (Time, bool) {
	d, st := AsDecimal(v, from)
	if st != 0 || d.Sign() < 0 {
		return 0, false
	}
	whole, nanos, ok := splitNumber(v, from)
	if !ok {
		return 0, false
	}
	return TimeFromNumber(whole, nanos, fsp, 0)
}

// splitNumber gives the whole part and nine digits of the fraction of a number, the fraction without sign.
func splitNumber(v Value, from Type) (whole int64, nanos int, ok bool) {
	if v.kind == KindInt {
		return v.Int(), 0, true
	}
	d, _ := AsDecimal(v, from)
	w, _ := d.Truncate(0)
	whole, over := w.ToInt64()
	if over {
		return 0, 0, false
	}
	f, _ := d.Sub(w)
	f, _ = f.Abs().Truncate(9)
	_, lo, _, _, _ := f.Parts()
	return whole, int(lo), true
}

// timeKind is how messages name a type.
func timeKind(t *Type) string {
	switch t.Tp {
	case TypeDate:
		return "date"
	case TypeDuration:
		return "time"
	}
	return "datetime"
}

// noTime reports a value that is no date, or no moment of the session's time zone: 1292 in strict mode, otherwise the
// zero date and a warning.
func (c *ConvContext) noTime(v Value, from, to *Type, outOfRange bool) (Value, error) {
	if c.Strict {
		return v, c.incorrectTime(timeKind(to), textOf(v, from))
	}
	if outOfRange || v.kind != KindString || numericDate(v.Bytes()) {
		return TimeVal(0), c.outOfRange()
	}
	return TimeVal(0), c.truncated()
}

// numericDate tells text made like a date, whose numbers are wrong, from text that is nothing of the kind.
func numericDate(s []byte) bool {
	s = trimSpaces(s)
	return len(s) > 0 && isDigit(s[0])
}

// refuseTime handles dates sql_mode refuses: with a zero they are stored with a warning unless mode is strict, others
// become the zero date.
func (c *ConvContext) refuseTime(t Time, v Value, from, to *Type) (Value, error) {
	if c.Strict {
		return v, c.incorrectTime(timeKind(to), textOf(v, from))
	}
	if t == 0 {
		return TimeVal(0), c.outOfRange()
	}
	return c.noTime(v, from, to, true)
}

// truncatedTime reports text after a date or time: a warning that strict mode makes an error.
func (c *ConvContext) truncatedTime(v Value, from, to *Type) error {
	if c.Strict {
		return c.incorrectTime(timeKind(to), textOf(v, from))
	}
	return c.truncated()
}

func (c *ConvContext) toDuration(v Value, from, to *Type) (Value, error) {
	fsp := to.FSP()
	var d Duration
	var st Status
	switch v.kind {
	case KindDuration:
		d = v.Duration().Round(fsp)
	case KindTime:
		if from.Tp != TypeDate {
			t, _ := v.Time().Round(fsp)
			d = t.ClockDuration()
		}
	case KindString, KindJSON:
		d, st = ParseDuration(v.Bytes(), fsp)
	default:
		whole, nanos, ok := splitNumber(v, *from)
		if !ok {
			d, st = MaxDuration, Overflow
			break
		}
		d, st = DurationFromNumber(whole, nanos, fsp)
	}
	switch {
	case st&Overflow != 0:
		if c.Strict {
			return v, c.incorrectTime("time", textOf(v, from))
		}
		return Dur(d), c.outOfRange()
	case st&(Invalid|Truncated) != 0:
		if c.Strict {
			return v, c.incorrectTime("time", textOf(v, from))
		}
		return Dur(d), c.truncated()
	}
	return Dur(d), nil
}
