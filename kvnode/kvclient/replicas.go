package kvclient

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"

	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/replpb"
)

// StoreAdmin answers what operators ask of a store in this process; a Handler may be one.
type StoreAdmin interface {
	Replicas(req *replpb.ReplicasRequest) *replpb.ReplicasResponse
	HashRegion(ctx context.Context, req *replpb.HashRegionRequest) *replpb.HashRegionResponse
	Deadlocks() *replpb.DeadlocksResponse
	Locks(req *replpb.LocksRequest) *replpb.LocksResponse
}

// ReplicasDifferError: two replicas of a region do not have the same data.
type ReplicasDifferError struct {
	RegionID     uint64
	StoreA       uint64
	StoreB       uint64
	KeysA, KeysB uint64
}

func (e *ReplicasDifferError) Error() string {
	return fmt.Sprintf("kvclient: replicas of region %d differ: store %d has %d keys, store %d has %d, or others",
		e.RegionID, e.StoreA, e.KeysA, e.StoreB, e.KeysB)
}

const (
	hashPoll  = 20 * time.Millisecond
	hashTries = 5 // for a region, while it is changed meanwhile
)

// errHashAgain: the region has changed, or somebody else has it hashed as well.
var errHashAgain = errors.New("kvclient: the region changed while its replicas were compared")

// CompareReplicas has all replicas of the regions that meet [start, end) hash their
// data at one point of the log, and compares them. It returns a *ReplicasDifferError
// for the first region whose replicas differ. Every store reads all data of those
// regions once. Bounded by ctx only.
func (c *Client) CompareReplicas(ctx context.Context, start, end []byte) error {
	for key := start; ; {
		var e *entry
		err := errHashAgain
		for try := 0; errors.Is(err, errHashAgain); try++ {
			if try == hashTries {
				return err
			}
			if try > 0 {
				c.cache.remove(e)
				if err := sleepFor(ctx, hashPoll<<try); err != nil {
					return err
				}
			}
			if e, err = c.entryAt(ctx, key); err == nil {
				err = c.compare(ctx, e)
			}
		}
		if err != nil {
			return err
		}
		if key = e.meta.GetEndKey(); len(key) == 0 || len(end) > 0 && string(key) >= string(end) {
			return nil
		}
	}
}

func sleepFor(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// compare compares the voters of one region.
func (c *Client) compare(ctx context.Context, e *entry) error {
	id, leader := e.meta.GetId(), e.route.Load().peer.GetStoreId()
	before, err := c.hashOf(ctx, leader, id)
	if err != nil {
		return err
	}
	if err := c.hashRegion(ctx, leader, id); err != nil {
		return err
	}
	own, err := c.awaitHash(ctx, leader, id, before.GetIndex()+1)
	if err != nil {
		return err
	}
	for _, p := range e.meta.GetPeers() {
		if p.GetStoreId() == leader || p.GetRole() != kvpb.PeerRole_PEER_ROLE_VOTER {
			continue
		}
		h, err := c.awaitHash(ctx, p.GetStoreId(), id, own.GetIndex())
		switch {
		case err != nil:
			return err
		case h.GetIndex() != own.GetIndex():
			return errHashAgain
		case h.GetSum() != own.GetSum() || h.GetKeys() != own.GetKeys():
			return &ReplicasDifferError{id, leader, p.GetStoreId(), own.GetKeys(), h.GetKeys()}
		}
	}
	return nil
}

// awaitHash waits for a replica's hash at index or later.
func (c *Client) awaitHash(ctx context.Context, store, region, index uint64) (*replpb.ReplicaHash, error) {
	for {
		h, err := c.hashOf(ctx, store, region)
		switch {
		case err != nil:
			return nil, err
		case h.GetIndex() >= index && h.GetError() != "":
			return nil, fmt.Errorf("kvclient: store %d: %s", store, h.GetError())
		case h.GetIndex() >= index:
			return h, nil
		}
		if err := sleepFor(ctx, hashPoll); err != nil {
			return nil, err
		}
	}
}

// hashOf is the last hash of a replica, nil when there was none yet.
func (c *Client) hashOf(ctx context.Context, id, region uint64) (*replpb.ReplicaHash, error) {
	req := &replpb.ReplicasRequest{RegionIds: []uint64{region}}
	resp, err := askStore(ctx, c, id, func(a StoreAdmin) *replpb.ReplicasResponse { return a.Replicas(req) },
		func(conn *grpc.ClientConn) (*replpb.ReplicasResponse, error) {
			return replpb.NewStoreAdminClient(conn).Replicas(ctx, req)
		})
	if err != nil {
		return nil, err
	}
	if len(resp.GetReplicas()) != 1 {
		return nil, errHashAgain
	}
	return resp.GetReplicas()[0].GetHash(), nil
}

// hashRegion begins the hashing of a region, whose leader is on a store.
func (c *Client) hashRegion(ctx context.Context, id, region uint64) error {
	req := &replpb.HashRegionRequest{RegionId: region}
	resp, err := askStore(ctx, c, id, func(a StoreAdmin) *replpb.HashRegionResponse { return a.HashRegion(ctx, req) },
		func(conn *grpc.ClientConn) (*replpb.HashRegionResponse, error) {
			return replpb.NewStoreAdminClient(conn).HashRegion(ctx, req)
		})
	if err != nil {
		return err
	}
	if resp.GetRegionError() != nil {
		return errHashAgain
	}
	return nil
}
