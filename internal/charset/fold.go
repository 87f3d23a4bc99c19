package charset

import (
	"unicode"
	"unicode/utf8"
)

// AppendUpper appends s in upper case. Binary strings have no case.
func (c *Collation) AppendUpper(dst, s []byte) []byte {
	if c.IsBinary() {
		return append(dst, s...)
	}
	return appendMapped(dst, s, unicode.ToUpper)
}

// AppendLower appends s in lower case. Binary strings have no case.
func (c *Collation) AppendLower(dst, s []byte) []byte {
	if c.IsBinary() {
		return append(dst, s...)
	}
	return appendMapped(dst, s, unicode.ToLower)
}

func appendMapped(dst, s []byte, to func(rune) rune) []byte {
	for i := 0; i < len(s); {
		b := s[i]
		if b < utf8.RuneSelf {
			dst = append(dst, byte(to(rune(b))))
			i++
			continue
		}
		r, n := utf8.DecodeRune(s[i:])
		if r == utf8.RuneError && n == 1 {
			dst = append(dst, b)
		} else {
			dst = utf8.AppendRune(dst, to(r))
		}
		i += n
	}
	return dst
}
