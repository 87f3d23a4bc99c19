package engine

import (
	"bytes"
	"encoding/binary"

	"github.com/cockroachdb/pebble/v2"
)

// comparerName is stored in the database; a database with another name is refused.
const comparerName = "cairn.kv.v1"

// Comparer orders physical keys by user key, bytewise, then newest version
// first. The returned value is shared and must not be changed.
//
// A plain bytewise comparison would be wrong: the version of "a" starts with
// bytes that may sort after those of the longer user key "a\x00b".
func Comparer() *pebble.Comparer {
	return &pebble.Comparer{
		Name:                 comparerName,
		Split:                split,
		Compare:              compare,
		Equal:                bytes.Equal,
		ComparePointSuffixes: bytes.Compare,
		CompareRangeSuffixes: bytes.Compare,
		AbbreviatedKey:       abbreviatedKey,
		// Identity: cutting a key short could leave bytes that split takes for a
		// version. With 32 KB blocks the index is small anyway.
		Separator:          func(dst, a, _ []byte) []byte { return append(dst, a...) },
		Successor:          func(dst, a []byte) []byte { return append(dst, a...) },
		ImmediateSuccessor: func(dst, a []byte) []byte { return append(append(dst, a...), sentinel) },
		FormatKey:          pebble.DefaultComparer.FormatKey,
	}
}

// split returns the length of k without its version. A versioned key ends in
// versionMark and has the sentinel before the suffix; every other key Pebble
// may ask about (unversioned keys, bounds of a key space) ends in something else.
func split(k []byte) int {
	n := len(k)
	if n < suffixLen || k[n-1] != versionMark {
		return n
	}
	if n == suffixLen || k[n-suffixLen-1] == sentinel {
		return n - suffixLen
	}
	return n
}

func compare(a, b []byte) int {
	// What lies that far before the end is no version: if it differs, it decides.
	if n := min(len(a), len(b)) - suffixLen; n > 0 {
		if c := bytes.Compare(a[:n], b[:n]); c != 0 {
			return c
		}
	}
	an, bn := split(a), split(b)
	if c := bytes.Compare(a[:an], b[:bn]); c != 0 {
		return c
	}
	return bytes.Compare(a[an:], b[bn:])
}

func abbreviatedKey(k []byte) uint64 {
	n := split(k)
	if n >= 8 {
		return binary.BigEndian.Uint64(k)
	}
	var v uint64
	for _, c := range k[:n] {
		v = v<<8 | uint64(c)
	}
	return v << uint(8*(8-n))
}
