package kvrpc

import (
	"context"

	"google.golang.org/grpc"

	"github.com/cairndb/cairn/proto/replpb"
)

// Admin answers operators' questions about one store (store.Store). HashRegion's
// context bounds how long it may take.
type Admin interface {
	Replicas(req *replpb.ReplicasRequest) *replpb.ReplicasResponse
	HashRegion(ctx context.Context, req *replpb.HashRegionRequest) *replpb.HashRegionResponse
}

// RegisterAdmin adds the administration of a store to a gRPC server.
func RegisterAdmin(g *grpc.Server, a Admin) { replpb.RegisterStoreAdminServer(g, admin{a: a}) }

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
