package charset

import (
	"unicode/utf8"
)

// RuneLen counts the characters of a UTF-8 string; a byte that is not UTF-8 counts as one.
func RuneLen(s []byte) int {
	if isASCII(s) {
		return len(s)
	}
	return utf8.RuneCount(s)
}

// RunePrefix is the longest prefix of s with at most n characters.
func RunePrefix(s []byte, n int) []byte {
	if len(s) <= n {
		return s
	}
	i := 0
	for ; n > 0 && i < len(s); n-- {
		if s[i] < utf8.RuneSelf {
			i++
			continue
		}
		_, w := utf8.DecodeRune(s[i:])
		i += w
	}
	return s[:i]
}

// IsASCII tells whether all characters are ASCII: such strings are the same in every supported character set.
func IsASCII(s []byte) bool { return isASCII(s) }

// Check returns the length of the longest prefix of the UTF-8 string s that the character set can hold; len(s) when it
// holds all of it. Every byte string is good for binary.
func (cs *Charset) Check(s []byte) int {
	if cs.Default == Binary || isASCII(s) {
		return len(s)
	}
	var enc [4]byte
	for i := 0; i < len(s); {
		if s[i] < utf8.RuneSelf {
			i++
			continue
		}
		r, n := utf8.DecodeRune(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			return i
		case n > 3 && cs.MaxLen == 3:
			return i
		case cs.MaxLen == 1 && cs.coding.EncodeRune(enc[:], r) != 1:
			return i
		}
		i += n
	}
	return len(s)
}

// ToUTF8 appends src, which is text in this character set (a client's), as UTF-8. ok is false when src was malformed:
// malformed bytes become '?'. Binary is taken as it is.
func (cs *Charset) ToUTF8(dst, src []byte) (out []byte, ok bool) {
	if cs.Default == Binary || isASCII(src) {
		return append(dst, src...), true
	}
	ok = true
	for len(src) > 0 {
		if src[0] < utf8.RuneSelf {
			dst = append(dst, src[0])
			src = src[1:]
			continue
		}
		r, n, good := cs.coding.DecodeRune(src)
		if !good {
			r, n, ok = '?', max(n, 1), false
		}
		dst = utf8.AppendRune(dst, r)
		src = src[n:]
	}
	return dst, ok
}

// FromUTF8 appends the UTF-8 text src in this character set, with '?' for what it cannot hold; ok is then false.
func (cs *Charset) FromUTF8(dst, src []byte) (out []byte, ok bool) {
	if cs.Default == Binary || cs.MaxLen == 4 || isASCII(src) {
		return append(dst, src...), true
	}
	ok = true
	var enc [4]byte
	for len(src) > 0 {
		r, n := utf8.DecodeRune(src)
		src = src[n:]
		w := cs.coding.EncodeRune(enc[:], r)
		if w < 1 || r == utf8.RuneError && n == 1 {
			enc[0], w, ok = '?', 1, false
		}
		dst = append(dst, enc[:w]...)
	}
	return dst, ok
}

// EncodedLen is the number of bytes the UTF-8 text s has in this character set: LENGTH() of a column.
func (cs *Charset) EncodedLen(s []byte) int {
	if cs.MaxLen == 1 && cs.Default != Binary {
		return RuneLen(s)
	}
	return len(s)
}
