package kvrpc

import "github.com/cairndb/cairn/proto/kvpb"

// command numbers the kinds of requests, for tables.
type command int

const (
	cmdUnknown command = iota
	cmdGet
	cmdBatchGet
	cmdScan
	cmdPrewrite
	cmdCommit
	cmdBatchRollback
	cmdPessimisticLock
	cmdPessimisticRollback
	cmdCheckTxnStatus
	cmdCheckSecondaryLocks
	cmdResolveLock
	cmdScanLock
	cmdTxnHeartBeat
	cmdDestroyRange
	cmdRaw
	cmdCheckUnchanged
	cmdReadIndex
	commandCount
)

// commandNames are metric labels and log words.
var commandNames = [commandCount]string{
	"unknown", "get", "batch_get", "scan", "prewrite", "commit", "batch_rollback",
	"pessimistic_lock", "pessimistic_rollback", "check_txn_status",
	"check_secondary_locks", "resolve_lock", "scan_lock", "txn_heart_beat",
	"destroy_range", "raw", "check_unchanged", "read_index",
}

// timed marks the commands whose duration is measured. Point reads are not: two
// clock reads and a histogram would be a tenth of their cost.
var timed = [commandCount]bool{
	cmdBatchGet: true, cmdScan: true, cmdPrewrite: true, cmdCommit: true, cmdBatchRollback: true,
	cmdCheckTxnStatus: true, cmdCheckSecondaryLocks: true, cmdResolveLock: true, cmdScanLock: true,
	cmdTxnHeartBeat: true, cmdDestroyRange: true, cmdRaw: true, cmdCheckUnchanged: true, cmdPessimisticLock: true, cmdPessimisticRollback: true,
	cmdReadIndex: true,
}

// unsupported says why this server does not execute a kind of command; empty = it does.
func unsupported(c command) string {
	if c == cmdUnknown {
		return "unknown command"
	}
	return ""
}

func commandOf(req *kvpb.Request) command {
	switch req.Cmd.(type) {
	case *kvpb.Request_Get:
		return cmdGet
	case *kvpb.Request_BatchGet:
		return cmdBatchGet
	case *kvpb.Request_Scan:
		return cmdScan
	case *kvpb.Request_Prewrite:
		return cmdPrewrite
	case *kvpb.Request_Commit:
		return cmdCommit
	case *kvpb.Request_BatchRollback:
		return cmdBatchRollback
	case *kvpb.Request_PessimisticLock:
		return cmdPessimisticLock
	case *kvpb.Request_PessimisticRollback:
		return cmdPessimisticRollback
	case *kvpb.Request_CheckTxnStatus:
		return cmdCheckTxnStatus
	case *kvpb.Request_CheckSecondaryLocks:
		return cmdCheckSecondaryLocks
	case *kvpb.Request_ResolveLock:
		return cmdResolveLock
	case *kvpb.Request_ScanLock:
		return cmdScanLock
	case *kvpb.Request_TxnHeartBeat:
		return cmdTxnHeartBeat
	case *kvpb.Request_DestroyRange:
		return cmdDestroyRange
	case *kvpb.Request_Raw:
		return cmdRaw
	case *kvpb.Request_CheckUnchanged:
		return cmdCheckUnchanged
	case *kvpb.Request_ReadIndex:
		return cmdReadIndex
	}
	return cmdUnknown
}

// contextOf returns the routing context of a request, nil when it has none.
func contextOf(req *kvpb.Request) *kvpb.Context {
	switch c := req.Cmd.(type) {
	case *kvpb.Request_Get:
		return c.Get.GetContext()
	case *kvpb.Request_BatchGet:
		return c.BatchGet.GetContext()
	case *kvpb.Request_Scan:
		return c.Scan.GetContext()
	case *kvpb.Request_Prewrite:
		return c.Prewrite.GetContext()
	case *kvpb.Request_Commit:
		return c.Commit.GetContext()
	case *kvpb.Request_BatchRollback:
		return c.BatchRollback.GetContext()
	case *kvpb.Request_PessimisticLock:
		return c.PessimisticLock.GetContext()
	case *kvpb.Request_PessimisticRollback:
		return c.PessimisticRollback.GetContext()
	case *kvpb.Request_CheckTxnStatus:
		return c.CheckTxnStatus.GetContext()
	case *kvpb.Request_CheckSecondaryLocks:
		return c.CheckSecondaryLocks.GetContext()
	case *kvpb.Request_ResolveLock:
		return c.ResolveLock.GetContext()
	case *kvpb.Request_ScanLock:
		return c.ScanLock.GetContext()
	case *kvpb.Request_TxnHeartBeat:
		return c.TxnHeartBeat.GetContext()
	case *kvpb.Request_DestroyRange:
		return c.DestroyRange.GetContext()
	case *kvpb.Request_Raw:
		return c.Raw.GetContext()
	case *kvpb.Request_CheckUnchanged:
		return c.CheckUnchanged.GetContext()
	case *kvpb.Request_ReadIndex:
		return c.ReadIndex.GetContext()
	}
	return nil
}

// regionErrorResponse wraps a region error in the response type of a command.
func regionErrorResponse(c command, e *kvpb.RegionError) *kvpb.Response {
	switch c {
	case cmdGet:
		return &kvpb.Response{Cmd: &kvpb.Response_Get{Get: &kvpb.GetResponse{RegionError: e}}}
	case cmdBatchGet:
		return &kvpb.Response{Cmd: &kvpb.Response_BatchGet{BatchGet: &kvpb.BatchGetResponse{RegionError: e}}}
	case cmdScan:
		return &kvpb.Response{Cmd: &kvpb.Response_Scan{Scan: &kvpb.ScanResponse{RegionError: e}}}
	case cmdPrewrite:
		return &kvpb.Response{Cmd: &kvpb.Response_Prewrite{Prewrite: &kvpb.PrewriteResponse{RegionError: e}}}
	case cmdCommit:
		return &kvpb.Response{Cmd: &kvpb.Response_Commit{Commit: &kvpb.CommitResponse{RegionError: e}}}
	case cmdBatchRollback:
		return &kvpb.Response{Cmd: &kvpb.Response_BatchRollback{BatchRollback: &kvpb.BatchRollbackResponse{RegionError: e}}}
	case cmdPessimisticLock:
		return &kvpb.Response{Cmd: &kvpb.Response_PessimisticLock{PessimisticLock: &kvpb.PessimisticLockResponse{RegionError: e}}}
	case cmdPessimisticRollback:
		return &kvpb.Response{Cmd: &kvpb.Response_PessimisticRollback{PessimisticRollback: &kvpb.PessimisticRollbackResponse{RegionError: e}}}
	case cmdCheckTxnStatus:
		return &kvpb.Response{Cmd: &kvpb.Response_CheckTxnStatus{CheckTxnStatus: &kvpb.CheckTxnStatusResponse{RegionError: e}}}
	case cmdCheckSecondaryLocks:
		return &kvpb.Response{Cmd: &kvpb.Response_CheckSecondaryLocks{CheckSecondaryLocks: &kvpb.CheckSecondaryLocksResponse{RegionError: e}}}
	case cmdResolveLock:
		return &kvpb.Response{Cmd: &kvpb.Response_ResolveLock{ResolveLock: &kvpb.ResolveLockResponse{RegionError: e}}}
	case cmdScanLock:
		return &kvpb.Response{Cmd: &kvpb.Response_ScanLock{ScanLock: &kvpb.ScanLockResponse{RegionError: e}}}
	case cmdTxnHeartBeat:
		return &kvpb.Response{Cmd: &kvpb.Response_TxnHeartBeat{TxnHeartBeat: &kvpb.TxnHeartBeatResponse{RegionError: e}}}
	case cmdDestroyRange:
		return &kvpb.Response{Cmd: &kvpb.Response_DestroyRange{DestroyRange: &kvpb.DestroyRangeResponse{RegionError: e}}}
	case cmdRaw:
		return &kvpb.Response{Cmd: &kvpb.Response_Raw{Raw: &kvpb.RawResponse{RegionError: e}}}
	case cmdCheckUnchanged:
		return &kvpb.Response{Cmd: &kvpb.Response_CheckUnchanged{CheckUnchanged: &kvpb.CheckUnchangedResponse{RegionError: e}}}
	case cmdReadIndex:
		return &kvpb.Response{Cmd: &kvpb.Response_ReadIndex{ReadIndex: &kvpb.ReadIndexResponse{RegionError: e}}}
	}
	return &kvpb.Response{Unsupported: "unknown command"}
}
