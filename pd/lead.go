package pd

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/cairndb/cairn/pd/cluster"
	"github.com/cairndb/cairn/pd/meta"
	"github.com/cairndb/cairn/pd/pdrpc"
	"github.com/cairndb/cairn/pd/safepoint"
	"github.com/cairndb/cairn/pd/schedule"
	"github.com/cairndb/cairn/proto/pdpb"
)

const (
	tsoKey = "tso"
	// tsoCheck is how often the window of timestamps is looked at. It is extended
	// when half of its 3 s is left, so this leaves a write more than a second.
	tsoCheck = 200 * time.Millisecond
	// writeTimeout bounds a durable write of the leader. A disk that takes longer
	// ends the leadership: another member may have a better one.
	writeTimeout = 2 * time.Second
	// flushEvery is how often changed regions are written.
	flushEvery = 500 * time.Millisecond
	// campaignAgain is the pause after a term that failed.
	campaignAgain = 100 * time.Millisecond
)

// run leads whenever it can, until Close.
func (s *Server) run() {
	defer s.wg.Done()
	for {
		term, err := s.meta.Campaign(s.ctx)
		if err != nil {
			return // closing
		}
		err = s.lead(term)
		if s.ctx.Err() == nil && !errors.Is(err, meta.ErrNotLeader) {
			s.meta.StepAside() // it could not write
		}
		term.Resign()
		if s.ctx.Err() != nil {
			return
		}
		s.opts.Logger.Warn("leadership ended", "err", err)
		select {
		case <-time.After(campaignAgain):
		case <-s.ctx.Done():
			return
		}
	}
}

// lead serves one term. It returns when the term is over, a durable write failed
// or the server closes; by then nothing is answered any more.
func (s *Server) lead(term *meta.Term) error {
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	began := time.Now()
	id, err := s.ensureClusterID(ctx, term)
	if err != nil {
		return err
	}
	model, err := cluster.Load(ctx, began, s.meta, term)
	if err != nil {
		return err
	}
	if err := model.InitPlacement(ctx, &pdpb.Placement{Replicas: s.opts.Replicas}); err != nil {
		return err
	}
	keeper, err := safepoint.Load(ctx, began, s.meta, term)
	if err != nil {
		return err
	}
	saved, err := s.savedLimit(ctx)
	if err != nil {
		return err
	}
	defer s.tso.Stop()
	if err := s.persist(ctx, term, s.tso.Start(s.wallMS(), saved)); err != nil {
		return err
	}
	extend := make(chan struct{}, 1)
	schedulers, known := model.Schedulers()
	if !known {
		schedulers = schedule.DefaultSchedulers()
	}
	leadership := &pdrpc.Leadership{
		ClusterID: id, Term: term, TSO: &s.tso, Cluster: model, SafePoint: keeper,
		Schedule: schedule.New(schedule.Options{
			Model: model, Schedulers: schedulers, Seed: uint64(began.UnixNano()), Metrics: s.scheduling, Logger: s.opts.Logger,
		}),
		Extend: func() {
			select {
			case extend <- struct{}{}:
			default:
			}
		},
	}
	s.handler.SetLeadership(leadership)
	defer s.handler.SetLeadership(nil)
	var tending sync.WaitGroup
	defer func() { cancel(); tending.Wait() }()
	tending.Go(func() { s.roster.tend(ctx) })
	tending.Go(func() { s.drive(ctx, leadership) })
	s.opts.Logger.Info("leading", "cluster", id, "regions", model.RegionCount(), "took", time.Since(began))
	s.markReady()
	return s.maintain(ctx, term, model, extend)
}

func (s *Server) markReady() {
	select {
	case <-s.ready:
	default:
		close(s.ready)
	}
}

// maintain keeps the window of timestamps open and regions written.
func (s *Server) maintain(ctx context.Context, term *meta.Term, model *cluster.Cluster, extend <-chan struct{}) error {
	check := time.NewTicker(tsoCheck)
	defer check.Stop()
	flush := time.NewTicker(flushEvery)
	defer flush.Stop()
	for {
		select {
		case <-ctx.Done():
			return s.flush(context.WithoutCancel(ctx), model)
		case <-term.Done():
			return meta.ErrNotLeader
		case <-flush.C:
			if err := s.flush(ctx, model); errors.Is(err, meta.ErrNotLeader) {
				return err
			}
			continue
		case <-check.C:
		case <-extend:
		}
		if limit := s.tso.Extend(s.wallMS()); limit != 0 {
			if err := s.persist(ctx, term, limit); err != nil {
				return err
			}
		}
	}
}

func (s *Server) flush(ctx context.Context, model *cluster.Cluster) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	err := model.Flush(ctx)
	if err != nil {
		s.opts.Logger.Warn("cannot write regions, will try again", "err", err)
	}
	return err
}

// persist makes a limit of timestamps durable and in force.
func (s *Server) persist(ctx context.Context, term *meta.Term, limit int64) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	began := time.Now()
	if err := term.Write(ctx, meta.Op{Key: tsoKey, Value: strconv.AppendInt(nil, limit, 10)}); err != nil {
		return fmt.Errorf("persist timestamp window: %w", err)
	}
	s.tso.Persisted(limit)
	s.metrics.windows.Observe(time.Since(began).Seconds())
	return nil
}

// wallMS is the clock that timestamps follow.
func (s *Server) wallMS() int64 {
	if s.opts.wallClock != nil {
		return s.opts.wallClock()
	}
	return time.Now().UnixMilli()
}

func (s *Server) savedLimit(ctx context.Context) (int64, error) {
	value, found, err := s.meta.Get(ctx, tsoKey)
	if err != nil || !found {
		return 0, err
	}
	limit, err := strconv.ParseInt(string(value), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("timestamp window: %w", err)
	}
	return limit, nil
}

func (s *Server) ensureClusterID(ctx context.Context, term *meta.Term) (uint64, error) {
	id, err := s.clusterID(ctx)
	if err != nil || id != 0 {
		return id, err
	}
	if id, err = newClusterID(); err != nil {
		return 0, err
	}
	return id, term.Write(ctx, meta.Op{Key: clusterIDKey, Value: strconv.AppendUint(nil, id, 10)})
}
