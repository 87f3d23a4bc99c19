package txncmd

import (
	"context"

	"github.com/cairndb/cairn/proto/kvpb"
)

func notYet() *kvpb.RegionError {
	return &kvpb.RegionError{Message: "command not built yet"}
}

// Get executes a Get command.
func (e *Executor) Get(ctx context.Context, req *kvpb.GetRequest) *kvpb.GetResponse {
	return &kvpb.GetResponse{RegionError: notYet()}
}

// BatchGet executes a BatchGet command.
func (e *Executor) BatchGet(ctx context.Context, req *kvpb.BatchGetRequest) *kvpb.BatchGetResponse {
	return &kvpb.BatchGetResponse{RegionError: notYet()}
}

// Scan executes a Scan command.
func (e *Executor) Scan(ctx context.Context, req *kvpb.ScanRequest) *kvpb.ScanResponse {
	return &kvpb.ScanResponse{RegionError: notYet()}
}

// Prewrite executes a Prewrite command.
func (e *Executor) Prewrite(ctx context.Context, req *kvpb.PrewriteRequest) *kvpb.PrewriteResponse {
	return &kvpb.PrewriteResponse{RegionError: notYet()}
}

// Commit executes a Commit command.
func (e *Executor) Commit(ctx context.Context, req *kvpb.CommitRequest) *kvpb.CommitResponse {
	return &kvpb.CommitResponse{RegionError: notYet()}
}

// BatchRollback executes a BatchRollback command.
func (e *Executor) BatchRollback(ctx context.Context, req *kvpb.BatchRollbackRequest) *kvpb.BatchRollbackResponse {
	return &kvpb.BatchRollbackResponse{RegionError: notYet()}
}

// CheckTxnStatus executes a CheckTxnStatus command.
func (e *Executor) CheckTxnStatus(ctx context.Context, req *kvpb.CheckTxnStatusRequest) *kvpb.CheckTxnStatusResponse {
	return &kvpb.CheckTxnStatusResponse{RegionError: notYet()}
}

// CheckSecondaryLocks executes a CheckSecondaryLocks command.
func (e *Executor) CheckSecondaryLocks(ctx context.Context, req *kvpb.CheckSecondaryLocksRequest) *kvpb.CheckSecondaryLocksResponse {
	return &kvpb.CheckSecondaryLocksResponse{RegionError: notYet()}
}

// ResolveLock executes a ResolveLock command.
func (e *Executor) ResolveLock(ctx context.Context, req *kvpb.ResolveLockRequest) *kvpb.ResolveLockResponse {
	return &kvpb.ResolveLockResponse{RegionError: notYet()}
}

// ScanLock executes a ScanLock command.
func (e *Executor) ScanLock(ctx context.Context, req *kvpb.ScanLockRequest) *kvpb.ScanLockResponse {
	return &kvpb.ScanLockResponse{RegionError: notYet()}
}

// TxnHeartBeat executes a TxnHeartBeat command.
func (e *Executor) TxnHeartBeat(ctx context.Context, req *kvpb.TxnHeartBeatRequest) *kvpb.TxnHeartBeatResponse {
	return &kvpb.TxnHeartBeatResponse{RegionError: notYet()}
}

