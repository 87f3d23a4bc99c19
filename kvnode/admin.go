package kvnode

import (
	"github.com/cairndb/cairn/kvnode/deadlock"
	"github.com/cairndb/cairn/kvnode/kvrpc"
	"github.com/cairndb/cairn/kvnode/store"
	"github.com/cairndb/cairn/kvnode/txncmd"
	"github.com/cairndb/cairn/proto/replpb"
)

// admin answers operators' questions about the node.
type admin struct {
	*store.Store
	deadlocks *deadlock.Detector
	exec      *txncmd.Executor
}

var _ kvrpc.Admin = admin{}

// Deadlocks lists the last deadlocks that ended a wait here, oldest first.
func (a admin) Deadlocks() *replpb.DeadlocksResponse {
	return &replpb.DeadlocksResponse{StoreId: a.ID(), Deadlocks: a.deadlocks.Deadlocks()}
}

// defaultLocks is how many locks are listed when nobody says.
const defaultLocks = 10_000

// Locks lists the locks of the regions led here, and who waits for locks here.
func (a admin) Locks(req *replpb.LocksRequest) *replpb.LocksResponse {
	resp := &replpb.LocksResponse{StoreId: a.ID(), Waits: a.exec.LockWaits()}
	if !req.GetOnlyWaits() {
		limit := int(req.GetLimit())
		if limit == 0 {
			limit = defaultLocks
		}
		resp.Locks, resp.More = a.HeldLocks(limit)
	}
	return resp
}
