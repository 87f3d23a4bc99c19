package engine

import (
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
)

// versionProperty names, in tables, the property of a block that says between which
// timestamps its versions of CFWrite lie. Part of the disk format: tables without it
// are read whole.
const versionProperty = "cairn.write-ts"

func newVersionCollector() pebble.BlockPropertyCollector {
	return sstable.NewBlockIntervalCollector(versionProperty, versionMapper{}, nil)
}

// versionMapper maps a version of CFWrite to its timestamp, tombstones too: where a version
// is shown, so is the tombstone that removes it. Nothing else counts.
type versionMapper struct{}

func (versionMapper) MapPointKey(key sstable.InternalKey, _ []byte) (sstable.BlockInterval, error) {
	cf, _, ts, versioned, err := DecodeKey(key.UserKey)
	if err != nil || cf != CFWrite || !versioned {
		return sstable.BlockInterval{}, nil // Pebble's own checks are for keys that are none
	}
	return sstable.BlockInterval{Lower: ts, Upper: max(ts, ts+1)}, nil
}

func (versionMapper) MapRangeKeys(sstable.Span) (sstable.BlockInterval, error) {
	return sstable.BlockInterval{}, nil
}

func versionsIn(low, high uint64) pebble.BlockPropertyFilter {
	return sstable.NewBlockIntervalFilter(versionProperty, low, max(high, high+1), nil)
}
