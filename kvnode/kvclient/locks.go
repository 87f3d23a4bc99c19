package kvclient

import (
	"context"

	"google.golang.org/grpc"

	"github.com/cairndb/cairn/proto/replpb"
)

// Deadlocks asks a store for the last deadlocks that ended a wait there, oldest first.
func (c *Client) Deadlocks(ctx context.Context, store uint64) ([]*replpb.DeadlockRecord, error) {
	resp, err := askStore(ctx, c, store, StoreAdmin.Deadlocks, func(conn *grpc.ClientConn) (*replpb.DeadlocksResponse, error) {
		return replpb.NewStoreAdminClient(conn).Deadlocks(ctx, &replpb.DeadlocksRequest{})
	})
	return resp.GetDeadlocks(), err
}

// Locks asks a store for the locks of the regions it leads and for who waits there.
func (c *Client) Locks(ctx context.Context, store uint64, req *replpb.LocksRequest) (*replpb.LocksResponse, error) {
	return askStore(ctx, c, store, func(a StoreAdmin) *replpb.LocksResponse { return a.Locks(req) },
		func(conn *grpc.ClientConn) (*replpb.LocksResponse, error) {
			return replpb.NewStoreAdminClient(conn).Locks(ctx, req)
		})
}

// askStore asks a store in this process or elsewhere.
func askStore[R any](ctx context.Context, c *Client, id uint64, local func(StoreAdmin) R, remote func(*grpc.ClientConn) (R, error)) (resp R, err error) {
	s, err := c.store(id)
	if err != nil {
		return resp, err
	}
	if a, ok := s.handler().(StoreAdmin); ok {
		return local(a), nil
	}
	if s.down.Load() {
		return resp, &SendError{StoreID: id, Err: errDown}
	}
	conns, err := s.resolve(ctx)
	if err != nil {
		return resp, &SendError{StoreID: id, Err: err}
	}
	if resp, err = remote(conns[0].cc); err != nil {
		return resp, &SendError{StoreID: id, Err: err}
	}
	return resp, nil
}
