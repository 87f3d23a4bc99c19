package ctl

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cairndb/cairn/internal/keys"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/pdpb"
)

// Region is what is printed of a region as JSON.
type Region struct {
	ID       uint64    `json:"id"`
	Start    string    `json:"start"` // as keys.Text writes it; {} is the beginning
	End      string    `json:"end"`   // {} is the end
	StartHex string    `json:"start_hex"`
	EndHex   string    `json:"end_hex"`
	ConfVer  uint64    `json:"conf_ver"`
	Version  uint64    `json:"version"`
	Peers    []Peer    `json:"peers"`
	Leader   uint64    `json:"leader_store"` // 0 = unknown
	Term     uint64    `json:"term"`
	Bytes    uint64    `json:"bytes"`
	Keys     uint64    `json:"keys"`
	Rates    Rates     `json:"rates"`
	SilentMS uint64    `json:"silent_ms"`
	Operator *Operator `json:"operator,omitempty"`
	Reason   string    `json:"reason"`
	Problems []string  `json:"problems"`
}

// Peer is one replica.
type Peer struct {
	ID      uint64 `json:"id"`
	Store   uint64 `json:"store"`
	Role    string `json:"role"` // voter, learner, incoming_voter, demoting_voter
	Pending bool   `json:"pending,omitempty"`
	DownS   uint32 `json:"down_seconds,omitempty"`
}

func regionOf(d *pdpb.RegionDescription) Region {
	meta := d.GetRegion()
	r := Region{
		ID: meta.GetId(), Start: keys.Text(meta.GetStartKey()), End: keys.Text(meta.GetEndKey()),
		StartHex: hex.EncodeToString(meta.GetStartKey()), EndHex: hex.EncodeToString(meta.GetEndKey()),
		ConfVer: meta.GetEpoch().GetConfVer(), Version: meta.GetEpoch().GetVersion(),
		Leader: d.GetLeader().GetStoreId(), Term: d.GetTerm(), Bytes: d.GetApproximateBytes(), Keys: d.GetApproximateKeys(),
		Rates: ratesOf(d.GetRates()), SilentMS: d.GetSilentMs(), Reason: d.GetReason(), Problems: append([]string{}, d.GetProblems()...),
	}
	for _, p := range meta.GetPeers() {
		peer := Peer{ID: p.Id, Store: p.StoreId, Role: strings.ToLower(strings.TrimPrefix(p.Role.String(), "PEER_ROLE_"))}
		peer.Pending = slices.ContainsFunc(d.GetPendingPeers(), func(q *kvpb.Peer) bool { return q.Id == p.Id })
		for _, down := range d.GetDownPeers() {
			if down.GetPeer().GetId() == p.Id {
				peer.DownS = max(down.DownSeconds, 1)
			}
		}
		r.Peers = append(r.Peers, peer)
	}
	if d.GetOperator() != nil {
		r.Operator = new(operatorOf(d.GetOperator()))
	}
	return r
}

// peersText is the stores of the replicas: 1* leads, 2, 3L learns, 4! is down.
func (r Region) peersText() string {
	var list []string
	for _, p := range r.Peers {
		text := fmt.Sprint(p.Store)
		if p.Store == r.Leader {
			text += "*"
		}
		if p.Role != "voter" {
			text += strings.ToUpper(p.Role[:1])
		}
		if p.DownS > 0 {
			text += "!"
		} else if p.Pending {
			text += "?"
		}
		list = append(list, text)
	}
	return strings.Join(list, " ")
}

// bound is a boundary for people: nothing at the ends of the key space.
func bound(text string) string {
	if text == "{}" {
		return "-"
	}
	return text
}

// remark is what matters most about the region.
func (r Region) remark() string {
	if len(r.Problems) > 0 {
		return strings.Join(append(slices.Clone(r.Problems), r.Reason), "; ")
	}
	return r.Reason
}

// which chooses regions, by flags.
type which struct {
	store     uint64
	key       string
	table     int64
	unhealthy bool
	limit     int
}

func (w *which) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.SortFlags = false
	f.Uint64Var(&w.store, "store", 0, "only regions with a replica on this store")
	f.StringVar(&w.key, "key", "", "only the region that contains this key")
	f.Int64Var(&w.table, "table", 0, "only regions of the table with this id")
	f.BoolVar(&w.unhealthy, "unhealthy", false, "only regions that are not as they should be")
}

func (w *which) request() (*pdpb.DescribeRegionsRequest, error) {
	req := &pdpb.DescribeRegionsRequest{StoreId: w.store, Unhealthy: w.unhealthy}
	if w.key != "" && w.table != 0 {
		return nil, fmt.Errorf("--key and --table both choose a range; give one of them")
	}
	if w.key != "" {
		key, err := keys.Parse(w.key)
		if err != nil {
			return nil, fmt.Errorf("--key %w", err)
		}
		req.ByKey, req.Key = true, key
	}
	if w.table != 0 {
		req.StartKey, req.EndKey = keys.TablePrefix(w.table)
	}
	return req, nil
}

func (c *ctl) regionsCommand() *cobra.Command {
	var w which
	list := c.run(func(s *session, _ []string) error { return s.listRegions(&w) })
	cmd := &cobra.Command{
		Use: "regions", Aliases: []string{"region"}, Short: "Show the regions, and why they are or are not being moved", RunE: list,
		Long: `Regions lists the regions with the stores of their replicas: 1* leads, 2L is a
learner, 3? lags behind, 4! is down. The last column says what is being done with
the region, or why nothing is.`,
	}
	w.flags(cmd)
	cmd.Flags().IntVar(&w.limit, "limit", 100, "at most this many; 0 = all")
	sub := &cobra.Command{Use: "list", Short: "List the regions", Args: cobra.NoArgs, RunE: list}
	w.flags(sub)
	sub.Flags().IntVar(&w.limit, "limit", 100, "at most this many; 0 = all")
	cmd.AddCommand(sub,
		&cobra.Command{Use: "show REGION ...", Short: "Tell all about regions", Args: atLeast(1, "REGION ..."), RunE: c.run((*session).showRegions)},
		c.topCommand())
	return cmd
}

// pageSize is how many regions PD describes at once, at most.
const pageSize = 1024

// regions asks for the regions that w chooses, at most limit; 0 = all. more
// tells that there are more.
func (s *session) regions(w *which, limit int) (list []Region, more bool, err error) {
	req, err := w.request()
	if err != nil {
		return nil, false, err
	}
	for {
		req.Limit = pageSize
		if limit > 0 {
			req.Limit = uint32(min(pageSize, limit-len(list)+1))
		}
		ctx, cancel := s.request()
		page, err := s.pd.DescribeRegions(ctx, req)
		cancel()
		if err != nil {
			return nil, false, err
		}
		for _, d := range page {
			if limit > 0 && len(list) == limit {
				return list, true, nil
			}
			list = append(list, regionOf(d))
		}
		if req.ByKey || len(page) < int(req.Limit) {
			return list, false, nil
		}
		next := page[len(page)-1].GetRegion().GetEndKey()
		if len(next) == 0 {
			return list, false, nil
		}
		req = &pdpb.DescribeRegionsRequest{StoreId: w.store, Unhealthy: w.unhealthy, StartKey: next, EndKey: req.EndKey}
	}
}

func (s *session) listRegions(w *which) error {
	if w.limit < 0 {
		return fmt.Errorf("--limit %d is negative; 0 means all", w.limit)
	}
	list, more, err := s.regions(w, w.limit)
	if err != nil {
		return err
	}
	t := newTable("There are no such regions.", "id>", "start", "end", "stores", "size>", "keys>", "what, and why")
	for _, r := range list {
		t.row(r.ID, bound(r.Start), bound(r.End), r.peersText(), bytesText(r.Bytes), r.Keys, r.remark())
	}
	if list == nil {
		list = []Region{}
	}
	if err := s.show(list, t); err != nil || s.json || !more {
		return err
	}
	_, err = fmt.Fprintf(s.out, "There are more; --limit 0 shows all.\n")
	return err
}

func (s *session) showRegions(args []string) error {
	want, err := ids("region", args)
	if err != nil {
		return err
	}
	ctx, cancel := s.request()
	defer cancel()
	found, err := s.pd.DescribeRegions(ctx, &pdpb.DescribeRegionsRequest{RegionIds: want})
	if err != nil {
		return err
	}
	list := []Region{}
	for _, d := range found {
		list = append(list, regionOf(d))
	}
	for _, n := range want {
		if !slices.ContainsFunc(list, func(r Region) bool { return r.ID == n }) {
			return fmt.Errorf("there is no region %d; it may have been merged into a neighbour, see 'cairn ctl regions'", n)
		}
	}
	if s.json {
		return s.show(list, nil)
	}
	for i, r := range list {
		if i > 0 {
			fmt.Fprintln(s.out)
		}
		r.describe(s)
	}
	return nil
}

func (r Region) describe(s *session) {
	var peers []string
	for _, p := range r.Peers {
		text := fmt.Sprintf("store %d: %s, id %d", p.Store, strings.ReplaceAll(p.Role, "_", " "), p.ID)
		if p.Store == r.Leader {
			text += ", leads"
		}
		if p.Pending {
			text += ", lags behind"
		}
		if p.DownS > 0 {
			text += fmt.Sprintf(", down for %ds", p.DownS)
		}
		peers = append(peers, text)
	}
	pairs := []pair{
		{"region", r.ID},
		{"start", fmt.Sprintf("%s  %s", bound(r.Start), r.StartHex)},
		{"end", fmt.Sprintf("%s  %s", bound(r.End), r.EndHex)},
		{"replicas", strings.Join(peers, "\n")},
		{"epoch", fmt.Sprintf("conf_ver %d, version %d, term %d", r.ConfVer, r.Version, r.Term)},
		{"size", fmt.Sprintf("%s, %d keys", bytesText(r.Bytes), r.Keys)},
		{"written", byteRateText(r.Rates.WrittenBytes)}, {"read", byteRateText(r.Rates.ReadBytes)}, {"queries", rateText(r.Rates.Queries)},
		{"last report", span(r.SilentMS) + " ago"},
		{"problems", strings.Join(r.Problems, "\n")},
		{"why", r.Reason},
	}
	if r.Operator != nil {
		pairs = append(pairs, pair{"operator", r.Operator.text()})
	}
	describe(s.out, pairs...)
}

// orders are what `regions top` can sort by, greatest first.
var orders = map[string]func(Region) float64{
	"size":    func(r Region) float64 { return float64(r.Bytes) },
	"keys":    func(r Region) float64 { return float64(r.Keys) },
	"write":   func(r Region) float64 { return r.Rates.WrittenBytes },
	"read":    func(r Region) float64 { return r.Rates.ReadBytes },
	"queries": func(r Region) float64 { return r.Rates.Queries },
}

func (c *ctl) topCommand() *cobra.Command {
	var w which
	by, n := "size", 10
	cmd := &cobra.Command{
		Use: "top", Short: "List the largest or busiest regions", Args: cobra.NoArgs,
		RunE: c.run(func(s *session, _ []string) error {
			order, ok := orders[by]
			if !ok {
				return fmt.Errorf("--by %q is none of keys, queries, read, size, write", by)
			}
			all, _, err := s.regions(&w, 0)
			if err != nil {
				return err
			}
			slices.SortStableFunc(all, func(a, b Region) int { return cmp.Compare(order(b), order(a)) })
			all = all[:min(max(n, 0), len(all))]
			t := newTable("There are no such regions.", "id>", "start", "end", "stores", "size>", "keys>", "written>", "read>", "queries/s>")
			for _, r := range all {
				t.row(r.ID, bound(r.Start), bound(r.End), r.peersText(), bytesText(r.Bytes), r.Keys,
					byteRateText(r.Rates.WrittenBytes), byteRateText(r.Rates.ReadBytes), rateText(r.Rates.Queries))
			}
			if all == nil {
				all = []Region{}
			}
			return s.show(all, t)
		}),
	}
	w.flags(cmd)
	cmd.Flags().StringVar(&by, "by", by, "size, keys, write, read or queries")
	cmd.Flags().IntVarP(&n, "number", "n", n, "how many")
	return cmd
}
