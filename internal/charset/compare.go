package charset

import (
	"bytes"
	"encoding/binary"
	"unicode/utf8"

	"github.com/cespare/xxhash/v2"
	"vitess.io/vitess/go/mysql/collations/colldata"
)

// weights are the tables behind the fast paths of a collation.
type weights struct {
	// ascii holds the weight of each ASCII character; 0 means it has none and is skipped when comparing.
	ascii [128]uint16
	// bmp holds the weights of the basic plane (methodGeneral) or of the bytes of an eight-bit character set.
	bmp []uint16
	// other is the weight of every character beyond bmp.
	other uint16
}

func buildGeneral(impl colldata.Collation) *weights {
	w := &weights{bmp: make([]uint16, 0x10000), other: 0xFFFD}
	var enc [4]byte
	var dst []byte
	for r := range w.bmp {
		w.bmp[r] = w.other
		if 0xD800 <= r && r < 0xE000 {
			continue
		}
		n := utf8.EncodeRune(enc[:], rune(r))
		dst = impl.WeightString(dst[:0], enc[:n], 0)
		if len(dst) == 2 {
			w.bmp[r] = binary.BigEndian.Uint16(dst)
		}
	}
	copy(w.ascii[:], w.bmp)
	return w
}

func buildEight(impl colldata.Collation) *weights {
	w := &weights{bmp: make([]uint16, 256), other: 0xFF}
	var dst []byte
	for b := range w.bmp {
		dst = impl.WeightString(dst[:0], []byte{byte(b)}, 0)
		w.bmp[b] = uint16(dst[0])
	}
	copy(w.ascii[:], w.bmp)
	return w
}

func buildASCII(impl colldata.Collation) *weights {
	w := &weights{}
	var dst []byte
	for b := range w.ascii {
		dst = impl.WeightString(dst[:0], []byte{byte(b)}, 0)
		if len(dst) == 2 {
			w.ascii[b] = binary.BigEndian.Uint16(dst)
		}
	}
	return w
}

// trim drops the trailing spaces that do not count.
func (c *Collation) trim(s []byte) []byte {
	if !c.PadSpace {
		return s
	}
	n := len(s)
	for n > 0 && s[n-1] == ' ' {
		n--
	}
	return s[:n]
}

// Compare orders two strings of this collation: negative, 0 or positive.
func (c *Collation) Compare(a, b []byte) int {
	a, b = c.trim(a), c.trim(b)
	switch c.method {
	case methodBytes:
		return bytes.Compare(a, b)
	case methodGeneral, methodEight:
		return c.compareTable(c.weights(), a, b)
	case methodRoot:
		if isASCII(a) && isASCII(b) {
			return compareASCII(c.weights(), a, b)
		}
	}
	return c.compareLibrary(a, b)
}

// Equal tells whether two strings are the same in this collation.
func (c *Collation) Equal(a, b []byte) bool {
	if c.method == methodBytes {
		return bytes.Equal(c.trim(a), c.trim(b))
	}
	return c.Compare(a, b) == 0
}

func (c *Collation) compareLibrary(a, b []byte) int {
	if c.Charset.MaxLen == 1 {
		var bufA, bufB [64]byte
		a, b = c.encodeLossy(bufA[:0], a), c.encodeLossy(bufB[:0], b)
	}
	return c.impl.Collate(a, b, false)
}

// compareASCII compares strings of ASCII characters, of which some may have no weight. Equal bytes have equal weights, so
// it first skips what is the same, eight bytes at a time.
func compareASCII(w *weights, a, b []byte) int {
	for len(a) >= 8 && len(b) >= 8 && binary.LittleEndian.Uint64(a) == binary.LittleEndian.Uint64(b) {
		a, b = a[8:], b[8:]
	}
	n := min(len(a), len(b))
	i := 0
	for ; i < n; i++ {
		wa, wb := w.ascii[a[i]&0x7F], w.ascii[b[i]&0x7F]
		if wa == wb {
			continue
		}
		if wa == 0 || wb == 0 {
			break
		}
		if wa < wb {
			return -1
		}
		return 1
	}
	return compareSkipping(w, a[i:], b[i:])
}

// compareSkipping is compareASCII from the first character without weight on, and for the end of the longer string.
func compareSkipping(w *weights, a, b []byte) int {
	i, j := 0, 0
	for {
		var wa, wb uint16
		for i < len(a) && wa == 0 {
			wa = w.ascii[a[i]&0x7F]
			i++
		}
		for j < len(b) && wb == 0 {
			wb = w.ascii[b[j]&0x7F]
			j++
		}
		if wa != wb {
			if wa < wb {
				return -1
			}
			return 1
		}
		if wa == 0 {
			return 0
		}
	}
}

// compareTable compares strings in which every character has one weight.
func (c *Collation) compareTable(w *weights, a, b []byte) int {
	i, j := 0, 0
	for i < len(a) && j < len(b) {
		ca, cb := a[i], b[j]
		var wa, wb uint16
		if ca < utf8.RuneSelf && cb < utf8.RuneSelf {
			wa, wb = w.ascii[ca], w.ascii[cb]
			i++
			j++
		} else {
			var na, nb int
			wa, na = c.weightOf(w, a[i:])
			wb, nb = c.weightOf(w, b[j:])
			i += na
			j += nb
		}
		if wa != wb {
			if wa < wb {
				return -1
			}
			return 1
		}
	}
	return (len(a) - i) - (len(b) - j)
}

// weightOf gives the weight of the first character of s (not empty) and its length.
func (c *Collation) weightOf(w *weights, s []byte) (uint16, int) {
	if s[0] < utf8.RuneSelf {
		return w.ascii[s[0]], 1
	}
	r, n := utf8.DecodeRune(s)
	if c.method == methodEight {
		return c.weightEight(w, r), n
	}
	if int(r) < len(w.bmp) {
		return w.bmp[r], n
	}
	return w.other, n
}

func (c *Collation) weightEight(w *weights, r rune) uint16 {
	var enc [4]byte
	if c.Charset.coding.EncodeRune(enc[:], r) != 1 {
		return w.other
	}
	return w.bmp[enc[0]]
}

// AppendSortKey appends the key whose bytes order as Compare orders the strings.
func (c *Collation) AppendSortKey(dst, s []byte) []byte {
	s = c.trim(s)
	if key, ok := c.appendFast(dst, s); ok {
		return key
	}
	if c.Charset.MaxLen == 1 {
		var buf [64]byte
		s = c.encodeLossy(buf[:0], s)
	}
	return c.impl.WeightString(dst, s, 0)
}

// appendFast is AppendSortKey of a trimmed string where the library is not needed.
func (c *Collation) appendFast(dst, s []byte) (key []byte, ok bool) {
	switch c.method {
	case methodBytes:
		return append(dst, s...), true
	case methodGeneral:
		w := c.weights()
		for len(s) > 0 {
			v, n := c.weightOf(w, s)
			dst = append(dst, byte(v>>8), byte(v))
			s = s[n:]
		}
		return dst, true
	case methodEight:
		w := c.weights()
		for len(s) > 0 {
			v, n := c.weightOf(w, s)
			dst = append(dst, byte(v))
			s = s[n:]
		}
		return dst, true
	case methodRoot:
		if !isASCII(s) {
			return dst, false
		}
		w := c.weights()
		for _, b := range s {
			if v := w.ascii[b&0x7F]; v != 0 {
				dst = append(dst, byte(v>>8), byte(v))
			}
		}
		return dst, true
	}
	return dst, false
}

// Hash gives equal numbers for equal strings. The numbers are the same in every process.
func (c *Collation) Hash(s []byte) uint64 {
	s = c.trim(s)
	if c.method == methodBytes {
		return xxhash.Sum64(s)
	}
	var buf [256]byte // does not escape: the library, which would make it, is called with memory of its own
	if key, ok := c.appendFast(buf[:0], s); ok {
		return xxhash.Sum64(key)
	}
	return xxhash.Sum64(c.AppendSortKey(nil, s))
}

// Trim drops the trailing spaces that do not count in this collation.
func (c *Collation) Trim(s []byte) []byte { return c.trim(s) }

// encodeLossy gives s in the bytes of the collation's own character set, with '?' for what it cannot hold.
func (c *Collation) encodeLossy(dst, s []byte) []byte {
	if isASCII(s) {
		return s
	}
	var enc [4]byte
	for len(s) > 0 {
		r, n := utf8.DecodeRune(s)
		s = s[n:]
		if c.Charset.coding.EncodeRune(enc[:], r) != 1 {
			enc[0] = '?'
		}
		dst = append(dst, enc[0])
	}
	return dst
}

// isASCII looks at eight bytes at a time.
func isASCII(s []byte) bool {
	for len(s) >= 8 {
		if binary.LittleEndian.Uint64(s)&0x8080808080808080 != 0 {
			return false
		}
		s = s[8:]
	}
	for _, b := range s {
		if b >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
