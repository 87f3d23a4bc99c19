package expr

import (
	"bytes"
	"unicode/utf8"

	"github.com/cairndb/cairn/internal/charset"
)

// text is how the string functions look at a value: by bytes when it is binary, by characters otherwise.
type text struct {
	coll *charset.Collation
	bin  bool // count bytes
	memc bool // equal means equal bytes
}

func textOf(id charset.ID) text {
	c := charset.Get(id)
	return text{coll: c, bin: c.IsBinary(), memc: c.Bytewise}
}

// length counts characters.
func (t text) length(s []byte) int {
	if t.bin {
		return len(s)
	}
	return utf8.RuneCount(s)
}

// offset returns the byte offset of character n (from 0), len(s) when s is shorter.
func (t text) offset(s []byte, n int) int {
	if n <= 0 {
		return 0
	}
	if t.bin {
		return min(n, len(s))
	}
	i := 0
	for ; n > 0 && i < len(s); n-- {
		if s[i] < utf8.RuneSelf {
			i++
			continue
		}
		_, size := utf8.DecodeRune(s[i:])
		i += size
	}
	return i
}

// substr cuts n characters from the position pos, which counts from 1, or from the end when negative.
func (t text) substr(s []byte, pos, n int64) []byte {
	if n <= 0 || pos == 0 || len(s) == 0 {
		return s[:0]
	}
	var start int
	if pos < 0 {
		count := int64(t.length(s))
		if -pos > count {
			return s[:0]
		}
		start = t.offset(s, int(count+pos))
	} else {
		if pos > int64(len(s)) {
			return s[:0]
		}
		start = t.offset(s, int(pos-1))
	}
	rest := s[start:]
	if n >= int64(len(rest)) {
		return rest
	}
	return rest[:t.offset(rest, int(n))]
}

// find returns the byte offset of sub in s at or after byte from, -1 when absent.
func (t text) find(s, sub []byte, from int) int {
	if from > len(s) {
		return -1
	}
	if t.memc || len(sub) == 0 {
		if i := bytes.Index(s[from:], sub); i >= 0 {
			return from + i
		}
		return -1
	}
	for i := from; i+len(sub) <= len(s); {
		if t.coll.Equal(s[i:i+len(sub)], sub) {
			return i
		}
		_, size := utf8.DecodeRune(s[i:])
		i += size
	}
	return -1
}

// locate returns the position (from 1) of sub in s at or after the position pos, 0 when absent.
func (t text) locate(sub, s []byte, pos int64) int64 {
	if pos < 1 || pos > int64(len(s))+1 {
		return 0
	}
	from := t.offset(s, int(pos-1))
	if from == len(s) && pos-1 > int64(t.length(s)) {
		return 0
	}
	i := t.find(s, sub, from)
	if i < 0 {
		return 0
	}
	return int64(t.length(s[:i])) + 1
}

// substringIndex returns s up to the count-th delimiter from the left, or from the right when count is negative.
func substringIndex(s, delim []byte, count int64) []byte {
	if count == 0 || len(delim) == 0 || len(s) == 0 {
		return s[:0]
	}
	if count > 0 {
		i := 0
		for ; count > 0; count-- {
			k := bytes.Index(s[i:], delim)
			if k < 0 {
				return s
			}
			i += k + len(delim)
		}
		return s[:i-len(delim)]
	}
	end := len(s)
	for ; count < 0; count++ {
		k := bytes.LastIndex(s[:end], delim)
		if k < 0 {
			return s
		}
		end = k
	}
	return s[end+len(delim):]
}

// trimSides are the ends TRIM works at.
type trimSides uint8

const (
	trimLeading trimSides = 1 << iota
	trimTrailing
	trimBoth = trimLeading | trimTrailing
)

func trimText(s, rem []byte, sides trimSides) []byte {
	if len(rem) == 0 {
		return s
	}
	if sides&trimLeading != 0 {
		for bytes.HasPrefix(s, rem) {
			s = s[len(rem):]
		}
	}
	if sides&trimTrailing != 0 {
		for bytes.HasSuffix(s, rem) {
			s = s[:len(s)-len(rem)]
		}
	}
	return s
}

// appendPad appends s padded to n characters on the left or right, or cut to n.
func (t text) appendPad(dst, s, pad []byte, n int, left bool) []byte {
	have := t.length(s)
	if have >= n {
		return append(dst, s[:t.offset(s, n)]...)
	}
	if !left {
		dst = append(dst, s...)
	}
	padLen := t.length(pad)
	for need := n - have; need > 0; need -= padLen {
		if need < padLen {
			pad = pad[:t.offset(pad, need)]
		}
		dst = append(dst, pad...)
	}
	if left {
		dst = append(dst, s...)
	}
	return dst
}

func (t text) appendReverse(dst, s []byte) []byte {
	if t.bin {
		for i := len(s) - 1; i >= 0; i-- {
			dst = append(dst, s[i])
		}
		return dst
	}
	for len(s) > 0 {
		_, size := utf8.DecodeLastRune(s)
		dst = append(dst, s[len(s)-size:]...)
		s = s[:len(s)-size]
	}
	return dst
}

// appendInsert replaces n characters of s from position pos with repl; a position outside s leaves it as it is.
func (t text) appendInsert(dst, s []byte, pos, n int64, repl []byte) []byte {
	count := int64(t.length(s))
	if pos < 1 || pos > count {
		return append(dst, s...)
	}
	if n < 0 || n > count-pos+1 {
		n = count - pos + 1
	}
	start := t.offset(s, int(pos-1))
	end := start + t.offset(s[start:], int(n))
	dst = append(dst, s[:start]...)
	dst = append(dst, repl...)
	return append(dst, s[end:]...)
}

// appendQuote writes s as a SQL string literal.
func appendQuote(dst, s []byte) []byte {
	dst = append(dst, '\'')
	for _, c := range s {
		switch c {
		case '\'', '\\':
			dst = append(dst, '\\', c)
		case 0:
			dst = append(dst, '\\', '0')
		case 0x1a:
			dst = append(dst, '\\', 'Z')
		default:
			dst = append(dst, c)
		}
	}
	return append(dst, '\'')
}

// findInSet returns the place (from 1) of s among the comma-separated members of set, 0 when absent.
func (t text) findInSet(s, set []byte) int64 {
	if len(set) == 0 || bytes.IndexByte(s, ',') >= 0 {
		return 0
	}
	for n := int64(1); ; n++ {
		member, rest, more := bytes.Cut(set, []byte{','})
		if t.coll.Equal(member, s) {
			return n
		}
		if !more {
			return 0
		}
		set = rest
	}
}

// ordOf is ORD(): the bytes of the first character as a big-endian number.
func (t text) ordOf(s []byte) int64 {
	if len(s) == 0 {
		return 0
	}
	size := 1
	if !t.bin && s[0] >= utf8.RuneSelf {
		if _, n := utf8.DecodeRune(s); n > 1 {
			size = n
		}
	}
	var v int64
	for _, c := range s[:size] {
		v = v<<8 | int64(c)
	}
	return v
}

// appendGrouped inserts commas between the thousands of a number in text form.
func appendGrouped(dst, num []byte) []byte {
	if len(num) > 0 && num[0] == '-' {
		dst = append(dst, '-')
		num = num[1:]
	}
	whole, frac, hasFrac := bytes.Cut(num, []byte{'.'})
	for i, c := range whole {
		if i > 0 && (len(whole)-i)%3 == 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, c)
	}
	if hasFrac {
		dst = append(dst, '.')
		dst = append(dst, frac...)
	}
	return dst
}

// appendReplaced replaces every from, byte by byte the same, with to.
func appendReplaced(dst, s, from, to []byte) []byte {
	for {
		i := bytes.Index(s, from)
		if i < 0 {
			return append(dst, s...)
		}
		dst = append(dst, s[:i]...)
		dst = append(dst, to...)
		s = s[i+len(from):]
	}
}
