package kvnode

import (
	"github.com/cairndb/cairn/kvnode/deadlock"
	"github.com/cairndb/cairn/kvnode/kvrpc"
	"github.com/cairndb/cairn/kvnode/store"
	"github.com/cairndb/cairn/proto/replpb"
)

// admin answers operators' questions about the node.
type admin struct {
	*store.Store
	deadlocks *deadlock.Detector
}

var _ kvrpc.Admin = admin{}

// Deadlocks lists the last deadlocks that ended a wait here, oldest first.
func (a admin) Deadlocks() *replpb.DeadlocksResponse {
	return &replpb.DeadlocksResponse{StoreId: a.ID(), Deadlocks: a.deadlocks.Deadlocks()}
}
