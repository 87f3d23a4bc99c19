package ctl

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cairndb/cairn/proto/pdpb"
)

// schedulers are those that can be added. evict-leader works on a store.
var schedulers = []string{
	"balance-leader", "balance-region", "follow-traffic", "hot-region", "evict-leader", "shuffle-leader", "shuffle-region", "random-merge",
}

// Scheduler is what is printed of a scheduler as JSON.
type Scheduler struct {
	Name      string   `json:"name"`
	Stores    []uint64 `json:"stores"`
	PausedMS  uint64   `json:"paused_ms"`
	Last      string   `json:"last"`
	LastMS    int64    `json:"last_unix_ms"`
	Runs      uint64   `json:"runs"`
	Operators uint64   `json:"operators"`
}

func schedulerOf(d *pdpb.SchedulerDescription) Scheduler {
	return Scheduler{
		Name: d.GetName(), Stores: append([]uint64{}, d.GetStoreIds()...), PausedMS: d.GetPausedMs(), Last: d.GetLast(), LastMS: d.GetLastUnixMs(),
		Runs: d.GetRuns(), Operators: d.GetOperators(),
	}
}

func (c *ctl) schedulersCommand() *cobra.Command {
	list := c.run((*session).listSchedulers)
	cmd := &cobra.Command{
		Use: "schedulers", Aliases: []string{"scheduler"}, Short: "Show, add, remove and pause what moves regions for balance", RunE: list,
		Long: `Schedulers move leaders and replicas between stores:
  balance-leader, balance-region, hot-region   on by default: even out count, size and load
  follow-traffic                               on by default: leaders go where their queries come from
  evict-leader --store N                       no leaders on a store, for maintenance
  shuffle-leader, shuffle-region, random-merge for tests: move and merge all the time`,
	}
	cmd.AddCommand(
		&cobra.Command{Use: "list", Short: "List them", Args: cobra.NoArgs, RunE: list},
		c.addSchedulerCommand(),
		&cobra.Command{
			Use: "remove NAME", Short: "Stop one for good", Args: exactly("NAME"),
			RunE: c.run(func(s *session, args []string) error {
				ctx, cancel := s.request()
				defer cancel()
				if err := s.pd.RemoveScheduler(ctx, args[0]); err != nil {
					return err
				}
				return s.tell(map[string]string{"removed": args[0]}, "%s is removed.", args[0])
			}),
		},
		&cobra.Command{
			Use: "pause NAME [TIME]", Short: "Stop one for a while: a name, all, or checkers (repair, split, merge); 10m unless told otherwise",
			Args: cobra.RangeArgs(1, 2), RunE: c.run((*session).pauseScheduler),
		},
		&cobra.Command{
			Use: "resume NAME", Short: "Let a paused one go on", Args: exactly("NAME"),
			RunE: c.run(func(s *session, args []string) error { return s.pause(args[0], 0) }),
		},
	)
	return cmd
}

func (s *session) listSchedulers(_ []string) error {
	ctx, cancel := s.request()
	defer cancel()
	found, err := s.pd.ListSchedulers(ctx)
	if err != nil {
		return err
	}
	list := []Scheduler{}
	t := newTable("There are no schedulers.", "name", "state", "stores", "operators>", "last", "said")
	for _, d := range found {
		v := schedulerOf(d)
		list = append(list, v)
		state := "on"
		if v.PausedMS > 0 {
			state = "paused for " + span(v.PausedMS)
		}
		t.row(v.Name, state, strings.Trim(fmt.Sprint(v.Stores), "[]"), v.Operators, clock(v.LastMS), v.Last)
	}
	return s.show(list, t)
}

func (c *ctl) addSchedulerCommand() *cobra.Command {
	var store uint64
	cmd := &cobra.Command{
		Use: "add NAME", Short: "Start one", Args: exactly("NAME"), ValidArgs: schedulers,
		RunE: c.run(func(s *session, args []string) error {
			name := args[0]
			switch {
			case !slices.Contains(schedulers, name):
				return fmt.Errorf("there is no scheduler %q; there are %s", name, strings.Join(schedulers, ", "))
			case name == "evict-leader" && store == 0:
				return fmt.Errorf("evict-leader works on a store; say which with --store")
			case name != "evict-leader" && store != 0:
				return fmt.Errorf("%s works on all stores; --store is for evict-leader", name)
			}
			ctx, cancel := s.request()
			defer cancel()
			added, err := s.pd.AddScheduler(ctx, name, store)
			if err != nil {
				return err
			}
			return s.tell(map[string]string{"added": added}, "%s runs; 'cairn ctl schedulers remove %s' ends it.", added, added)
		}),
	}
	cmd.Flags().Uint64Var(&store, "store", 0, "the store, for evict-leader")
	return cmd
}

func (s *session) pauseScheduler(args []string) error {
	d := 10 * time.Minute
	if len(args) == 2 {
		var err error
		if d, err = time.ParseDuration(args[1]); err != nil || d < time.Second {
			return fmt.Errorf("%q is not a time to pause; write it as 30s or 10m", args[1])
		}
	}
	return s.pause(args[0], d)
}

func (s *session) pause(name string, d time.Duration) error {
	ctx, cancel := s.request()
	defer cancel()
	if err := s.pd.PauseScheduler(ctx, name, d); err != nil {
		return err
	}
	if d == 0 {
		return s.tell(map[string]any{"name": name, "paused_seconds": 0}, "%s goes on.", name)
	}
	return s.tell(map[string]any{"name": name, "paused_seconds": int(d / time.Second)}, "%s is paused for %s.", name, d)
}
