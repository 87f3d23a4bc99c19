package engine

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// CF names one of the four key spaces that share the database. It is the first
// byte of every physical key.
type CF byte

// The key spaces. Their values are part of the disk format.
const (
	// CFLocal holds what the store says about itself and its regions. It is
	// never replicated as such and never read by clients.
	CFLocal CF = 1
	// CFLock holds the locks of transactions in progress; unversioned.
	CFLock CF = 2
	// CFWrite holds commit records (short values inline), versioned by commit timestamp.
	CFWrite CF = 3
	// CFDefault holds long values, versioned by start timestamp.
	CFDefault CF = 4
)

const (
	sentinel     = 0x00 // ends the user key in every physical key
	versionBytes = 8    // big-endian complement of the timestamp
	versionMark  = 0x09 // last byte of a versioned key: length of the suffix
	suffixLen    = versionBytes + 1
)

// ErrBadKey reports bytes that are no physical key of this format.
var ErrBadKey = errors.New("engine: malformed physical key")

// AppendKey appends the physical key of an unversioned entry. The same bytes
// are the lower bound of every version of userKey, and, being free of a
// suffix, are allowed as a bound of an excise.
func AppendKey(dst []byte, cf CF, userKey []byte) []byte {
	dst = append(dst, byte(cf))
	dst = append(dst, userKey...)
	return append(dst, sentinel)
}

// AppendVersioned appends the physical key of the version of userKey written
// at ts. Of one user key the newest version sorts first.
func AppendVersioned(dst []byte, cf CF, userKey []byte, ts uint64) []byte {
	dst = append(dst, byte(cf))
	dst = append(dst, userKey...)
	dst = append(dst, sentinel)
	dst = binary.BigEndian.AppendUint64(dst, ^ts)
	return append(dst, versionMark)
}

// DecodeKey takes a physical key apart. userKey aliases k. ts is 0 when the key
// is not versioned.
func DecodeKey(k []byte) (cf CF, userKey []byte, ts uint64, versioned bool, err error) {
	n := split(k)
	if n < 2 || k[n-1] != sentinel || k[0] < byte(CFLocal) || k[0] > byte(CFDefault) {
		return 0, nil, 0, false, fmt.Errorf("%w: %x", ErrBadKey, k)
	}
	cf, userKey = CF(k[0]), k[1:n-1:n-1]
	if n == len(k) {
		return cf, userKey, 0, false, nil
	}
	return cf, userKey, ^binary.BigEndian.Uint64(k[n:]), true, nil
}

// cfEnd returns the exclusive upper bound of a key space.
func cfEnd(dst []byte, cf CF) []byte {
	return append(dst, byte(cf)+1)
}
