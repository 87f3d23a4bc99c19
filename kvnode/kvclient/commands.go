package kvclient

import (
	"time"

	"github.com/cairndb/cairn/proto/kvpb"
)

// operation numbers what the client does, for tables.
type operation int

const (
	opUnknown operation = iota
	opLocate
	opSplit
	opGet
	opBatchGet
	opScan
	opPrewrite
	opCommit
	opBatchRollback
	opPessimisticLock
	opPessimisticRollback
	opCheckTxnStatus
	opCheckSecondaryLocks
	opResolveLock
	opScanLock
	opTxnHeartBeat
	opDestroyRange
	opRawRead
	opRawWrite
	opCheckUnchanged
	opReadIndex
	operationCount
)

// operations: names for metrics and messages, the budget for waiting, and whether
// the command only reads.
var operations = [operationCount]struct {
	name   string
	budget time.Duration
	read   bool
}{
	opUnknown:             {"unknown", 0, true},
	opLocate:              {"locate", 20 * time.Second, true},
	opSplit:               {"split", 20 * time.Second, false},
	opGet:                 {"get", 20 * time.Second, true},
	opBatchGet:            {"batch_get", 20 * time.Second, true},
	opScan:                {"scan", 20 * time.Second, true},
	opPrewrite:            {"prewrite", 40 * time.Second, false},
	opCommit:              {"commit", 40 * time.Second, false},
	opBatchRollback:       {"batch_rollback", 20 * time.Second, false},
	opPessimisticLock:     {"pessimistic_lock", 20 * time.Second, false},
	opPessimisticRollback: {"pessimistic_rollback", 20 * time.Second, false},
	opCheckTxnStatus:      {"check_txn_status", 20 * time.Second, false},
	opCheckSecondaryLocks: {"check_secondary_locks", 20 * time.Second, false},
	opResolveLock:         {"resolve_lock", 40 * time.Second, false},
	opScanLock:            {"scan_lock", 20 * time.Second, true},
	opTxnHeartBeat:        {"txn_heart_beat", 20 * time.Second, false},
	opDestroyRange:        {"destroy_range", 40 * time.Second, false},
	opRawRead:             {"raw_read", 20 * time.Second, true},
	opRawWrite:            {"raw_write", 20 * time.Second, false},
	opCheckUnchanged:      {"check_unchanged", 20 * time.Second, true},
	opReadIndex:           {"read_index", 20 * time.Second, true},
}

// once reports whether a request is not sent again when an attempt may have been executed,
// or may be later: two executions are not as good as one, nor is a late one.
func once(op operation) bool { return op == opRawWrite }

// decides reports whether the request can commit a transaction.
func decides(req *kvpb.Request) bool {
	switch c := req.GetCmd().(type) {
	case *kvpb.Request_Commit:
		return true
	case *kvpb.Request_Prewrite:
		return c.Prewrite.TryOnePc || c.Prewrite.UseAsyncCommit
	}
	return false
}

// open returns the kind of a request and its context, made if there was none.
func open(req *kvpb.Request) (operation, *kvpb.Context) {
	switch c := req.GetCmd().(type) {
	case *kvpb.Request_Get:
		return opGet, ensure(&c.Get.Context)
	case *kvpb.Request_BatchGet:
		return opBatchGet, ensure(&c.BatchGet.Context)
	case *kvpb.Request_Scan:
		return opScan, ensure(&c.Scan.Context)
	case *kvpb.Request_Prewrite:
		return opPrewrite, ensure(&c.Prewrite.Context)
	case *kvpb.Request_Commit:
		return opCommit, ensure(&c.Commit.Context)
	case *kvpb.Request_BatchRollback:
		return opBatchRollback, ensure(&c.BatchRollback.Context)
	case *kvpb.Request_PessimisticLock:
		return opPessimisticLock, ensure(&c.PessimisticLock.Context)
	case *kvpb.Request_PessimisticRollback:
		return opPessimisticRollback, ensure(&c.PessimisticRollback.Context)
	case *kvpb.Request_CheckTxnStatus:
		return opCheckTxnStatus, ensure(&c.CheckTxnStatus.Context)
	case *kvpb.Request_CheckSecondaryLocks:
		return opCheckSecondaryLocks, ensure(&c.CheckSecondaryLocks.Context)
	case *kvpb.Request_ResolveLock:
		return opResolveLock, ensure(&c.ResolveLock.Context)
	case *kvpb.Request_ScanLock:
		return opScanLock, ensure(&c.ScanLock.Context)
	case *kvpb.Request_TxnHeartBeat:
		return opTxnHeartBeat, ensure(&c.TxnHeartBeat.Context)
	case *kvpb.Request_DestroyRange:
		return opDestroyRange, ensure(&c.DestroyRange.Context)
	case *kvpb.Request_Raw:
		switch c.Raw.GetOp().(type) {
		case *kvpb.RawRequest_Get, *kvpb.RawRequest_Scan:
			return opRawRead, ensure(&c.Raw.Context)
		}
		return opRawWrite, ensure(&c.Raw.Context)
	case *kvpb.Request_CheckUnchanged:
		return opCheckUnchanged, ensure(&c.CheckUnchanged.Context)
	case *kvpb.Request_ReadIndex:
		return opReadIndex, ensure(&c.ReadIndex.Context)
	}
	return opUnknown, nil
}

func ensure(p **kvpb.Context) *kvpb.Context {
	if *p == nil {
		*p = new(kvpb.Context)
	}
	return *p
}

// regionErrorOf returns the region error of a response. ok is false when the
// response is not one for the operation.
func regionErrorOf(op operation, resp *kvpb.Response) (e *kvpb.RegionError, ok bool) {
	switch c := resp.GetCmd().(type) {
	case *kvpb.Response_Get:
		return c.Get.GetRegionError(), op == opGet
	case *kvpb.Response_BatchGet:
		return c.BatchGet.GetRegionError(), op == opBatchGet
	case *kvpb.Response_Scan:
		return c.Scan.GetRegionError(), op == opScan
	case *kvpb.Response_Prewrite:
		return c.Prewrite.GetRegionError(), op == opPrewrite
	case *kvpb.Response_Commit:
		return c.Commit.GetRegionError(), op == opCommit
	case *kvpb.Response_BatchRollback:
		return c.BatchRollback.GetRegionError(), op == opBatchRollback
	case *kvpb.Response_PessimisticLock:
		return c.PessimisticLock.GetRegionError(), op == opPessimisticLock
	case *kvpb.Response_PessimisticRollback:
		return c.PessimisticRollback.GetRegionError(), op == opPessimisticRollback
	case *kvpb.Response_CheckTxnStatus:
		return c.CheckTxnStatus.GetRegionError(), op == opCheckTxnStatus
	case *kvpb.Response_CheckSecondaryLocks:
		return c.CheckSecondaryLocks.GetRegionError(), op == opCheckSecondaryLocks
	case *kvpb.Response_ResolveLock:
		return c.ResolveLock.GetRegionError(), op == opResolveLock
	case *kvpb.Response_ScanLock:
		return c.ScanLock.GetRegionError(), op == opScanLock
	case *kvpb.Response_TxnHeartBeat:
		return c.TxnHeartBeat.GetRegionError(), op == opTxnHeartBeat
	case *kvpb.Response_DestroyRange:
		return c.DestroyRange.GetRegionError(), op == opDestroyRange
	case *kvpb.Response_Raw:
		return c.Raw.GetRegionError(), op == opRawRead || op == opRawWrite
	case *kvpb.Response_CheckUnchanged:
		return c.CheckUnchanged.GetRegionError(), op == opCheckUnchanged
	case *kvpb.Response_ReadIndex:
		return c.ReadIndex.GetRegionError(), op == opReadIndex
	}
	return nil, false
}
