package replica

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cairndb/cairn/kvnode/engine"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/replpb"
)

// Local keys of a region in engine.CFLocal: 'r', region id, kind.
const (
	localRegion = 'r'
	kindState   = 's'
	kindApplied = 'a'
	localKeyLen = 10
)

// ErrCorrupt reports local state that this package did not write.
var ErrCorrupt = errors.New("replica: corrupt local state")

func localKey(region uint64, kind byte) []byte {
	k := make([]byte, 0, localKeyLen)
	k = append(k, localRegion)
	k = binary.BigEndian.AppendUint64(k, region)
	return append(k, kind)
}

// SetState adds a region's state to b.
func SetState(b *engine.Batch, s *replpb.RegionState) error { return setRegionState(b, s) }

func setRegionState(b *engine.Batch, s *replpb.RegionState) error {
	v, err := s.MarshalVT()
	if err != nil {
		return fmt.Errorf("replica: encode region state: %w", err)
	}
	b.Set(engine.CFLocal, localKey(s.GetRegion().GetId(), kindState), v)
	return nil
}

// appendApplyState appends an encoded replpb.ApplyState.
func appendApplyState(dst []byte, index, term uint64) []byte {
	dst = binary.AppendUvarint(append(dst, 1<<3), index)
	return binary.AppendUvarint(append(dst, 2<<3), term)
}

// Bootstrap adds to b what makes region exist here with an empty state. The
// caller commits b durably before the region is opened.
func Bootstrap(b *engine.Batch, region *kvpb.Region) error {
	return bootstrap(b, &replpb.RegionState{Region: region})
}

func bootstrap(b *engine.Batch, s *replpb.RegionState) error {
	if err := setRegionState(b, s); err != nil {
		return err
	}
	b.Set(engine.CFLocal, localKey(s.GetRegion().GetId(), kindApplied), appendApplyState(nil, initialIndex, initialTerm))
	return nil
}

// LoadStates returns the states of all regions the database knows of, in order
// of id: of those that have a replica, and the tombstones of those that had one.
func LoadStates(db *engine.DB) (live, tombstones []*replpb.RegionState, err error) {
	it, err := db.NewIter(engine.IterOptions{CF: engine.CFLocal, Lower: []byte{localRegion}, Upper: []byte{localRegion + 1}})
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for ok := it.First(); ok; ok = it.Next() {
		k := it.Key()
		if len(k) != localKeyLen {
			return nil, nil, fmt.Errorf("%w: key %x", ErrCorrupt, k)
		}
		if k[localKeyLen-1] != kindState {
			continue
		}
		v, err := it.Value()
		if err != nil {
			return nil, nil, err
		}
		s := &replpb.RegionState{}
		if err := s.UnmarshalVT(v); err != nil {
			return nil, nil, fmt.Errorf("%w: region state: %w", ErrCorrupt, err)
		}
		if s.GetState() == replpb.ReplicaState_REPLICA_STATE_TOMBSTONE {
			tombstones = append(tombstones, s)
		} else {
			live = append(live, s)
		}
	}
	return live, tombstones, it.Err()
}

// LoadState returns the state of a region, nil if the database does not know it.
func LoadState(db *engine.DB, region uint64) (*replpb.RegionState, error) {
	v, found, err := db.Get(engine.CFLocal, localKey(region, kindState))
	if err != nil || !found {
		return nil, err
	}
	s := &replpb.RegionState{}
	if err := s.UnmarshalVT(v); err != nil {
		return nil, fmt.Errorf("%w: state of region %d: %w", ErrCorrupt, region, err)
	}
	return s, nil
}

func loadApplyState(db *engine.DB, region uint64) (index, term uint64, err error) {
	v, found, err := db.Get(engine.CFLocal, localKey(region, kindApplied))
	if err != nil {
		return 0, 0, err
	}
	var s replpb.ApplyState
	if !found {
		return 0, 0, fmt.Errorf("%w: region %d has no apply state", ErrCorrupt, region)
	}
	if err := s.UnmarshalVT(v); err != nil {
		return 0, 0, fmt.Errorf("%w: apply state of region %d: %w", ErrCorrupt, region, err)
	}
	return s.GetAppliedIndex(), s.GetAppliedTerm(), nil
}

// Discard adds to b what undoes Bootstrap, for a region that never lived.
func Discard(b *engine.Batch, region uint64) {
	b.Delete(engine.CFLocal, localKey(region, kindState))
	b.Delete(engine.CFLocal, localKey(region, kindApplied))
}
