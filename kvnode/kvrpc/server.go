// Package kvrpc serves the KV commands: to other processes over gRPC, and to this
// process by direct calls. Both ways run through Server.Execute, so validation,
// deadlines, the panic barrier and metrics are the same. It is the only place on
// the KV side that knows gRPC status.
package kvrpc

import (
	"context"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/cairndb/cairn/internal/rpc"
	"github.com/cairndb/cairn/proto/kvpb"
)

// Executor runs transaction commands (txncmd.Executor).
type Executor interface {
	Execute(ctx context.Context, req *kvpb.Request) *kvpb.Response
}

// Options of a Server.
type Options struct {
	Exec Executor // required
	// Split cuts a region (store.Store.SplitRegion); required for SplitRegion.
	Split func(ctx context.Context, req *kvpb.SplitRegionRequest) *kvpb.SplitRegionResponse
	// Admin answers for the store; required for what operators ask.
	Admin Admin
	// MaxConcurrent limits the requests of one stream executed at the same time;
	// the next ones wait unread, which slows the sender down. 0 = 1024.
	MaxConcurrent int
	Logger        *slog.Logger          // nil = discard
	Registerer    prometheus.Registerer // nil = not registered
}

// Server executes requests of this process (it is a kvclient.Handler) and, once
// registered on a gRPC server, of others. Safe for concurrent use.
type Server struct {
	opts    Options
	metrics *metrics
	workers *workers

	closeOnce sync.Once
}

// New returns a server. Close it after the gRPC server that it is registered on
// has stopped.
func New(opts Options) *Server {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.MaxConcurrent == 0 {
		opts.MaxConcurrent = 1024
	}
	return &Server{
		opts:    opts,
		metrics: newMetrics(opts.Registerer),
		workers: newWorkers(),
	}
}

// Register adds the KV service to a gRPC server.
func (s *Server) Register(g *grpc.Server) { kvpb.RegisterKVServer(g, service{s: s}) }

// Close stops the idle workers. Every stream has ended by then, because the gRPC
// server waits for its handlers.
func (s *Server) Close() error {
	s.closeOnce.Do(s.workers.close)
	return nil
}

// Execute runs one request. A request whose time is up is refused unexecuted. A
// panic in the executor is logged and answered as undetermined: what it did
// before is not known. req is only read and not kept.
func (s *Server) Execute(ctx context.Context, req *kvpb.Request) (resp *kvpb.Response) {
	kind := commandOf(req)
	m := &s.metrics.requests[kind]
	defer func() {
		if p := recover(); p != nil {
			s.opts.Logger.Error("panic in kv command", "command", commandNames[kind], "panic", p, "stack", string(debug.Stack()))
			m.panics.Inc()
			resp = regionErrorResponse(kind, &kvpb.RegionError{
				Message: "internal error",
				Kind:    &kvpb.RegionError_Undetermined{Undetermined: &kvpb.Undetermined{Reason: "internal error"}},
			})
		}
	}()
	if ctx.Err() != nil {
		m.expired.Inc()
		return regionErrorResponse(kind, &kvpb.RegionError{Kind: &kvpb.RegionError_DeadlineExceeded{DeadlineExceeded: &kvpb.DeadlineExceeded{}}})
	}
	if reason := unsupported(kind); reason != "" {
		m.unsupported.Inc()
		return &kvpb.Response{Unsupported: reason}
	}
	if !timed[kind] {
		m.executed.Inc()
		return s.opts.Exec.Execute(ctx, req)
	}
	start := time.Now()
	resp = s.opts.Exec.Execute(ctx, req)
	m.executed.Inc()
	m.seconds.Observe(time.Since(start).Seconds())
	return resp
}

// executeRemote runs a request that came over the wire, bounded by the time its
// sender gave it, counted from its arrival.
func (s *Server) executeRemote(ctx context.Context, arrived time.Time, req *kvpb.Request) *kvpb.Response {
	ms := contextOf(req).GetTimeoutMs()
	if ms == 0 {
		return s.Execute(ctx, req)
	}
	d := rpc.WithDeadline(ctx, arrived.Add(time.Duration(ms)*time.Millisecond))
	defer d.Release()
	return s.Execute(d, req)
}

// SplitRegion cuts a region; see kvpb.SplitRegionRequest.
func (s *Server) SplitRegion(ctx context.Context, req *kvpb.SplitRegionRequest) *kvpb.SplitRegionResponse {
	if ctx.Err() != nil {
		return &kvpb.SplitRegionResponse{RegionError: &kvpb.RegionError{
			Kind: &kvpb.RegionError_DeadlineExceeded{DeadlineExceeded: &kvpb.DeadlineExceeded{}}}}
	}
	s.metrics.splits.Inc()
	return s.opts.Split(ctx, req)
}
