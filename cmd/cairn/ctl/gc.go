package ctl

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/cairndb/cairn/proto/pdpb"
)

// SafePoint is what is printed of the safe point as JSON.
type SafePoint struct {
	SafePoint uint64          `json:"safe_point"`
	BehindMS  uint64          `json:"behind_ms"`
	LifeMS    uint64          `json:"life_ms"`
	Allowed   uint64          `json:"allowed"`
	Reason    string          `json:"reason"`
	Holds     []SafePointHold `json:"holds"`
	Round     *SafePointRound `json:"round"`
	LastRound *SafePointRound `json:"last_round"`
}

// SafePointHold is who reads the past, or asked to.
type SafePointHold struct {
	Name    string `json:"name"`
	Service bool   `json:"by_name"`
	TS      uint64 `json:"ts"`
	What    string `json:"what"`
	LeftMS  uint64 `json:"left_ms"`
	Ignored bool   `json:"ignored"`
}

// SafePointRound is a round of settling old locks.
type SafePointRound struct {
	Node      string `json:"node"`
	Target    uint64 `json:"target"`
	RunningMS uint64 `json:"running_ms"`
	EndedMS   uint64 `json:"ended_ms_ago"`
	Trouble   string `json:"trouble"`
}

func safePointOf(d *pdpb.DescribeSafePointResponse) SafePoint {
	p := SafePoint{
		SafePoint: d.GetSafePoint(), LifeMS: d.GetLifeMs(), Allowed: d.GetAllowed(), Reason: d.GetReason(),
		BehindMS: behind(d.GetNow(), d.GetSafePoint()), Holds: []SafePointHold{}, Round: roundOf(d.GetRound()), LastRound: roundOf(d.GetLastRound()),
	}
	for _, h := range d.GetHolds() {
		p.Holds = append(p.Holds, SafePointHold{
			Name: h.GetName(), Service: h.GetService(), TS: h.GetTs(), What: h.GetWhat(), LeftMS: h.GetLeftMs(), Ignored: h.GetIgnored(),
		})
	}
	return p
}

func roundOf(r *pdpb.SafePointRound) *SafePointRound {
	if r == nil {
		return nil
	}
	return &SafePointRound{
		Node: r.GetHolder(), Target: r.GetTarget(), RunningMS: r.GetRunningMs(), EndedMS: r.GetEndedMs(), Trouble: r.GetTrouble(),
	}
}

// behind is how many milliseconds ts lies before now.
func behind(now, ts uint64) uint64 {
	if ts == 0 || ts > now {
		return 0
	}
	return now>>18 - ts>>18
}

func (c *ctl) gcCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "gc", Short: "Show how far back old versions are kept, and why; hold them",
		Long: `Versions that nobody sees who reads at or after the safe point are collected. It follows the
clock at the distance of the variable cairn_gc_life_time, and is held back by transactions
and by holds with a name.`,
		Args: cobra.NoArgs, RunE: c.run((*session).showGC),
	}
	var at uint64
	hold := &cobra.Command{
		Use: "hold NAME TIME", Short: "Keep versions from now on, or from --at on, for a time such as 2h; again to prolong it",
		Args: exactly("NAME", "TIME"),
		RunE: c.run(func(s *session, args []string) error {
			d, err := time.ParseDuration(args[1])
			if err != nil || d <= 0 {
				return fmt.Errorf("%q is not a time; write it as 90m or 2h", args[1])
			}
			ctx, cancel := s.request()
			defer cancel()
			ts, err := s.pd.HoldSafePoint(ctx, args[0], at, d)
			if err != nil {
				return err
			}
			return s.tell(map[string]any{"name": args[0], "ts": ts}, "Versions seen at %d (%s) or later are kept for %s.", ts, tsClock(ts), d)
		}),
	}
	hold.Flags().Uint64Var(&at, "at", 0, "a timestamp of the placement driver; 0 = the safe point as it is")
	cmd.AddCommand(hold, &cobra.Command{
		Use: "release NAME", Short: "End a hold", Args: exactly("NAME"),
		RunE: c.run(func(s *session, args []string) error {
			ctx, cancel := s.request()
			defer cancel()
			if _, err := s.pd.HoldSafePoint(ctx, args[0], 0, 0); err != nil {
				return err
			}
			return s.tell(map[string]string{"released": args[0]}, "%s holds nothing any more.", args[0])
		}),
	})
	return cmd
}

func (s *session) showGC(_ []string) error {
	ctx, cancel := s.request()
	defer cancel()
	d, err := s.pd.DescribeSafePoint(ctx)
	if err != nil {
		return err
	}
	p := safePointOf(d)
	if s.json {
		return s.show(p, nil)
	}
	if p.SafePoint == 0 {
		fmt.Fprintln(s.out, "Nothing was collected yet.")
	} else {
		fmt.Fprintf(s.out, "The safe point is %d: %s, %s ago.\n", p.SafePoint, tsClock(p.SafePoint), span(p.BehindMS))
	}
	fmt.Fprintf(s.out, "It may be raised to %s: %s.\n", tsClock(p.Allowed), p.Reason)
	switch {
	case p.Round != nil:
		fmt.Fprintf(s.out, "A round is on its way to %s since %s, by %s%s.\n", tsClock(p.Round.Target), span(p.Round.RunningMS), p.Round.Node, butFor(p.Round.Trouble))
	case p.LastRound != nil:
		fmt.Fprintf(s.out, "The last round, to %s, took %s and ended %s ago%s.\n",
			tsClock(p.LastRound.Target), span(p.LastRound.RunningMS), span(p.LastRound.EndedMS), butFor(p.LastRound.Trouble))
	}
	fmt.Fprintln(s.out)
	t := newTable("nobody reports", "WHO", "READS SINCE", "WHAT", "FORGOTTEN IN")
	for _, h := range p.Holds {
		since, what := "nothing", h.What
		if h.TS != 0 {
			since = tsClock(h.TS)
		}
		if h.Service {
			what = "a hold by name"
		}
		if h.Ignored {
			what += " (too old: not waited for)"
		}
		t.row(h.Name, since, what, span(h.LeftMS))
	}
	return s.show(nil, t)
}

func butFor(trouble string) string {
	if trouble == "" {
		return ""
	}
	return "; " + trouble
}

// tsClock is the moment of a timestamp, for people.
func tsClock(ts uint64) string {
	if ts == 0 {
		return "nothing"
	}
	return time.UnixMilli(int64(ts>>18)).UTC().Format(time.DateTime) + " UTC"
}
