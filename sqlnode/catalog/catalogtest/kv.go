// Package catalogtest has a metadata store in memory for tests of packages that keep something in the catalog.
package catalogtest

import (
	"bytes"
	"context"
	"slices"
	"sync"

	"github.com/tidwall/btree"

	"github.com/cairndb/cairn/kvnode/kvclient/txn"
	"github.com/cairndb/cairn/sqlnode/catalog"
)

// KV is a catalog.KV in memory: snapshot reads, first committer wins. Safe for concurrent use.
type KV struct {
	mu   sync.Mutex
	ts   uint64
	data *btree.Map[string, version]
	// past are the states after each commit
	past []*tx

	// Clock, if set, gives the physical milliseconds of timestamps; else every transaction takes one.
	Clock func() int64
	// Fail, if set, is asked before every commit; its error is returned instead of committing.
	Fail func() error
}

type version struct {
	value []byte // nil = deleted
	ts    uint64
}

var _ catalog.KV = (*KV)(nil)

// New returns an empty store.
func New() *KV { return &KV{ts: 1 << 40, data: btree.NewMap[string, version](32)} }

// tx is a transaction: a copy of the whole tree and the keys written.
type tx struct {
	ts     uint64
	data   *btree.Map[string, version]
	writes map[string][]byte
}

// Begin starts a transaction.
func (s *KV) begin() *tx {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Clock != nil {
		s.ts = max(s.ts+1, uint64(s.Clock())<<18)
	} else {
		s.ts += 1 << 18 // one millisecond
	}
	return &tx{ts: s.ts, data: s.data.Copy(), writes: map[string][]byte{}}
}

// Update implements catalog.KV.
func (s *KV) Update(ctx context.Context, fn func(catalog.Tx) error) error {
	for {
		t := s.begin()
		if err := fn(t); err != nil {
			return err
		}
		if s.Fail != nil {
			if err := s.Fail(); err != nil {
				return err
			}
		}
		if s.commit(t) {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// View implements catalog.KV.
func (s *KV) View(_ context.Context, fn func(catalog.Tx) error) error { return fn(s.begin()) }

// ViewAt implements catalog.KV.
func (s *KV) ViewAt(_ context.Context, ts uint64, fn func(catalog.Tx) error) error {
	s.mu.Lock()
	at := &tx{ts: ts, data: btree.NewMap[string, version](32)}
	for _, p := range s.past {
		if p.ts <= ts {
			at.data = p.data
		}
	}
	s.mu.Unlock()
	return fn(at)
}

// Latest implements catalog.KV.
func (s *KV) Latest(ctx context.Context, key []byte) ([]byte, error) { return s.begin().Get(ctx, key) }

// DestroyRanges removes all data of the ranges, in all versions.
func (s *KV) DestroyRanges(_ context.Context, ranges []txn.KeyRange) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range ranges {
		var gone []string
		s.data.Ascend(string(r.Start), func(k string, _ version) bool {
			if k >= string(r.End) {
				return false
			}
			gone = append(gone, k)
			return true
		})
		for _, k := range gone {
			s.data.Delete(k)
		}
	}
	return nil
}

func (s *KV) commit(t *tx) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k := range t.writes {
		if v, ok := s.data.Get(k); ok && v.ts > t.ts {
			return false
		}
	}
	s.ts++
	for k, v := range t.writes {
		s.data.Set(k, version{value: v, ts: s.ts})
	}
	s.past = append(s.past, &tx{ts: s.ts, data: s.data.Copy()})
	return true
}

// TS implements catalog.Tx.
func (t *tx) TS() uint64 { return t.ts }

// Get implements catalog.Tx.
func (t *tx) Get(_ context.Context, key []byte) ([]byte, error) {
	if v, ok := t.writes[string(key)]; ok {
		return bytes.Clone(v), nil
	}
	v, _ := t.data.Get(string(key))
	return bytes.Clone(v.value), nil
}

// Scan implements catalog.Tx.
func (t *tx) Scan(_ context.Context, start, end []byte, o txn.ScanOptions, fn func(key, value []byte) error) error {
	all := map[string][]byte{}
	t.data.Ascend(string(start), func(k string, v version) bool {
		if end != nil && k >= string(end) {
			return false
		}
		all[k] = v.value
		return true
	})
	for k, v := range t.writes {
		if k >= string(start) && (end == nil || k < string(end)) {
			all[k] = v
		}
	}
	names := make([]string, 0, len(all))
	for k, v := range all {
		if v != nil {
			names = append(names, k)
		}
	}
	slices.Sort(names)
	if o.Reverse {
		slices.Reverse(names)
	}
	if o.Limit > 0 && len(names) > o.Limit {
		names = names[:o.Limit]
	}
	for _, k := range names {
		if err := fn([]byte(k), bytes.Clone(all[k])); err != nil {
			return err
		}
	}
	return nil
}

// Set implements catalog.Tx.
func (t *tx) Set(key, value []byte) error {
	t.writes[string(key)] = append([]byte{}, value...)
	return nil
}

// Delete implements catalog.Tx.
func (t *tx) Delete(key []byte) error {
	t.writes[string(key)] = nil
	return nil
}
