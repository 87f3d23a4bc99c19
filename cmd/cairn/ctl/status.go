package ctl

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cairndb/cairn/proto/pdpb"
)

// Status is what is printed of the cluster as JSON.
type Status struct {
	Cluster   string         `json:"cluster"` // id; a text, for it does not fit a JSON number
	Stores    map[string]int `json:"stores"`  // by state
	Regions   uint32         `json:"regions"` // led by somebody
	Replicas  uint32         `json:"replicas"`
	Bytes     uint64         `json:"bytes"`
	Operators int            `json:"operators"`
	Unhealthy []Region       `json:"unhealthy"` // the first of them
	More      bool           `json:"more"`      // there are more unhealthy regions
}

// unhealthyShown is how many regions that need attention the status lists.
const unhealthyShown = 10

func (c *ctl) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Tell in a few lines how the cluster is", Args: cobra.NoArgs,
		RunE: c.run((*session).status),
	}
}

func (s *session) status(_ []string) error {
	ctx, cancel := s.request()
	defer cancel()
	stores, err := s.pd.DescribeStores(ctx)
	if err != nil {
		return err
	}
	operators, err := s.pd.ListOperators(ctx, &pdpb.ListOperatorsRequest{})
	if err != nil {
		return err
	}
	v := Status{Cluster: fmt.Sprint(s.pd.ClusterID()), Stores: map[string]int{}, Operators: len(operators), Unhealthy: []Region{}}
	for _, d := range stores {
		st := storeOf(d)
		v.Stores[st.State]++
		v.Regions += st.Leaders
		v.Replicas += st.Regions
		v.Bytes += st.RegionBytes
	}
	unhealthy, more, err := s.regions(&which{unhealthy: true}, unhealthyShown)
	if err != nil {
		return err
	}
	v.Unhealthy, v.More = append(v.Unhealthy, unhealthy...), more
	if s.json {
		return s.show(v, nil)
	}
	v.describe(s)
	return nil
}

func (v Status) describe(s *session) {
	var states []string
	for _, state := range []string{"up", "disconnected", "down", "offline", "tombstone"} {
		if n := v.Stores[state]; n > 0 {
			states = append(states, fmt.Sprintf("%d %s", n, state))
		}
	}
	describe(s.out,
		pair{"cluster", v.Cluster},
		pair{"stores", strings.Join(states, ", ")},
		pair{"regions", fmt.Sprintf("%d with a leader, %d replicas, %s", v.Regions, v.Replicas, bytesText(v.Bytes))},
		pair{"under way", counted(v.Operators, "operator")},
	)
	if len(v.Unhealthy) == 0 {
		fmt.Fprintln(s.out, "\nEvery region is as it should be.")
		return
	}
	fmt.Fprintln(s.out, "\nRegions that are not as they should be:")
	for _, r := range v.Unhealthy {
		fmt.Fprintf(s.out, "  region %d on %s: %s\n", r.ID, r.peersText(), r.remark())
	}
	if v.More {
		fmt.Fprintln(s.out, "  and more: 'cairn ctl regions --unhealthy'")
	}
}
