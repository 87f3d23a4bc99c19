package types

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/sqlerr"
)

func (c *ConvContext) toString(v Value, from, to *Type) (Value, error) {
	s := textOf(v, from)
	if to.Collation == charset.Binary {
		return c.toBytes(s, to)
	}
	s, err := c.checkCharset(s, to)
	if err != nil {
		return v, err
	}
	if to.Tp == TypeString {
		s = trimPad(s)
	}
	s, err = c.fitText(s, to)
	return Str(s), err
}

// trimPad drops the trailing spaces of a CHAR value.
func trimPad(s []byte) []byte {
	for len(s) > 0 && s[len(s)-1] == ' ' {
		s = s[:len(s)-1]
	}
	return s
}

// checkCharset reports characters the column's character set does not have; they become '?'.
func (c *ConvContext) checkCharset(s []byte, to *Type) ([]byte, error) {
	cs := charset.Get(to.Collation).Charset
	n := cs.Check(s)
	if n == len(s) {
		return s, nil
	}
	if err := c.incorrect("string", quoteBytes(s[n:])); err != nil {
		return s, err
	}
	encoded, _ := cs.FromUTF8(nil, s)
	if cs.MaxLen == 4 { // malformed UTF-8: MySQL cuts the string there
		return s[:n], nil
	}
	fixed, _ := cs.ToUTF8(nil, encoded)
	return fixed, nil
}

// quoteBytes shows the first bytes of malformed text as MySQL does: \xF0\x9F..., at most six.
func quoteBytes(s []byte) []byte {
	var out []byte
	for i, b := range s {
		if i == 6 {
			return append(out, "..."...)
		}
		if b >= 0x20 && b < 0x7F {
			out = append(out, b)
		} else {
			out = fmt.Appendf(out, "\\x%02X", b)
		}
	}
	return out
}

// byteLimit is the greatest number of bytes in a TEXT or BLOB, -1 of other types.
func byteLimit(t *Type) int {
	switch t.Tp {
	case TypeTinyBlob:
		return 1<<8 - 1
	case TypeBlob:
		return 1<<16 - 1
	case TypeMediumBlob:
		return 1<<24 - 1
	case TypeLongBlob:
		return 1<<32 - 1
	}
	return -1
}

// fitText checks the length of characters: in characters for CHAR and VARCHAR, in bytes for TEXT.
func (c *ConvContext) fitText(s []byte, to *Type) ([]byte, error) {
	kept := s
	if limit := byteLimit(to); limit >= 0 {
		if len(s) <= limit {
			return s, nil
		}
		kept = s[:limit]
		for len(kept) > 0 && s[len(kept)]&0xC0 == 0x80 { // do not cut a character
			kept = kept[:len(kept)-1]
		}
	} else {
		if to.Flen < 0 || len(s) <= int(to.Flen) {
			return s, nil
		}
		if kept = charset.RunePrefix(s, int(to.Flen)); len(kept) == len(s) {
			return s, nil
		}
	}
	if len(trimPad(s[len(kept):])) == 0 { // only spaces are lost
		c.note()
		return kept, nil
	}
	return kept, c.tooLong()
}

// tooLong is 1406 in strict mode and the warning 1265 otherwise.
func (c *ConvContext) tooLong() error {
	if c.Strict {
		return sqlerr.New(sqlerr.ErrDataTooLong, c.Column, c.Row)
	}
	return c.truncated()
}

// toBytes checks the length of bytes and pads BINARY with zeros.
func (c *ConvContext) toBytes(s []byte, to *Type) (Value, error) {
	limit := byteLimit(to)
	if limit < 0 {
		limit = int(to.Flen)
	}
	if limit >= 0 && len(s) > limit {
		return Str(s[:limit]), c.tooLong()
	}
	if to.Tp == TypeString && len(s) < limit {
		padded := make([]byte, limit)
		copy(padded, s)
		return Str(padded), nil
	}
	return Str(s), nil
}

// toJSON checks the text of a document and keeps it without spaces around it. Malformed text is an error in every mode.
func (c *ConvContext) toJSON(v Value, from *Type) (Value, error) {
	switch v.kind {
	case KindJSON:
		return v, nil
	case KindString:
		text := bytes.TrimSpace(v.Bytes())
		if msg, at := checkJSON(text); msg != "" {
			return v, sqlerr.New(sqlerr.ErrInvalidJSONText, msg, at, c.Column)
		}
		return JSON(text), nil
	}
	text := textOf(v, from)
	if v.kind == KindTime || v.kind == KindDuration || from.TextForm() {
		quoted, err := json.Marshal(string(text))
		if err != nil {
			return v, sqlerr.New(sqlerr.ErrInvalidJSONText, "Invalid value.", 0, c.Column)
		}
		text = quoted
	}
	return JSON(text), nil
}

// checkJSON says what is wrong with a document and where; "" when nothing is.
func checkJSON(text []byte) (msg string, at int64) {
	if len(text) == 0 {
		return "The document is empty.", 0
	}
	if json.Valid(text) {
		return "", 0
	}
	var doc any
	var syntax *json.SyntaxError
	if errors.As(json.Unmarshal(text, &doc), &syntax) {
		at = max(syntax.Offset-1, 0)
	}
	return "Invalid value.", at
}
