package ctl

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/pdpb"
)

// Store is what is printed of a store as JSON.
type Store struct {
	ID             uint64            `json:"id"`
	Address        string            `json:"address"`
	State          string            `json:"state"` // up, disconnected, down, offline, tombstone
	Labels         map[string]string `json:"labels"`
	Version        string            `json:"version"`
	Leaders        uint32            `json:"leaders"`
	Regions        uint32            `json:"regions"`
	Learners       uint32            `json:"learners"`
	Pending        uint32            `json:"pending"`
	RegionBytes    uint64            `json:"region_bytes"`
	CapacityBytes  uint64            `json:"capacity_bytes"`
	AvailableBytes uint64            `json:"available_bytes"`
	SilentMS       uint64            `json:"silent_ms"`
	Started        time.Time         `json:"started,omitzero"`
	Evicting       bool              `json:"evicting"` // gives its leaders away
	EvictReason    string            `json:"evict_reason,omitempty"`
	DiskFull       bool              `json:"disk_full"`
	Rates          Rates             `json:"rates"`
	Drain          *Drain            `json:"drain,omitempty"`
	Remarks        []string          `json:"remarks"`
}

// Rates are per second.
type Rates struct {
	WrittenBytes float64 `json:"written_bytes"`
	WrittenKeys  float64 `json:"written_keys"`
	ReadBytes    float64 `json:"read_bytes"`
	ReadKeys     float64 `json:"read_keys"`
	Queries      float64 `json:"queries"`
}

// Drain is how far a drain is.
type Drain struct {
	RegionsAtStart uint32 `json:"regions_at_start"`
	RegionsLeft    uint32 `json:"regions_left"`
	LeadersLeft    uint32 `json:"leaders_left"`
	BytesLeft      uint64 `json:"bytes_left"`
	RunningMS      uint64 `json:"running_ms"`
	ETAMS          int64  `json:"eta_ms"` // -1 = unknown
	WaitsFor       string `json:"waits_for,omitempty"`
}

func ratesOf(r *pdpb.Rates) Rates {
	return Rates{
		WrittenBytes: r.GetWrittenBytes(), WrittenKeys: r.GetWrittenKeys(),
		ReadBytes: r.GetReadBytes(), ReadKeys: r.GetReadKeys(), Queries: r.GetQueries(),
	}
}

func storeOf(d *pdpb.StoreDescription) Store {
	s := Store{
		ID: d.GetStore().GetId(), Address: d.GetStore().GetAddress(), Version: d.GetStore().GetVersion(),
		State:  strings.ToLower(strings.TrimPrefix(d.GetLiveness().String(), "LIVENESS_")),
		Labels: map[string]string{}, Leaders: d.GetLeaders(), Regions: d.GetRegions(), Learners: d.GetLearners(), Pending: d.GetPending(),
		RegionBytes: d.GetRegionBytes(), CapacityBytes: d.GetStats().GetCapacityBytes(), AvailableBytes: d.GetStats().GetAvailableBytes(),
		SilentMS: d.GetSilentMs(), Evicting: d.GetStats().GetEvictLeaders(), EvictReason: d.GetStats().GetEvictReason(),
		DiskFull: d.GetStats().GetDiskFull(), Rates: ratesOf(d.GetRates()), Remarks: append([]string{}, d.GetRemarks()...),
	}
	if at := d.GetStore().GetStartTimeUnix(); at != 0 {
		s.Started = time.Unix(at, 0)
	}
	for _, l := range d.GetStore().GetLabels() {
		s.Labels[l.Key] = l.Value
	}
	if p := d.GetDrain(); p != nil {
		s.Drain = &Drain{
			RegionsAtStart: p.RegionsAtStart, RegionsLeft: p.RegionsLeft, LeadersLeft: p.LeadersLeft, BytesLeft: p.BytesLeft,
			RunningMS: p.RunningMs, ETAMS: p.EtaMs, WaitsFor: p.WaitsFor,
		}
	}
	return s
}

// flags are the conditions of a store that an operator should know of.
func (s Store) flags() string {
	var list []string
	if s.Evicting {
		list = append(list, "gives leaders away")
	}
	if s.DiskFull {
		list = append(list, "disk full")
	}
	if s.Pending > 0 {
		list = append(list, fmt.Sprintf("%d pending", s.Pending))
	}
	if s.State != "up" && s.State != "tombstone" && s.SilentMS > 2000 {
		list = append(list, "silent for "+span(s.SilentMS))
	}
	if s.Drain != nil {
		list = append(list, s.Drain.text())
	}
	return strings.Join(list, ", ")
}

func (d *Drain) text() string {
	text := fmt.Sprintf("draining, %d of %d regions left", d.RegionsLeft, max(d.RegionsAtStart, d.RegionsLeft))
	if d.ETAMS > 0 {
		text += ", about " + span(uint64(d.ETAMS))
	}
	return text
}

func labelsText(labels map[string]string) string {
	var list []string
	for k, v := range labels {
		list = append(list, k+"="+v)
	}
	slices.Sort(list)
	return strings.Join(list, ",")
}

func (c *ctl) storesCommand() *cobra.Command {
	list := c.run(func(s *session, _ []string) error { return s.listStores() })
	cmd := &cobra.Command{Use: "stores", Aliases: []string{"store"}, Short: "Show and change the stores: the kv nodes", RunE: list}
	cmd.AddCommand(
		&cobra.Command{Use: "list", Short: "List the stores", Args: cobra.NoArgs, RunE: list},
		&cobra.Command{Use: "show STORE", Short: "Tell all about a store", Args: exactly("STORE"), RunE: c.run((*session).showStore)},
		c.drainCommand(),
		&cobra.Command{Use: "undrain STORE", Short: "Stop a drain; the store is used again", Args: exactly("STORE"), RunE: c.run((*session).undrain)},
		&cobra.Command{
			Use: "labels STORE KEY=VALUE ...", Short: "Set labels of a store; KEY= removes one", Args: atLeast(2, "STORE KEY=VALUE ..."),
			RunE: c.run((*session).setLabels),
		},
		&cobra.Command{
			Use: "remove-tombstones", Aliases: []string{"remove-tombstone"}, Short: "Forget the stores that were drained", Args: cobra.NoArgs,
			RunE: c.run((*session).removeTombstones),
		},
	)
	return cmd
}

func (s *session) listStores() error {
	ctx, cancel := s.request()
	defer cancel()
	list, err := s.pd.DescribeStores(ctx)
	if err != nil {
		return err
	}
	stores := []Store{}
	t := newTable("There are no stores yet.", "id>", "address", "state", "leaders>", "regions>", "size>", "free>", "written>", "queries/s>", "labels", "remarks")
	for _, d := range list {
		v := storeOf(d)
		stores = append(stores, v)
		t.row(v.ID, v.Address, v.State, v.Leaders, v.Regions, bytesText(v.RegionBytes), bytesText(v.AvailableBytes),
			byteRateText(v.Rates.WrittenBytes), rateText(v.Rates.Queries), labelsText(v.Labels), v.flags())
	}
	return s.show(stores, t)
}

// store asks for one store.
func (s *session) store(arg string) (Store, error) {
	n, err := id("store", arg)
	if err != nil {
		return Store{}, err
	}
	ctx, cancel := s.request()
	defer cancel()
	list, err := s.pd.DescribeStores(ctx, n)
	if err != nil {
		return Store{}, err
	}
	if len(list) != 1 {
		return Store{}, fmt.Errorf("there is no store %d; see 'cairn ctl stores'", n)
	}
	return storeOf(list[0]), nil
}

func (s *session) showStore(args []string) error {
	v, err := s.store(args[0])
	if err != nil {
		return err
	}
	if s.json {
		return s.show(v, nil)
	}
	pairs := []pair{
		{"store", v.ID}, {"address", v.Address}, {"state", v.State}, {"version", v.Version}, {"labels", labelsText(v.Labels)},
		{"leaders", v.Leaders}, {"regions", v.Regions}, {"learners", v.Learners}, {"pending", v.Pending},
		{"size", bytesText(v.RegionBytes)},
		{"disk", fmt.Sprintf("%s free of %s", bytesText(v.AvailableBytes), bytesText(v.CapacityBytes))},
		{"written", byteRateText(v.Rates.WrittenBytes)}, {"read", byteRateText(v.Rates.ReadBytes)}, {"queries", rateText(v.Rates.Queries)},
		{"last report", span(v.SilentMS) + " ago"},
	}
	if !v.Started.IsZero() {
		pairs = append(pairs, pair{"started", v.Started.Format(time.DateTime)})
	}
	if v.Evicting {
		pairs = append(pairs, pair{"leaders", "are given away: " + v.EvictReason})
	}
	if v.DiskFull {
		pairs = append(pairs, pair{"disk full", "writes are refused until there is space"})
	}
	if v.Drain != nil {
		pairs = append(pairs, pair{"drain", v.Drain.text()}, pair{"waits for", v.Drain.WaitsFor})
	}
	pairs = append(pairs, pair{"remarks", strings.Join(v.Remarks, "\n")})
	describe(s.out, pairs...)
	return nil
}

func (s *session) undrain(args []string) error {
	n, err := id("store", args[0])
	if err != nil {
		return err
	}
	ctx, cancel := s.request()
	defer cancel()
	d, err := s.pd.DrainStore(ctx, &pdpb.DrainStoreRequest{StoreId: n, Undo: true})
	if err != nil {
		return err
	}
	return s.tell(storeOf(d), "Store %d is used again.", n)
}

func (s *session) setLabels(args []string) error {
	n, err := id("store", args[0])
	if err != nil {
		return err
	}
	var labels []*kvpb.StoreLabel
	for _, arg := range args[1:] {
		key, value, ok := strings.Cut(arg, "=")
		if !ok || key == "" {
			return fmt.Errorf("%q is not a label; write it as zone=a, or zone= to remove it", arg)
		}
		labels = append(labels, &kvpb.StoreLabel{Key: key, Value: value})
	}
	ctx, cancel := s.request()
	defer cancel()
	d, err := s.pd.SetStoreLabels(ctx, n, labels)
	if err != nil {
		return err
	}
	v := storeOf(d)
	if len(v.Labels) == 0 {
		return s.tell(v, "Store %d has no labels now.", n)
	}
	return s.tell(v, "Store %d has the labels %s now.", n, labelsText(v.Labels))
}

func (s *session) removeTombstones(_ []string) error {
	ctx, cancel := s.request()
	defer cancel()
	gone, err := s.pd.RemoveTombstones(ctx)
	if err != nil {
		return err
	}
	if len(gone) == 0 {
		return s.tell([]uint64{}, "There are no tombstones.")
	}
	return s.tell(gone, "Forgotten: %s.", strings.Trim(fmt.Sprint(gone), "[]"))
}
