package kvrpc

import (
	"context"

	"google.golang.org/grpc"

	"github.com/cairndb/cairn/proto/replpb"
)

// Admin answers operators' questions about one store. HashRegion's
// context bounds how long it may take.
type Admin interface {
	Replicas(req *replpb.ReplicasRequest) *replpb.ReplicasResponse
	HashRegion(ctx context.Context, req *replpb.HashRegionRequest) *replpb.HashRegionResponse
	Deadlocks() *replpb.DeadlocksResponse
	Locks(req *replpb.LocksRequest) *replpb.LocksResponse
}

// RegisterAdmin adds the administration of a store to a gRPC server.
func RegisterAdmin(g *grpc.Server, a Admin) { replpb.RegisterStoreAdminServer(g, admin{a: a}) }

// Replicas and HashRegion are those of the store, for this process.
func (s *Server) Replicas(req *replpb.ReplicasRequest) *replpb.ReplicasResponse {
	return s.opts.Admin.Replicas(req)
}

// HashRegion: see Replicas.
func (s *Server) HashRegion(ctx context.Context, req *replpb.HashRegionRequest) *replpb.HashRegionResponse {
	return s.opts.Admin.HashRegion(ctx, req)
}

// Deadlocks: see Replicas.
func (s *Server) Deadlocks() *replpb.DeadlocksResponse { return s.opts.Admin.Deadlocks() }

// Locks: see Replicas.
func (s *Server) Locks(req *replpb.LocksRequest) *replpb.LocksResponse {
	return s.opts.Admin.Locks(req)
}

type admin struct {
	replpb.UnimplementedStoreAdminServer
	a Admin
}

func (s admin) Replicas(_ context.Context, req *replpb.ReplicasRequest) (*replpb.ReplicasResponse, error) {
	return s.a.Replicas(req), nil
}

func (s admin) HashRegion(ctx context.Context, req *replpb.HashRegionRequest) (*replpb.HashRegionResponse, error) {
	return s.a.HashRegion(ctx, req), nil
}

func (s admin) Deadlocks(context.Context, *replpb.DeadlocksRequest) (*replpb.DeadlocksResponse, error) {
	return s.a.Deadlocks(), nil
}

func (s admin) Locks(_ context.Context, req *replpb.LocksRequest) (*replpb.LocksResponse, error) {
	return s.a.Locks(req), nil
}
