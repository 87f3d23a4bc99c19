package ctl

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/cairndb/cairn/cmd/cairn/quantity"
	"github.com/cairndb/cairn/internal/keys"
	"github.com/cairndb/cairn/proto/pdpb"
)

// setting is one key of the cluster's configuration. The value "default" is
// written as the zero value, which is what PD takes for it.
type setting struct {
	name string
	help string
	get  func(*pdpb.Placement) string
	set  func(*pdpb.Placement, string) error
}

var settings = []setting{
	{
		"replicas", "voters of a region, 1 to 7; auto = 3 when there are 3 stores, else 1",
		func(p *pdpb.Placement) string {
			if p.AutoReplicas {
				return "auto"
			}
			return strconv.Itoa(int(p.Replicas))
		},
		setReplicas,
	},
	{
		"location-labels", "labels that tell where a store is, the widest first, comma-separated",
		func(p *pdpb.Placement) string { return strings.Join(p.LocationLabels, ",") },
		func(p *pdpb.Placement, v string) error {
			p.LocationLabels = nil
			if v != "" && v != "default" {
				p.LocationLabels = strings.Split(v, ",")
			}
			return nil
		},
	},
	{
		"isolation-level", "the label that no two replicas of a region may share",
		func(p *pdpb.Placement) string { return p.IsolationLevel },
		func(p *pdpb.Placement, v string) error {
			p.IsolationLevel = strings.TrimPrefix(v, "default")
			return nil
		},
	},
	bytesSetting("region-split-size", "size of the parts of a split", func(p *pdpb.Placement) *uint64 { return &p.RegionSplitBytes }),
	bytesSetting("region-max-size", "a region larger than this is split", func(p *pdpb.Placement) *uint64 { return &p.RegionMaxBytes }),
	countSetting("region-max-keys", "and one with more keys", func(p *pdpb.Placement) *uint64 { return &p.RegionMaxKeys }),
	bytesSetting("region-merge-size", "a region smaller than this is merged", func(p *pdpb.Placement) *uint64 { return &p.RegionMergeBytes }),
	countSetting("region-merge-keys", "if it also has fewer keys", func(p *pdpb.Placement) *uint64 { return &p.RegionMergeKeys }),
	secondsSetting("merge-after", "and was not split for this long", func(p *pdpb.Placement) *uint32 { return &p.MergeAfterSeconds }),
	{
		"merge", "on or off",
		func(p *pdpb.Placement) string { return map[bool]string{false: "on", true: "off"}[p.NoMerge] },
		func(p *pdpb.Placement, v string) error {
			if v != "on" && v != "off" && v != "default" {
				return fmt.Errorf("%q is neither on nor off", v)
			}
			p.NoMerge = v == "off"
			return nil
		},
	},
	secondsSetting("down-after", "replicas on a store silent for this long are replaced", func(p *pdpb.Placement) *uint32 { return &p.DownAfterSeconds }),
	limitSetting("leader-limit", "leaders on the move at once, for balance", func(p *pdpb.Placement) *uint32 { return &p.LeaderLimit }),
	limitSetting("region-limit", "replicas on the move at once, for balance", func(p *pdpb.Placement) *uint32 { return &p.RegionLimit }),
	limitSetting("replica-limit", "repairs at once", func(p *pdpb.Placement) *uint32 { return &p.ReplicaLimit }),
	limitSetting("merge-limit", "merges at once", func(p *pdpb.Placement) *uint32 { return &p.MergeLimit }),
	limitSetting("hot-limit", "moves of hot regions at once", func(p *pdpb.Placement) *uint32 { return &p.HotLimit }),
	limitSetting("snapshot-limit", "new replicas under way per store", func(p *pdpb.Placement) *uint32 { return &p.SnapshotLimit }),
}

func setReplicas(p *pdpb.Placement, v string) error {
	switch v {
	case "auto", "default":
		p.AutoReplicas, p.Replicas = v == "auto", 0
		return nil
	}
	n, err := strconv.ParseUint(v, 10, 32)
	if err != nil || n < 1 || n > 7 {
		return fmt.Errorf("%q is not a number from 1 to 7, or auto", v)
	}
	p.AutoReplicas, p.Replicas = false, uint32(n)
	return nil
}

func bytesSetting(name, help string, in func(*pdpb.Placement) *uint64) setting {
	return setting{
		name, help,
		func(p *pdpb.Placement) string { return new(quantity.Size(*in(p))).String() },
		func(p *pdpb.Placement, v string) error {
			var s quantity.Size
			if v != "default" {
				if err := s.Set(v); err != nil {
					return err
				}
			}
			*in(p) = uint64(s)
			return nil
		},
	}
}

func countSetting(name, help string, in func(*pdpb.Placement) *uint64) setting {
	return setting{
		name, help,
		func(p *pdpb.Placement) string { return strconv.FormatUint(*in(p), 10) },
		func(p *pdpb.Placement, v string) (err error) { *in(p), err = number(v, 64); return err },
	}
}

func limitSetting(name, help string, in func(*pdpb.Placement) *uint32) setting {
	return setting{
		name, help,
		func(p *pdpb.Placement) string { return strconv.FormatUint(uint64(*in(p)), 10) },
		func(p *pdpb.Placement, v string) error {
			n, err := number(v, 32)
			*in(p) = uint32(n)
			return err
		},
	}
}

func secondsSetting(name, help string, in func(*pdpb.Placement) *uint32) setting {
	return setting{
		name, help,
		func(p *pdpb.Placement) string { return (time.Duration(*in(p)) * time.Second).String() },
		func(p *pdpb.Placement, v string) error {
			var d quantity.Duration
			if v != "default" {
				if err := d.Set(v); err != nil {
					return err
				}
				if d < quantity.Duration(time.Second) {
					return fmt.Errorf("%q is less than a second", v)
				}
			}
			*in(p) = uint32(time.Duration(d) / time.Second)
			return nil
		},
	}
}

// number reads a positive number, or 0 for "default".
func number(text string, bits int) (uint64, error) {
	if text == "default" {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, bits)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is not a positive number", text)
	}
	return n, nil
}

func (c *ctl) configCommand() *cobra.Command {
	get := c.run((*session).getConfig)
	cmd := &cobra.Command{
		Use: "config", Short: "Show and change what the cluster should look like", RunE: get,
		Long: `Config is the configuration of the cluster as a whole: how many replicas, where,
how large regions are, how much moves at once. It is kept by the placement driver
and changes at once. The flags of processes are another matter: see --help of each.`,
	}
	rules := &cobra.Command{Use: "rules", Short: "Show the placement rules", Args: cobra.NoArgs, RunE: c.run((*session).getRules)}
	rules.AddCommand(&cobra.Command{
		Use: "set FILE", Short: "Replace the placement rules by those of a JSON file, as 'config rules --json' prints them", Args: exactly("FILE"),
		RunE: c.run((*session).setRules),
	})
	cmd.AddCommand(
		&cobra.Command{Use: "get", Short: "Show the configuration", Args: cobra.NoArgs, RunE: get},
		&cobra.Command{
			Use: "set NAME=VALUE ...", Short: "Change it; NAME=default for the default", Args: atLeast(1, "NAME=VALUE ..."),
			RunE: c.run((*session).setConfig),
		},
		rules,
	)
	return cmd
}

func (s *session) placement() (*pdpb.Placement, error) {
	ctx, cancel := s.request()
	defer cancel()
	return s.pd.Placement(ctx)
}

func (s *session) getConfig(_ []string) error {
	p, err := s.placement()
	if err != nil {
		return err
	}
	return s.showConfig(p)
}

func (s *session) showConfig(p *pdpb.Placement) error {
	values := map[string]string{}
	t := newTable("", "name", "value", "what it is")
	for _, set := range settings {
		values[set.name] = set.get(p)
		t.row(set.name, set.get(p), set.help)
	}
	if err := s.show(values, t); err != nil || s.json || len(p.Rules) == 0 {
		return err
	}
	_, err := fmt.Fprintf(s.out, "\nThe cluster has %s; see 'cairn ctl config rules'.\n", counted(len(p.Rules), "placement rule"))
	return err
}

// setConfig changes what it is told to and nothing that somebody else changed
// meanwhile: PD refuses a version that is not the newest.
func (s *session) setConfig(args []string) error {
	p, err := s.placement()
	if err != nil {
		return err
	}
	for _, arg := range args {
		name, value, ok := strings.Cut(arg, "=")
		if !ok {
			return fmt.Errorf("%q is not NAME=VALUE, such as replicas=3", arg)
		}
		i := slices.IndexFunc(settings, func(set setting) bool { return set.name == name })
		if i < 0 {
			return fmt.Errorf("there is no setting %q; 'cairn ctl config' lists all", name)
		}
		if err := settings[i].set(p, value); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return s.setPlacement(p)
}

func (s *session) setPlacement(p *pdpb.Placement) error {
	ctx, cancel := s.request()
	defer cancel()
	p, err := s.pd.SetPlacement(ctx, p)
	if err != nil {
		return err
	}
	return s.showConfig(p)
}

func (s *session) getRules(_ []string) error {
	p, err := s.placement()
	if err != nil {
		return err
	}
	if s.json {
		text, err := protojson.MarshalOptions{Multiline: true}.Marshal(&pdpb.Placement{Rules: p.Rules})
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(s.out, "%s\n", text)
		return err
	}
	t := newTable(fmt.Sprintf("There are no rules: every region has %s replicas.", settings[0].get(p)), "id", "start", "end", "role", "count>", "constraints", "kept apart by")
	for _, r := range p.Rules {
		var constraints []string
		for _, l := range r.Constraints {
			constraints = append(constraints, strings.TrimSpace(fmt.Sprintf("%s %s %s", l.Key, strings.ToLower(strings.ReplaceAll(l.Op.String(), "_", " ")), strings.Join(l.Values, "|"))))
		}
		t.row(r.Id, bound(keys.Text(r.StartKey)), bound(keys.Text(r.EndKey)), strings.ToLower(r.Role.String()), r.Count,
			strings.Join(constraints, ", "), strings.Join(r.LocationLabels, ","))
	}
	t.render(s.out)
	return nil
}

func (s *session) setRules(args []string) error {
	data, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	var rules pdpb.Placement
	if err := protojson.Unmarshal(data, &rules); err != nil {
		return fmt.Errorf("%s: %w; 'cairn ctl config rules --json' shows the form", args[0], err)
	}
	p, err := s.placement()
	if err != nil {
		return err
	}
	p.Rules = rules.Rules
	return s.setPlacement(p)
}
