package store

import (
	"context"
	"time"

	"github.com/cairndb/cairn/kvnode/replica"
	"github.com/cairndb/cairn/proto/kvpb"
)

// regionSizes say when a region is split, at maxBytes, and into how large pieces.
type regionSizes struct{ splitBytes, maxBytes uint64 }

// adoptSizes takes the sizes that PD wants, unless this store was told its own.
func (s *Store) adoptSizes(splitBytes, maxBytes uint64) {
	if s.o.RegionMaxBytes > 0 {
		splitBytes, maxBytes = s.o.RegionSplitBytes, s.o.RegionMaxBytes
	}
	if splitBytes > 0 && splitBytes <= maxBytes {
		s.sizes.Store(&regionSizes{splitBytes, maxBytes})
	}
}

// watchSizes cuts regions that have grown too large. A region is looked at when it
// has taken in a sixteenth of the size of a piece since the last time.
func (s *Store) watchSizes() {
	clock := time.NewTicker(s.o.SplitInterval)
	defer clock.Stop()
	seen := map[*replica.Replica]uint64{} // bytes written when last looked at
	sizes := s.sizes.Load()
	for {
		select {
		case <-s.stop:
			return
		case <-clock.C:
		}
		replicas := s.replicas()
		if now := s.sizes.Load(); len(seen) > 2*len(replicas)+64 || now.maxBytes < sizes.maxBytes {
			seen, sizes = map[*replica.Replica]uint64{}, now
		}
		for _, r := range replicas {
			v := r.View()
			written := r.WrittenBytes()
			at, known := seen[r]
			if !v.Leading() || known && written-at < s.sizes.Load().splitBytes/16 {
				continue
			}
			seen[r] = written
			s.checkSize(v)
		}
	}
}

// checkSize cuts a region if it is too large.
func (s *Store) checkSize(v *replica.View) {
	meta := v.Meta()
	size, err := s.engine.ApproximateBytes(meta.GetStartKey(), meta.GetEndKey())
	sizes := s.sizes.Load()
	if err != nil || size < sizes.maxBytes {
		return
	}
	ctx, cancel := context.WithTimeout(s.ctx, stepTimeout)
	defer cancel()
	keys, err := s.engine.SplitKeys(ctx, meta.GetStartKey(), meta.GetEndKey(), sizes.splitBytes)
	if err != nil {
		s.log.Warn("find where to split a region", "region", meta.GetId(), "err", err)
		return
	}
	if len(keys) == 0 {
		return
	}
	if refused := s.splitNow(ctx, v, keys[:min(len(keys), maxSplitKeys)]); refused != nil {
		s.log.Info("a large region is not split yet", "region", meta.GetId(), "bytes", size, "why", refused.GetMessage())
	}
}

// splitNow cuts a region led here at the given keys, or in the middle.
func (s *Store) splitNow(ctx context.Context, v *replica.View, keys [][]byte) *kvpb.RegionError {
	meta := v.Meta()
	if len(keys) == 0 {
		size, err := s.engine.ApproximateBytes(meta.GetStartKey(), meta.GetEndKey())
		if err == nil {
			keys, err = s.engine.SplitKeys(ctx, meta.GetStartKey(), meta.GetEndKey(), max(size/2, 1))
		}
		if err != nil {
			return busy(err.Error(), 100)
		}
		if len(keys) == 0 {
			return &kvpb.RegionError{Message: "there is no key to split at"}
		}
		keys = keys[:1]
	}
	keys, refused := splitKeys(meta, keys)
	if refused != nil || len(keys) == 0 {
		return refused
	}
	split, err := s.askSplit(ctx, meta, keys)
	if err != nil {
		return busy(err.Error(), 50)
	}
	return v.ProposeSplit(ctx, split)
}
