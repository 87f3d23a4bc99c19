package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cairndb/cairn/kvnode/engine"
	"github.com/cairndb/cairn/kvnode/replica"
	"github.com/cairndb/cairn/pd/pdclient"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/replpb"
)

// Local keys of the store in engine.CFLocal.
const (
	keyIdent    = "i" // replpb.StoreIdent
	keyPrepared = "b" // the first region, while PD has not confirmed it
)

// ErrForeignDirectory: the data directory belongs to another cluster.
var ErrForeignDirectory = errors.New("store: the data directory belongs to another cluster")

// join makes sure that the directory is a store of PD's cluster and that PD
// knows its address.
func (s *Store) join(ctx context.Context) error {
	ident, err := s.loadIdent()
	if err != nil {
		return err
	}
	cluster := s.o.PD.ClusterID()
	if ident == nil {
		if ident, err = s.newIdent(ctx, cluster); err != nil {
			return err
		}
	}
	if ident.GetClusterId() != cluster {
		return fmt.Errorf("%w: %s is of cluster %d, PD is of cluster %d", ErrForeignDirectory, s.o.Dir, ident.GetClusterId(), cluster)
	}
	s.meta = &kvpb.Store{
		Id: ident.GetStoreId(), Address: s.o.Address, Labels: s.o.Labels,
		Version: s.o.Version, StartTimeUnix: time.Now().Unix(),
	}
	if err := s.bootstrap(ctx); err != nil {
		return err
	}
	if err := s.o.PD.PutStore(ctx, s.meta); err != nil {
		return fmt.Errorf("store: register with PD: %w", err)
	}
	return nil
}

func (s *Store) loadIdent() (*replpb.StoreIdent, error) {
	v, found, err := s.engine.Get(engine.CFLocal, []byte(keyIdent))
	if err != nil || !found {
		return nil, err
	}
	var ident replpb.StoreIdent
	if err := ident.UnmarshalVT(v); err != nil {
		return nil, fmt.Errorf("store: identity of %s: %w", s.o.Dir, err)
	}
	return &ident, nil
}

// newIdent makes the directory a store.
func (s *Store) newIdent(ctx context.Context, cluster uint64) (*replpb.StoreIdent, error) {
	id, err := s.o.PD.AllocIDs(ctx, 1)
	if err != nil {
		return nil, fmt.Errorf("store: get an id from PD: %w", err)
	}
	ident := &replpb.StoreIdent{ClusterId: cluster, StoreId: id}
	v, err := ident.MarshalVT()
	if err != nil {
		return nil, fmt.Errorf("store: encode identity: %w", err)
	}
	err = s.commitLocal(func(b *engine.Batch) error {
		b.Set(engine.CFLocal, []byte(keyIdent), v)
		return nil
	})
	return ident, err
}

// commitLocal makes local changes durable.
func (s *Store) commitLocal(fill func(b *engine.Batch) error) error {
	b := s.engine.NewBatch()
	err := fill(b)
	if err == nil {
		err = s.engine.Commit(b, true)
	}
	return errors.Join(err, b.Close())
}

// bootstrap makes the cluster's first region if there is none:
//
//  1. The region is prepared here, durably, with a mark that PD has not confirmed it.
//  2. PD is told. It takes one store's word and refuses all others'.
//  3. The mark goes, or, if another store was first, the region.
//
// After a crash in between it goes on where it was.
func (s *Store) bootstrap(ctx context.Context) error {
	region, err := s.loadPrepared()
	if err != nil {
		return err
	}
	done, err := s.o.PD.IsBootstrapped(ctx)
	if err != nil {
		return fmt.Errorf("store: ask PD whether the cluster is bootstrapped: %w", err)
	}
	if done && region == nil {
		return nil
	}
	if region == nil {
		if region, err = s.prepareRegion(ctx); err != nil {
			return err
		}
	}
	if !done {
		err = s.o.PD.Bootstrap(ctx, s.meta, region)
		switch {
		case err == nil:
			return s.commitLocal(func(b *engine.Batch) error {
				b.Delete(engine.CFLocal, []byte(keyPrepared))
				return nil
			})
		case !errors.Is(err, pdclient.ErrAlreadyBootstrapped):
			return fmt.Errorf("store: bootstrap the cluster: %w", err)
		}
	}
	return s.settlePrepared(ctx, region)
}

func (s *Store) loadPrepared() (*kvpb.Region, error) {
	v, found, err := s.engine.Get(engine.CFLocal, []byte(keyPrepared))
	if err != nil || !found {
		return nil, err
	}
	var region kvpb.Region
	if err := region.UnmarshalVT(v); err != nil {
		return nil, fmt.Errorf("store: prepared region: %w", err)
	}
	return &region, nil
}

func (s *Store) prepareRegion(ctx context.Context) (*kvpb.Region, error) {
	first, err := s.o.PD.AllocIDs(ctx, 2)
	if err != nil {
		return nil, fmt.Errorf("store: get ids from PD: %w", err)
	}
	region := &kvpb.Region{
		Id: first, Epoch: &kvpb.RegionEpoch{ConfVer: 1, Version: 1},
		Peers: []*kvpb.Peer{{Id: first + 1, StoreId: s.meta.GetId()}},
	}
	v, err := region.MarshalVT()
	if err != nil {
		return nil, fmt.Errorf("store: encode region: %w", err)
	}
	return region, s.commitLocal(func(b *engine.Batch) error {
		b.Set(engine.CFLocal, []byte(keyPrepared), v)
		return replica.Bootstrap(b, region)
	})
}

// settlePrepared decides about a prepared region in a cluster that has a first
// region: it is ours if PD knows it, else another store was first.
func (s *Store) settlePrepared(ctx context.Context, region *kvpb.Region) error {
	_, _, err := s.o.PD.GetRegionByID(ctx, region.GetId())
	ours := err == nil
	if err != nil && !errors.Is(err, pdclient.ErrRegionNotFound) {
		return fmt.Errorf("store: ask PD for region %d: %w", region.GetId(), err)
	}
	return s.commitLocal(func(b *engine.Batch) error {
		b.Delete(engine.CFLocal, []byte(keyPrepared))
		if !ours {
			replica.Discard(b, region.GetId())
		}
		return nil
	})
}
