package pd

import (
	"context"
	"time"

	"github.com/cairndb/cairn/pd/pdrpc"
)

const (
	// scheduleEvery is how often operators are looked after and schedulers may run.
	scheduleEvery = 100 * time.Millisecond
	// choresEvery is how often it is looked for changes that must be durable.
	choresEvery = 500 * time.Millisecond
	// someIDs are reserved for new peers when there were none.
	someIDs = 256
)

// drive schedules until ctx, a term of leadership, ends: it tells the coordinator
// the time, sends what it wants to be sent, and makes durable what it asks for. A
// write that fails is tried again; if leadership was lost, maintain notices.
func (s *Server) drive(ctx context.Context, l *pdrpc.Leadership) {
	defer s.scheduling.Reset()
	tick := time.NewTicker(scheduleEvery)
	defer tick.Stop()
	var chores time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := time.Now()
		if l.Schedule.Starved() {
			if err := l.Cluster.ReserveIDs(ctx, someIDs); err != nil && ctx.Err() == nil {
				s.opts.Logger.Warn("cannot reserve ids, will try again", "err", err)
			}
		}
		for _, step := range l.Schedule.Tick(now) {
			s.handler.PushStep(l, step)
		}
		if now.Sub(chores) >= choresEvery {
			chores = now
			s.doChores(ctx, l, now)
		}
	}
}

func (s *Server) doChores(ctx context.Context, l *pdrpc.Leadership, now time.Time) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	todo := l.Schedule.Chores(now)
	if todo.Replicated {
		if err := l.Cluster.MarkReplicated(ctx); err != nil {
			s.opts.Logger.Warn("cannot note that the cluster is replicated, will try again", "err", err)
		} else {
			s.opts.Logger.Info("the first region has its replicas: the cluster can be used")
		}
	}
	if err := l.SafePoint.Expire(ctx, now); err != nil {
		s.opts.Logger.Warn("cannot forget holds of the safe point, will try again", "err", err)
	}
	for _, id := range todo.Bury {
		if err := l.Cluster.Bury(ctx, id); err != nil {
			s.opts.Logger.Warn("cannot bury a drained store, will try again", "store", id, "err", err)
			continue
		}
		s.opts.Logger.Info("drained", "store", id)
	}
}
