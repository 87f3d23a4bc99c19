package charset

import (
	"bytes"
	"unicode/utf8"
)

// Pattern is a LIKE pattern made ready. It is immutable and safe for concurrent use.
type Pattern struct {
	c     *Collation
	w     *weights
	items []item
	// prefix is what every match begins with, as bytes, when the collation is bytewise and the pattern is a plain
	// prefix, text% ; whole tells that there is no wildcard at all.
	prefix []byte
	plain  bool
	whole  bool
}

// item is one element of a pattern: a character, or a wildcard.
type item struct {
	kind itemKind
	r    rune // the character
	w    uint16
}

type itemKind uint8

const (
	itemChar itemKind = iota
	itemOne
	itemMany
)

// Like makes a pattern: '%' stands for any string, '_' for one character, and escape takes the meaning from the
// character after it. escape 0 means that there is no escape character; SQL's default is '\\'.
func (c *Collation) Like(pattern []byte, escape rune) *Pattern {
	p := &Pattern{c: c}
	if c.weights != nil {
		p.w = c.weights()
	}
	for i := 0; i < len(pattern); {
		r, n := c.decode(pattern[i:])
		i += n
		switch {
		case escape != 0 && r == escape:
			if i < len(pattern) {
				r, n = c.decode(pattern[i:])
				i += n
			}
			p.char(r)
		case r == '%':
			if k := len(p.items); k == 0 || p.items[k-1].kind != itemMany {
				p.items = append(p.items, item{kind: itemMany})
			}
		case r == '_':
			p.items = append(p.items, item{kind: itemOne})
		default:
			p.char(r)
		}
	}
	p.simplify()
	return p
}

func (p *Pattern) char(r rune) {
	it := item{kind: itemChar, r: r}
	if p.w != nil && r < utf8.RuneSelf && r >= 0 {
		it.w = p.w.ascii[r]
	}
	p.items = append(p.items, it)
}

// simplify finds the patterns that are a comparison of bytes.
func (p *Pattern) simplify() {
	if p.c.method != methodBytes {
		return
	}
	n := len(p.items)
	for i, it := range p.items {
		if it.kind == itemOne || it.kind == itemMany && i != n-1 {
			return
		}
	}
	p.prefix, p.whole = p.LiteralPrefix()
	p.plain = true
}

// LiteralPrefix is the text before the first wildcard: every match begins with characters equal to it. whole tells that
// there is no wildcard at all.
func (p *Pattern) LiteralPrefix() (prefix []byte, whole bool) {
	for _, it := range p.items {
		if it.kind != itemChar {
			return prefix, false
		}
		if p.c.IsBinary() {
			prefix = append(prefix, byte(it.r))
		} else {
			prefix = utf8.AppendRune(prefix, it.r)
		}
	}
	return prefix, true
}

// decode takes the first character of s: a byte of a binary string.
func (c *Collation) decode(s []byte) (rune, int) {
	if s[0] < utf8.RuneSelf || c.IsBinary() {
		return rune(s[0]), 1
	}
	return utf8.DecodeRune(s)
}

// Match tells whether s matches the pattern as a whole.
func (p *Pattern) Match(s []byte) bool {
	if p.plain {
		if p.whole {
			return bytes.Equal(s, p.prefix)
		}
		return bytes.HasPrefix(s, p.prefix)
	}
	i, k := 0, 0
	// After a '%' at items[star], the text from mark on is tried again one character later.
	star, mark := -1, 0
	for i < len(s) {
		if k < len(p.items) {
			it := &p.items[k]
			if it.kind == itemMany {
				if k == len(p.items)-1 {
					return true
				}
				star, mark = k, i
				k++
				continue
			}
			if n := p.step(it, s[i:]); n > 0 {
				i += n
				k++
				continue
			}
		}
		if star < 0 {
			return false
		}
		_, n := p.c.decode(s[mark:])
		mark += n
		i, k = mark, star+1
	}
	for k < len(p.items) && p.items[k].kind == itemMany {
		k++
	}
	return k == len(p.items)
}

// step matches one character of s against it and returns the character's length, 0 when it does not match.
func (p *Pattern) step(it *item, s []byte) int {
	b := s[0]
	if b < utf8.RuneSelf {
		if it.kind == itemOne || rune(b) == it.r || it.w != 0 && it.w == p.w.ascii[b] {
			return 1
		}
		if it.r < utf8.RuneSelf && (p.w != nil || p.c.method == methodBytes) {
			return 0
		}
	}
	r, n := p.c.decode(s)
	if it.kind == itemOne || r == it.r || p.c.method != methodBytes && p.c.equalRunes(r, it.r) {
		return n
	}
	return 0
}

// equalRunes compares two characters.
func (c *Collation) equalRunes(a, b rune) bool {
	var bufA, bufB [4]byte
	na, nb := utf8.EncodeRune(bufA[:], a), utf8.EncodeRune(bufB[:], b)
	if c.w() != nil && c.method != methodRoot {
		wa, _ := c.weightOf(c.w(), bufA[:na])
		wb, _ := c.weightOf(c.w(), bufB[:nb])
		return wa == wb
	}
	return c.compareLibrary(bufA[:na], bufB[:nb]) == 0
}

func (c *Collation) w() *weights {
	if c.weights == nil {
		return nil
	}
	return c.weights()
}
