package ctl

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cairndb/cairn/internal/keys"
	"github.com/cairndb/cairn/proto/pdpb"
)

// Operator is what is printed of an operator as JSON: a change of one region,
// in steps.
type Operator struct {
	ID        uint64   `json:"id"`
	Region    uint64   `json:"region"`
	Kind      string   `json:"kind"`
	Reason    string   `json:"reason"`
	Steps     []string `json:"steps"`
	Done      uint32   `json:"steps_done"`
	State     string   `json:"state"` // running, succeeded, cancelled, timeout, replaced
	Result    string   `json:"result"`
	CreatedMS int64    `json:"created_unix_ms"`
	RunningMS uint64   `json:"running_ms"`
	Creator   string   `json:"creator"`
}

func operatorOf(d *pdpb.OperatorDescription) Operator {
	return Operator{
		ID: d.GetId(), Region: d.GetRegionId(), Kind: d.GetKind(), Reason: d.GetReason(), Steps: append([]string{}, d.GetSteps()...), Done: d.GetStep(),
		State: d.GetState(), Result: d.GetResult(), CreatedMS: d.GetCreatedUnixMs(), RunningMS: d.GetRunningMs(), Creator: d.GetCreator(),
	}
}

// now is the step being done.
func (o Operator) now() string {
	if o.State != "running" || int(o.Done) >= len(o.Steps) {
		return o.Result
	}
	text := fmt.Sprintf("step %d of %d: %s", o.Done+1, len(o.Steps), o.Steps[o.Done])
	if o.Result != "" {
		text += "; " + o.Result
	}
	return text
}

func (o Operator) text() string {
	return fmt.Sprintf("%s by %s, %s for %s, %s\n%s", o.Kind, o.Creator, o.State, span(o.RunningMS), o.now(), o.Reason)
}

func (c *ctl) operatorsCommand() *cobra.Command {
	var region uint64
	var finished bool
	list := c.run(func(s *session, _ []string) error { return s.listOperators(region, finished) })
	flags := func(cmd *cobra.Command) *cobra.Command {
		cmd.Flags().Uint64Var(&region, "region", 0, "only of this region")
		cmd.Flags().BoolVar(&finished, "finished", false, "also those that ended not long ago")
		return cmd
	}
	cmd := flags(&cobra.Command{Use: "operators", Aliases: []string{"operator"}, Short: "Show the changes of regions that are under way, and cancel them", RunE: list})
	add := &cobra.Command{Use: "add", Short: "Start one: the same as the commands transfer-leader, add-peer, split and so on"}
	add.AddCommand(c.changeCommands()...)
	cmd.AddCommand(
		flags(&cobra.Command{Use: "list", Short: "List them", Args: cobra.NoArgs, RunE: list}),
		add,
		&cobra.Command{Use: "cancel REGION", Short: "End the operator of a region after its present step", Args: exactly("REGION"), RunE: c.run((*session).cancelOperator)},
	)
	return cmd
}

func (s *session) listOperators(region uint64, finished bool) error {
	ctx, cancel := s.request()
	defer cancel()
	found, err := s.pd.ListOperators(ctx, &pdpb.ListOperatorsRequest{RegionId: region, Finished: finished})
	if err != nil {
		return err
	}
	return s.showOperators(found, "Nothing is under way.")
}

func (s *session) showOperators(found []*pdpb.OperatorDescription, none string) error {
	list := []Operator{}
	t := newTable(none, "region>", "kind", "by", "state", "for>", "now", "why")
	for _, d := range found {
		o := operatorOf(d)
		list = append(list, o)
		t.row(o.Region, o.Kind, o.Creator, o.State, span(o.RunningMS), o.now(), o.Reason)
	}
	return s.show(list, t)
}

func (s *session) cancelOperator(args []string) error {
	n, err := id("region", args[0])
	if err != nil {
		return err
	}
	ctx, cancel := s.request()
	defer cancel()
	d, err := s.pd.CancelOperator(ctx, n)
	if err != nil {
		return err
	}
	if d == nil {
		return fmt.Errorf("region %d has no operator; 'cairn ctl operators' lists those that run", n)
	}
	return s.tell(operatorOf(d), "Cancelled: %s of region %d.", d.Kind, n)
}

// changeCommands are the commands that change regions.
func (c *ctl) changeCommands() []*cobra.Command {
	return []*cobra.Command{
		c.change("transfer-leader REGION STORE", "Let another replica of a region lead", 2, func(n []uint64) *pdpb.AddOperatorRequest {
			return &pdpb.AddOperatorRequest{What: &pdpb.AddOperatorRequest_TransferLeader{TransferLeader: &pdpb.TransferLeaderTo{StoreId: n[1]}}}
		}),
		c.addPeerCommand(),
		c.change("remove-peer REGION STORE", "Remove the replica of a region from a store", 2, func(n []uint64) *pdpb.AddOperatorRequest {
			return &pdpb.AddOperatorRequest{What: &pdpb.AddOperatorRequest_RemovePeer{RemovePeer: &pdpb.RemovePeerFrom{StoreId: n[1]}}}
		}),
		c.change("move-peer REGION FROM-STORE TO-STORE", "Move the replica of a region to another store", 3, func(n []uint64) *pdpb.AddOperatorRequest {
			return &pdpb.AddOperatorRequest{What: &pdpb.AddOperatorRequest_MovePeer{MovePeer: &pdpb.MovePeer{FromStoreId: n[1], ToStoreId: n[2]}}}
		}),
		c.splitCommand(),
		c.mergeCommand(),
		c.scatterCommand(),
	}
}

// change is a command whose arguments are a region and stores.
func (c *ctl) change(use, short string, n int, request func([]uint64) *pdpb.AddOperatorRequest) *cobra.Command {
	names := strings.Fields(use)[1:]
	return &cobra.Command{
		Use: use, Short: short, Args: exactly(names...),
		RunE: c.run(func(s *session, args []string) error {
			region, err := ids("region", args[:1])
			if err != nil {
				return err
			}
			list := region
			for _, arg := range args[1:n] {
				store, err := id("store", arg)
				if err != nil {
					return err
				}
				list = append(list, store)
			}
			req := request(list)
			req.RegionId = list[0]
			return s.addOperator(req)
		}),
	}
}

func (c *ctl) addPeerCommand() *cobra.Command {
	var learner bool
	cmd := c.change("add-peer REGION STORE", "Add a replica of a region on a store", 2, func(n []uint64) *pdpb.AddOperatorRequest {
		return &pdpb.AddOperatorRequest{What: &pdpb.AddOperatorRequest_AddPeer{AddPeer: &pdpb.AddPeerTo{StoreId: n[1], Learner: learner}}}
	})
	cmd.Flags().BoolVar(&learner, "learner", false, "one without a vote")
	return cmd
}

func (c *ctl) splitCommand() *cobra.Command {
	var at []string
	cmd := &cobra.Command{
		Use: "split REGION", Short: "Split a region in the middle, or at keys", Args: exactly("REGION"),
		RunE: c.run(func(s *session, args []string) error {
			n, err := id("region", args[0])
			if err != nil {
				return err
			}
			split := &pdpb.SplitAt{}
			for _, text := range at {
				key, err := keys.Parse(text)
				if err != nil {
					return fmt.Errorf("--keys %w", err)
				}
				split.Keys = append(split.Keys, key)
			}
			return s.addOperator(&pdpb.AddOperatorRequest{RegionId: n, What: &pdpb.AddOperatorRequest_Split{Split: split}})
		}),
	}
	cmd.Flags().StringSliceVar(&at, "keys", nil, "where to split, such as t42_r1000,t42_r2000")
	return cmd
}

func (c *ctl) mergeCommand() *cobra.Command {
	return &cobra.Command{
		Use: "merge REGION [TARGET]", Short: "Merge a region into a neighbour", Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 && len(args) != 2 {
				return fmt.Errorf("'%s' wants REGION, and TARGET if the neighbour matters", cmd.CommandPath())
			}
			return nil
		},
		RunE: c.run(func(s *session, args []string) error {
			list, err := ids("region", args)
			if err != nil {
				return err
			}
			merge := &pdpb.MergeInto{}
			if len(args) == 2 {
				if len(list) == 1 {
					return fmt.Errorf("region %d cannot be merged into itself", list[0])
				}
				merge.TargetRegionId = list[1]
			}
			return s.addOperator(&pdpb.AddOperatorRequest{RegionId: list[0], What: &pdpb.AddOperatorRequest_Merge{Merge: merge}})
		}),
	}
}

func (c *ctl) scatterCommand() *cobra.Command {
	var table int64
	var all bool
	cmd := &cobra.Command{
		Use: "scatter [REGION ...]", Short: "Spread regions over the stores", Args: cobra.ArbitraryArgs,
		RunE: c.run(func(s *session, args []string) error {
			list, err := ids("region", args)
			if err != nil {
				return err
			}
			what := &pdpb.Scatter{RegionIds: list}
			switch {
			case len(list) > 0 && (table != 0 || all), table != 0 && all:
				return fmt.Errorf("regions, --table and --all exclude each other")
			case table != 0:
				what.Range, what.Group = true, fmt.Sprintf("table-%d", table)
				what.StartKey, what.EndKey = keys.TablePrefix(table)
			case all:
				what.Range, what.Group = true, "all"
			case len(list) == 0:
				return fmt.Errorf("'cairn ctl scatter' wants regions, --table ID or --all")
			}
			return s.addOperator(&pdpb.AddOperatorRequest{What: &pdpb.AddOperatorRequest_Scatter{Scatter: what}})
		}),
	}
	cmd.Flags().Int64Var(&table, "table", 0, "the regions of the table with this id")
	cmd.Flags().BoolVar(&all, "all", false, "all regions")
	return cmd
}

func (s *session) addOperator(req *pdpb.AddOperatorRequest) error {
	ctx, cancel := s.request()
	defer cancel()
	resp, err := s.pd.AddOperator(ctx, req)
	if err != nil {
		return err
	}
	if err := s.showOperators(resp.Operators, "There is nothing to do."); err != nil || s.json {
		return err
	}
	for _, remark := range resp.Remarks {
		fmt.Fprintln(s.out, remark)
	}
	return nil
}
