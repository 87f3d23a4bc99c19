// Package pdrpc answers PD's requests: Handler for callers in this process
// (pdclient.Direct), Register for others over gRPC. Both run the same methods, so
// cluster id, leadership and arguments are checked alike. It is the only place on
// PD's side that knows gRPC.
package pdrpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/cairndb/cairn/pd/cluster"
	"github.com/cairndb/cairn/pd/safepoint"
	"github.com/cairndb/cairn/pd/schedule"
	"github.com/cairndb/cairn/pd/tso"
	"github.com/cairndb/cairn/proto/pdpb"
)

// Term is leadership (meta.Term).
type Term interface {
	// ValidAt reports whether leadership is sure at now.
	ValidAt(now time.Time) bool
}

// Leadership is what a leading PD answers from. Immutable.
type Leadership struct {
	ClusterID uint64
	Term      Term
	TSO       *tso.Allocator
	Cluster   *cluster.Cluster
	Schedule  *schedule.Coordinator
	SafePoint *safepoint.Keeper
	// Extend asks the driver of TSO for a new window at once; does not block.
	Extend func()
}

// Options of a Handler.
type Options struct {
	Members Members // required
	Roster  Roster  // required where it may lead
	// WallClock tells the time that timestamps follow, in Unix milliseconds; nil =
	// the system's. Only tests replace it.
	WallClock func() int64

	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Handler answers requests; it implements pdclient.Handler. Safe for concurrent use.
type Handler struct {
	members   Members
	roster    Roster
	wall      func() int64 // nil = the system's
	logger    *slog.Logger
	metrics   *metrics
	clusterID atomic.Uint64
	lead      atomic.Pointer[Leadership]
	ways      ways
	begun     struct {
		sync.Mutex
		serving chan struct{} // closed and renewed when this PD begins to lead
	}
}

// New returns a handler that does not lead.
func New(opts Options) *Handler {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	h := &Handler{members: opts.Members, roster: opts.Roster, wall: opts.WallClock, logger: opts.Logger, metrics: newMetrics(opts.Registerer)}
	h.begun.serving = make(chan struct{})
	return h
}

// SetLeadership begins or, with nil, ends answering as leader.
func (h *Handler) SetLeadership(l *Leadership) {
	if l != nil {
		h.clusterID.Store(l.ClusterID)
	}
	h.lead.Store(l)
	if l != nil {
		h.announce()
	}
}

// SetClusterID makes the cluster id known on a PD that follows.
func (h *Handler) SetClusterID(id uint64) { h.clusterID.Store(id) }

// ClusterID is 0 while it is not known.
func (h *Handler) ClusterID() uint64 { return h.clusterID.Load() }

// exhaustedWait bounds the wait for the next window of timestamps.
const exhaustedWait = 3 * time.Second

// Timestamp allocates count timestamps (last-count, last].
func (h *Handler) Timestamp(ctx context.Context, clusterID uint64, count uint32) (last uint64, refused *pdpb.Error) {
	var deadline time.Time
	for {
		l := h.lead.Load()
		if l == nil {
			return 0, notLeader
		}
		if clusterID != 0 && clusterID != l.ClusterID {
			return 0, mismatch(clusterID, l.ClusterID)
		}
		now := time.Now()
		if !l.Term.ValidAt(now) {
			return 0, notLeader
		}
		if !l.Cluster.Replicated() {
			return 0, &pdpb.Error{Code: pdpb.Error_NOT_REPLICATED, Message: l.Schedule.Missing(now)}
		}
		ms := now.UnixMilli()
		if h.wall != nil {
			ms = h.wall()
		}
		last, err := l.TSO.Alloc(ms, count)
		if err == nil {
			// Leadership lasted while allocating: no later leader can have begun.
			if !l.Term.ValidAt(time.Now()) {
				return 0, notLeader
			}
			h.metrics.timestamps.Add(float64(count))
			return last, nil
		}
		if !errors.Is(err, tso.ErrExhausted) {
			return 0, refusal(err)
		}
		if deadline.IsZero() {
			deadline = now.Add(exhaustedWait)
		}
		if ctx.Err() != nil || now.After(deadline) {
			return 0, &pdpb.Error{Code: pdpb.Error_NOT_LEADER, Message: err.Error()}
		}
		l.Extend()
		h.metrics.exhausted.Inc()
		pause(ctx, time.Millisecond)
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

var notLeader = &pdpb.Error{Code: pdpb.Error_NOT_LEADER} // shared, read-only

func mismatch(got, want uint64) *pdpb.Error {
	return &pdpb.Error{Code: pdpb.Error_CLUSTER_MISMATCH, Message: fmt.Sprintf("request for cluster %d, this is cluster %d", got, want)}
}

// refusals maps what a caller can act on to its code. Everything else, such as a
// write that timed out, becomes NOT_LEADER: ask again, perhaps somebody else.
var refusals = []struct {
	err  error
	code pdpb.Error_Code
}{
	{cluster.ErrNotBootstrapped, pdpb.Error_NOT_BOOTSTRAPPED},
	{cluster.ErrAlreadyBootstrapped, pdpb.Error_ALREADY_BOOTSTRAPPED},
	{cluster.ErrStoreTombstone, pdpb.Error_STORE_TOMBSTONE},
	{cluster.ErrStoreNotFound, pdpb.Error_STORE_NOT_FOUND},
	{cluster.ErrRegionNotFound, pdpb.Error_REGION_NOT_FOUND},
	{cluster.ErrStaleEpoch, pdpb.Error_STALE_EPOCH},
	{cluster.ErrInvalid, pdpb.Error_INVALID},
	{cluster.ErrRefused, pdpb.Error_REFUSED},
	{safepoint.ErrInvalid, pdpb.Error_INVALID},
	{safepoint.ErrPassed, pdpb.Error_REFUSED},
	{tso.ErrCount, pdpb.Error_INVALID},
	{ErrUnsafe, pdpb.Error_REFUSED},
}

func refusal(err error) *pdpb.Error {
	for _, r := range refusals {
		if errors.Is(err, r.err) {
			return &pdpb.Error{Code: r.code, Message: err.Error()}
		}
	}
	return &pdpb.Error{Code: pdpb.Error_NOT_LEADER, Message: err.Error()}
}

// begin checks that this PD leads and that the request is for its cluster.
func (h *Handler) begin(req *pdpb.Header) (*Leadership, *pdpb.Header) {
	l := h.lead.Load()
	if l == nil || !l.Term.ValidAt(time.Now()) {
		return nil, &pdpb.Header{ClusterId: h.ClusterID(), Error: notLeader}
	}
	if id := req.GetClusterId(); id != 0 && id != l.ClusterID {
		return nil, &pdpb.Header{ClusterId: l.ClusterID, Error: mismatch(id, l.ClusterID)}
	}
	return l, nil
}

// end makes the header of an answer.
func (l *Leadership) end(err error) *pdpb.Header {
	head := &pdpb.Header{ClusterId: l.ClusterID}
	if err != nil {
		head.Error = refusal(err)
	}
	return head
}
