package txn

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/cairndb/cairn/kvnode/kvclient"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/pdpb"
)

const (
	// reportInterval is how often a node tells PD what it reads, reportTTL how long PD
	// believes it, and reportTimeout how long one report may take.
	reportInterval = 5 * time.Second
	reportTTL      = 20 * time.Second
	reportTimeout  = 10 * time.Second
	// clockSlack is how much later a timestamp may be than the moment it was asked for.
	clockSlack = time.Second
)

// safePoints is what a Keeper asks of PD; pdclient.Client is one.
type safePoints interface {
	TS(ctx context.Context) (uint64, error)
	ReportReads(ctx context.Context, req *pdpb.ReportReadsRequest) (*pdpb.ReportReadsResponse, error)
	UpdateSafePoint(ctx context.Context, ts uint64, holder string) (uint64, error)
}

// KeeperOptions of KeepSafePoint. The zero value of a field means its default.
type KeeperOptions struct {
	PD safePoints // required
	// Name tells this node from all others. Required.
	Name string
	// Oldest returns the earliest timestamp that anybody on this node may still read at, 0
	// for none, and who that is, for people; see StartedBefore. Nil means that nobody ever reads.
	Oldest func(now uint64) (ts uint64, what string)
	// Life is how long versions are to live at least; 0 = no opinion. Nil means 0.
	Life func() time.Duration
	// Interval between reports. 0 means 5 s.
	Interval time.Duration
	Logger   *slog.Logger // nil = discard
}

// StartedBefore returns a timestamp not later than those that were asked for at the moment
// at. now is a fresh one.
func StartedBefore(now uint64, at time.Time) uint64 {
	return now - min(now, uint64((time.Since(at)+clockSlack).Milliseconds())<<18)
}

// KeepSafePoint does a node's part in forgetting the past, until ctx ends: it tells PD
// again and again how far back its transactions read, so that no version they need is
// collected, and, when PD gives it the round, settles what old transactions left behind
// and raises the safe point.
func (s *Store) KeepSafePoint(ctx context.Context, o KeeperOptions) {
	if o.Interval == 0 {
		o.Interval = reportInterval
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	k := &keeper{s: s, o: o}
	defer k.rounds.Wait()
	tick := time.NewTicker(o.Interval)
	defer tick.Stop()
	failing := false
	for {
		err := k.report(ctx)
		if err != nil && !failing && ctx.Err() == nil {
			o.Logger.Warn("cannot tell PD how far back transactions read, will try again", "err", err)
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// keeper is one KeepSafePoint.
type keeper struct {
	s      *Store
	o      KeeperOptions
	rounds sync.WaitGroup

	mu      sync.Mutex // protects the fields below
	round   uint64     // the target of the round under way, 0 = none
	trouble string     // of the round, or of the last one
}

func (k *keeper) report(ctx context.Context) error {
	rctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	req := &pdpb.ReportReadsRequest{Holder: k.o.Name, TtlMs: uint32(reportTTL.Milliseconds())}
	if k.o.Life != nil {
		req.LifeMs = uint64(k.o.Life().Milliseconds())
	}
	if k.o.Oldest != nil {
		now, err := k.o.PD.TS(rctx)
		if err != nil {
			return err
		}
		req.OldestTs, req.OldestWhat = k.o.Oldest(now)
	}
	k.mu.Lock()
	req.Round, req.Trouble = k.round, k.trouble
	k.mu.Unlock()
	resp, err := k.o.PD.ReportReads(rctx, req)
	if err != nil {
		return err
	}
	if target := resp.GetRound(); target != 0 && req.Round == 0 {
		k.mu.Lock()
		k.round, k.trouble = target, ""
		k.mu.Unlock()
		k.rounds.Go(func() { k.run(ctx, target) })
	}
	return nil
}

// run is one round.
func (k *keeper) run(ctx context.Context, target uint64) {
	began := time.Now()
	reached, settled, err := k.s.settleUpTo(ctx, target)
	var point uint64
	if err == nil {
		point, err = k.o.PD.UpdateSafePoint(ctx, reached, k.o.Name)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.round = 0
	switch {
	case err == nil && reached == target:
		k.o.Logger.Debug("the safe point was raised", "to", point, "settled", settled, "took", time.Since(began))
	case err == nil:
		k.trouble = fmt.Sprintf("a transaction that began at %s and still lives has locks", clockOf(reached+1))
	case ctx.Err() == nil:
		k.trouble = err.Error()
		k.o.Logger.Warn("the safe point cannot be raised, will try again", "target", target, "err", err)
	}
}

func clockOf(ts uint64) string { return time.UnixMilli(int64(ts >> 18)).UTC().Format(time.DateTime) }

// settleUpTo settles the locks of all transactions that began at or before target, in all
// regions, so that no record that they left is needed any more to know their fate. It
// returns how far it got: before the first transaction that still lives. A lock that
// says nothing about a commit, because nothing was written under it, is left alone.
//
// No such lock can come later: the question raises the regions' max_ts above target, so
// nothing commits at or below it any more, and from the safe point on they refuse writes of
// transactions that old.
func (s *Store) settleUpTo(ctx context.Context, target uint64) (reached uint64, settled int, err error) {
	reached = target
	err = s.eachLock(ctx, target, func(l *kvpb.LockInfo) (bool, error) {
		if unwritten(l) || l.GetStartTs() > reached {
			return false, nil
		}
		st, err := s.resolver.status(ctx, l, 0)
		if old := new(TooOldError); errors.As(err, &old) {
			return false, nil // it is settled
		}
		if err == nil && !st.alive {
			settled++
			err = s.resolver.settleAll(ctx, l, st)
		}
		if err != nil {
			return false, fmt.Errorf("lock of %d on %x: %w", l.GetStartTs(), l.GetKey(), err)
		}
		if st.alive {
			reached = l.GetStartTs() - 1
		}
		return !st.alive, nil
	})
	return reached, settled, err
}

// eachLock calls fn for the locks of transactions that began at or before maxTS, in all
// regions. fn says whether it has settled the lock: if that was one of a pipelined transaction
// all others of it in the region are settled too, and are not shown.
func (s *Store) eachLock(ctx context.Context, maxTS uint64, fn func(l *kvpb.LockInfo) (settled bool, err error)) error {
	bo := s.newBackoff(backoffRegion)
	start := []byte{}
	for {
		region, err := s.kv.Locate(ctx, start)
		if err != nil {
			return err
		}
		resp, err := s.kv.Send(ctx, region, &kvpb.Request{Cmd: &kvpb.Request_ScanLock{
			ScanLock: &kvpb.ScanLockRequest{MaxTs: maxTS, StartKey: start, EndKey: region.EndKey(), Limit: leftoverLocks},
		}})
		if errors.Is(err, kvclient.ErrRegionChanged) {
			if err := bo.wait(ctx); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		if ke := resp.GetScanLock().GetError(); ke != nil {
			return keyError(ke, maxTS)
		}
		locks := resp.GetScanLock().GetLocks()
		var last *kvpb.LockInfo // after which to ask again
		for i, l := range locks {
			settled, err := fn(l)
			if err != nil {
				return err
			}
			if settled && pipelined(l) || i == len(locks)-1 && len(locks) >= leftoverLocks {
				last = l
				break
			}
		}
		if last != nil {
			start = append(bytes.Clone(last.GetKey()), 0)
			continue
		}
		if start = region.EndKey(); len(start) == 0 {
			return nil
		}
	}
}
