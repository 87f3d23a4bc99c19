// Package pdclient is the door to the placement driver: timestamps, the map of
// regions and stores, identifiers and the safe point.
//
// Dial speaks gRPC to a PD cluster and follows its leader. New has a PD in the same
// process: it calls that one while it leads, and follows the leader over gRPC while
// another does. Either way requests pass the same validation on the PD's side and
// return the same errors.
//
// # A change of leader
//
// When a request meets a PD that does not lead or does not answer, all members are
// asked at once who serves as leader, and each answers when that changes; nobody is
// asked again and again. Requests are repeated until their context or their budget
// ends, which is harmless for all of them: identifiers and timestamps that nobody
// got are wasted.
package pdclient

import (
	"context"
	"errors"
	"fmt"

	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/pdpb"
)

// Answers a caller can act on. An *Error matches the sentinel of its code, so
// errors.Is(err, ErrRegionNotFound) works on every path.
var (
	// ErrNotLeader: the PD asked does not lead. The gRPC client follows the
	// leader by itself and returns it only when the budget of the call is spent.
	ErrNotLeader = errors.New("pd: not leader")
	// ErrNotBootstrapped: the cluster has no first store and region yet.
	ErrNotBootstrapped = errors.New("pd: cluster not bootstrapped")
	// ErrAlreadyBootstrapped: another store was first.
	ErrAlreadyBootstrapped = errors.New("pd: cluster already bootstrapped")
	// ErrStoreTombstone: the store was removed from the cluster for good.
	ErrStoreTombstone = errors.New("pd: store is tombstone")
	// ErrRegionNotFound: no region is known there; a moment after a split or a
	// restart of PD this heals by the next heartbeat.
	ErrRegionNotFound = errors.New("pd: region not found")
	// ErrStoreNotFound: no store has this id.
	ErrStoreNotFound = errors.New("pd: store not found")
	// ErrStaleEpoch: the region described is older than the one PD knows.
	ErrStaleEpoch = errors.New("pd: stale region epoch")
	// ErrClusterMismatch: the PD belongs to another cluster. Never retried.
	ErrClusterMismatch = errors.New("pd: cluster id mismatch")
	// ErrInvalid: the request makes no sense; a bug of the caller.
	ErrInvalid = errors.New("pd: invalid request")
	// ErrNotReplicated: the cluster is young and its first region does not have its
	// replicas yet, so there are no timestamps. Asked again until the context ends.
	ErrNotReplicated = errors.New("pd: cluster not replicated yet")
	// ErrRefused: what was asked for cannot be done now; the message says why.
	ErrRefused = errors.New("pd: refused")
	// ErrClosed: the client was closed.
	ErrClosed = errors.New("pd: client closed")
)

// Error is a refusal by PD.
type Error struct {
	Code    pdpb.Error_Code
	Message string
}

func (e *Error) Error() string {
	if e.Message == "" {
		return fmt.Sprintf("pd: %s", e.Code)
	}
	return fmt.Sprintf("pd: %s: %s", e.Code, e.Message)
}

// Is makes an Error match the sentinel of its code.
func (e *Error) Is(target error) bool { return target != nil && sentinels[e.Code] == target }

var sentinels = map[pdpb.Error_Code]error{
	pdpb.Error_NOT_LEADER:           ErrNotLeader,
	pdpb.Error_NOT_BOOTSTRAPPED:     ErrNotBootstrapped,
	pdpb.Error_ALREADY_BOOTSTRAPPED: ErrAlreadyBootstrapped,
	pdpb.Error_STORE_TOMBSTONE:      ErrStoreTombstone,
	pdpb.Error_REGION_NOT_FOUND:     ErrRegionNotFound,
	pdpb.Error_STORE_NOT_FOUND:      ErrStoreNotFound,
	pdpb.Error_STALE_EPOCH:          ErrStaleEpoch,
	pdpb.Error_CLUSTER_MISMATCH:     ErrClusterMismatch,
	pdpb.Error_INVALID:              ErrInvalid,
	pdpb.Error_NOT_REPLICATED:       ErrNotReplicated,
	pdpb.Error_REFUSED:              ErrRefused,
}

// headerError turns the error of an answer's header into a Go error.
func headerError(h *pdpb.Header) error {
	e := h.GetError()
	if e == nil || e.Code == pdpb.Error_OK {
		return nil
	}
	return &Error{Code: e.Code, Message: e.Message}
}

// RegionInfo is a region with its leader as PD knows them.
type RegionInfo struct {
	Region *kvpb.Region
	Leader *kvpb.Peer // nil when unknown
}

// Client is what the rest of the system asks of PD. All methods may be called
// from many goroutines and honour the context; messages returned are shared and
// must not be modified. Region ranges are [start, end), an empty end is the end
// of the key space.
type Client interface {
	// TS returns a timestamp greater than every timestamp any client got before
	// the call began: physical milliseconds << 18 | logical.
	TS(ctx context.Context) (uint64, error)
	// TSAsync asks for a timestamp and does not wait for it. The timestamp is
	// allocated after the call began and before Wait returns.
	TSAsync(ctx context.Context) Future

	// GetRegion returns the region that contains key. The leader is nil when unknown.
	GetRegion(ctx context.Context, key []byte) (*kvpb.Region, *kvpb.Peer, error)
	// GetRegionBefore returns the region of the greatest key below key; an empty
	// key asks for the last region.
	GetRegionBefore(ctx context.Context, key []byte) (*kvpb.Region, *kvpb.Peer, error)
	GetRegionByID(ctx context.Context, id uint64) (*kvpb.Region, *kvpb.Peer, error)
	// ScanRegions returns the regions that intersect [start, end) in key order,
	// at most limit of them; limit 0 is the server's limit (1024).
	ScanRegions(ctx context.Context, start, end []byte, limit int) ([]RegionInfo, error)

	GetStore(ctx context.Context, id uint64) (*kvpb.Store, error)
	GetStores(ctx context.Context) ([]*kvpb.Store, error)
	// PutStore registers a store or updates its address, labels and version.
	PutStore(ctx context.Context, store *kvpb.Store) error
	// StoreHeartbeat reports a store, at least every few seconds: after 5 s of
	// silence nothing is moved to it any more.
	StoreHeartbeat(ctx context.Context, stats *pdpb.StoreStats) (*pdpb.StoreHeartbeatResponse, error)
	// OnRegionStep says who gets what PD wants of the regions reported through this
	// client. Called once, before the first report. fn is called from any goroutine,
	// perhaps from within RegionHeartbeat, and must not block. A step is delivered
	// again with each report until a report shows that it was done.
	OnRegionStep(fn func(*pdpb.RegionHeartbeatResponse))
	// RegionHeartbeat queues the report of a region's leader and returns. The
	// request belongs to the client from here on. A later report of the same
	// region may replace one still queued. Losing one is harmless: reports repeat.
	RegionHeartbeat(ctx context.Context, req *pdpb.RegionHeartbeatRequest) error

	// AllocIDs returns the first of n consecutive ids nobody else has or will get.
	AllocIDs(ctx context.Context, n int) (first uint64, err error)
	// AskSplit allocates the ids to split region into n new regions besides it.
	AskSplit(ctx context.Context, region *kvpb.Region, n int) ([]*pdpb.SplitID, error)
	IsBootstrapped(ctx context.Context) (bool, error)
	// Bootstrap records the first store and region; ErrAlreadyBootstrapped when
	// somebody was faster.
	Bootstrap(ctx context.Context, store *kvpb.Store, region *kvpb.Region) error

	SafePoints
	Admin
	Members

	// ClusterID identifies the cluster; never 0 once the client exists.
	ClusterID() uint64
	Close() error
}

// Future is a timestamp on its way. A value; copying it is fine.
type Future struct {
	ctx context.Context // of the request that waits; lives as long as the future
	req *tsRequest      // nil: resolved
	ts  uint64
	err error
}

// Resolved returns a future that is already there.
func Resolved(ts uint64, err error) Future { return Future{ts: ts, err: err} }
