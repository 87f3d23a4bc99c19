package txncmd

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/cairndb/cairn/proto/kvpb"
)

// Options of New. The zero value of a field means its default.
type Options struct {
	// Regions admits commands. Required.
	Regions Regions
	// TS returns a fresh timestamp of PD. It is called once per region and term,
	// before the first one-phase commit. Nil means no one-phase commits: such
	// requests are answered with locks, as the protocol allows.
	TS func(ctx context.Context) (uint64, error)
	// Detector is told who waits for whom. Nil means that deadlocks end when somebody
	// gives up waiting.
	Detector Detector
	// Locks says where pessimistic locks are kept; default LockInMemory.
	Locks LockMode
	// Logger receives corruption and invariant reports. Nil discards them.
	Logger *slog.Logger
	// Registerer receives the metrics. Nil means none.
	Registerer prometheus.Registerer
}

// LockMode says where exclusive pessimistic locks are kept when they are acknowledged.
// All modes are right: a lock that was lost is found out at prewrite.
type LockMode int

// The modes, from the fastest to the safest.
const (
	// LockInMemory keeps a lock with the region's leader only, where the region offers
	// that (Region.MemLocks); while it has no room locks are pipelined. A region without
	// has LockReplicated.
	LockInMemory LockMode = iota
	// LockPipelined answers while the lock is on its way through Raft.
	LockPipelined
	// LockReplicated answers when the lock is applied.
	LockReplicated
)

// maxEarly bounds the proposals whose command is answered already.
const maxEarly = 1024

// Executor executes transaction commands. There is one for all regions of a
// store. All methods are safe for concurrent use. Close it.
type Executor struct {
	regions Regions
	ts      func(ctx context.Context) (uint64, error)
	log     *slog.Logger
	metrics *metrics

	detector Detector // nil for none

	latches *latches
	pending *pendingTable
	waits   *waitTable

	lockMode   LockMode
	early      sync.WaitGroup // of commands answered before their effects are applied
	earlySlots chan struct{}  // bounds them
	// maxTS is at or above every timestamp read at through this Executor.
	maxTS  atomic.Uint64
	synced syncedTerms
}

// New returns an Executor.
func New(o Options) *Executor {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Executor{
		regions:  o.Regions,
		ts:       o.TS,
		log:      o.Logger,
		metrics:  newMetrics(o.Registerer),
		detector: o.Detector,
		latches:  newLatches(0),
		waits:    newWaitTable(),

		lockMode: o.Locks, earlySlots: make(chan struct{}, maxEarly),
		pending: newPendingTable(),
		synced:  syncedTerms{m: make(map[uint64]syncedTerm)},
	}
}

// Close waits for what is still under way of commands that were answered. No command
// is executed any more, and the regions answer proposals until it returns.
func (e *Executor) Close() error {
	e.early.Wait()
	return nil
}

// Execute runs the command inside req. A command this version does not know or
// execute is answered with Response.Unsupported.
func (e *Executor) Execute(ctx context.Context, req *kvpb.Request) *kvpb.Response {
	switch c := req.GetCmd().(type) {
	case *kvpb.Request_Get:
		return &kvpb.Response{Cmd: &kvpb.Response_Get{Get: e.Get(ctx, c.Get)}}
	case *kvpb.Request_BatchGet:
		return &kvpb.Response{Cmd: &kvpb.Response_BatchGet{BatchGet: e.BatchGet(ctx, c.BatchGet)}}
	case *kvpb.Request_Scan:
		return &kvpb.Response{Cmd: &kvpb.Response_Scan{Scan: e.Scan(ctx, c.Scan)}}
	case *kvpb.Request_ReadIndex:
		return &kvpb.Response{Cmd: &kvpb.Response_ReadIndex{ReadIndex: e.ReadIndex(ctx, c.ReadIndex)}}
	case *kvpb.Request_Prewrite:
		return &kvpb.Response{Cmd: &kvpb.Response_Prewrite{Prewrite: e.Prewrite(ctx, c.Prewrite)}}
	case *kvpb.Request_Commit:
		return &kvpb.Response{Cmd: &kvpb.Response_Commit{Commit: e.Commit(ctx, c.Commit)}}
	case *kvpb.Request_BatchRollback:
		return &kvpb.Response{Cmd: &kvpb.Response_BatchRollback{BatchRollback: e.BatchRollback(ctx, c.BatchRollback)}}
	case *kvpb.Request_CheckTxnStatus:
		return &kvpb.Response{Cmd: &kvpb.Response_CheckTxnStatus{CheckTxnStatus: e.CheckTxnStatus(ctx, c.CheckTxnStatus)}}
	case *kvpb.Request_CheckSecondaryLocks:
		return &kvpb.Response{Cmd: &kvpb.Response_CheckSecondaryLocks{CheckSecondaryLocks: e.CheckSecondaryLocks(ctx, c.CheckSecondaryLocks)}}
	case *kvpb.Request_ResolveLock:
		return &kvpb.Response{Cmd: &kvpb.Response_ResolveLock{ResolveLock: e.ResolveLock(ctx, c.ResolveLock)}}
	case *kvpb.Request_ScanLock:
		return &kvpb.Response{Cmd: &kvpb.Response_ScanLock{ScanLock: e.ScanLock(ctx, c.ScanLock)}}
	case *kvpb.Request_TxnHeartBeat:
		return &kvpb.Response{Cmd: &kvpb.Response_TxnHeartBeat{TxnHeartBeat: e.TxnHeartBeat(ctx, c.TxnHeartBeat)}}
	case *kvpb.Request_DestroyRange:
		return &kvpb.Response{Cmd: &kvpb.Response_DestroyRange{DestroyRange: e.DestroyRange(ctx, c.DestroyRange)}}
	case *kvpb.Request_PessimisticLock:
		return &kvpb.Response{Cmd: &kvpb.Response_PessimisticLock{PessimisticLock: e.PessimisticLock(ctx, c.PessimisticLock)}}
	case *kvpb.Request_PessimisticRollback:
		return &kvpb.Response{Cmd: &kvpb.Response_PessimisticRollback{PessimisticRollback: e.PessimisticRollback(ctx, c.PessimisticRollback)}}
	case *kvpb.Request_Raw:
		return &kvpb.Response{Cmd: &kvpb.Response_Raw{Raw: e.Raw(ctx, c.Raw)}}
	case *kvpb.Request_CheckUnchanged:
		return &kvpb.Response{Cmd: &kvpb.Response_CheckUnchanged{CheckUnchanged: e.CheckUnchanged(ctx, c.CheckUnchanged)}}
	default:
		return &kvpb.Response{Unsupported: "unknown command"}
	}
}

// MaxTS returns a timestamp at or above every one read at so far.
func (e *Executor) MaxTS() uint64 { return e.maxTS.Load() }

// raiseMaxTS records a read at ts. MaxTS ("newest") leaves it unchanged.
func (e *Executor) raiseMaxTS(ts uint64) {
	if ts == ^uint64(0) {
		return
	}
	for {
		cur := e.maxTS.Load()
		if cur >= ts || e.maxTS.CompareAndSwap(cur, ts) {
			return
		}
	}
}

// syncedTerms remembers for which leader terms max_ts covers what earlier
// leaders of the region may have served.
type syncedTerms struct {
	mu sync.RWMutex
	m  map[uint64]syncedTerm // by region id; protected by mu
}

type syncedTerm struct{ term, version uint64 }

// syncMaxTS makes one-phase commits safe in rg's term. It reports false when
// they are not possible now.
func (e *Executor) syncMaxTS(ctx context.Context, rg Region) bool {
	if e.ts == nil {
		return false
	}
	want := syncedTerm{rg.Term(), rg.Meta().GetEpoch().GetVersion()}
	id := rg.Meta().GetId()
	e.synced.mu.RLock()
	got := e.synced.m[id]
	e.synced.mu.RUnlock()
	if got == want {
		return true
	}
	ts, err := e.ts(ctx)
	if err != nil {
		e.log.Warn("one-phase commit disabled: no timestamp", "region", id, "err", err)
		return false
	}
	e.raiseMaxTS(ts)
	e.synced.mu.Lock()
	e.synced.m[id] = want
	e.synced.mu.Unlock()
	return true
}
