package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cairndb/cairn/cmd/cairn/memory"
	"github.com/cairndb/cairn/kvnode"
	"github.com/cairndb/cairn/kvnode/kvclient"
	"github.com/cairndb/cairn/pd"
	"github.com/cairndb/cairn/pd/pdclient"
	"github.com/cairndb/cairn/proto/pdpb"
)

// processKeys are the flags all roles have.
var processKeys = []string{"status", "pid-file", "log-file", "log-level", "insecure", "cluster-cert-dir", "stop-timeout", "memory-limit"}

func pdCommand() *cobra.Command {
	defaults := config{DataDir: "./cairn-pd", Listen: "127.0.0.1:2379", Status: "127.0.0.1:10079", Name: "pd", LogLevel: "info", StopTimeout: defaultStopTimeout}
	keys := append([]string{"data-dir", "listen", "advertise", "name", "initial-cluster", "join", "replicas"}, processKeys...)
	return newCommand("pd", "Run a placement driver",
		"PD hands out timestamps and knows where data lives. Start it before kv and sql.", defaults, keys, runPD)
}

func runPD(cmd *cobra.Command, c *config) error {
	material, err := c.peerTLS()
	if err != nil {
		return err
	}
	if err := errors.Join(c.checkListen("listen", c.Listen, material != nil), c.checkReplicas(), c.planMemory(memory.Least)); err != nil {
		return err
	}
	return runProcess(cmd.Context(), c, "pd", func(ctx context.Context, p *process) error {
		if err := p.claimDirectory(c.DataDir, "pd"); err != nil {
			return err
		}
		o := pd.Options{DataDir: c.sub("pd"), Name: c.Name, ListenAddr: c.Listen, AdvertiseAddr: c.Advertise, Certs: material}
		if err := c.members(&o); err != nil {
			return err
		}
		o.Replicas = uint32(c.Replicas)
		c.tellJoin(cmd.OutOrStdout())
		placement, err := openPD(ctx, p, o)
		if err != nil {
			return err
		}
		servePD(p, placement)
		p.ready = func(ctx context.Context) error { return hasLeader(ctx, placement.Handler()) }
		fmt.Fprintf(cmd.OutOrStdout(), "CairnDB %s placement driver is ready on %s.\n", version, placement.Addr())
		return nil
	})
}

// members fills in what several members need to know of each other.
func (c *config) members(o *pd.Options) error {
	if len(c.InitialCluster) > 0 && len(c.Join) > 0 {
		return errors.New("--initial-cluster begins a new cluster, --join extends one; give one of them")
	}
	o.Join = c.Join
	for _, member := range c.InitialCluster {
		name, addr, ok := strings.Cut(member, "=")
		if _, _, err := net.SplitHostPort(addr); !ok || name == "" || err != nil {
			return fmt.Errorf("--initial-cluster: %q is not name=host:port", member)
		}
		if o.InitialCluster == nil {
			o.InitialCluster = map[string]string{}
		}
		o.InitialCluster[name] = addr
	}
	if address := cmp.Or(c.Advertise, c.Listen); len(o.InitialCluster) > 0 && o.InitialCluster[c.Name] != address {
		return fmt.Errorf("--initial-cluster must contain this member as %s=%s; it has %s", c.Name, address, strings.Join(c.InitialCluster, ","))
	}
	return nil
}

// checkReplicas refuses a number of copies that no cluster can have.
func (c *config) checkReplicas() error {
	if c.Replicas < 0 || c.Replicas > 7 {
		return fmt.Errorf("--replicas %d is not between 1 and 7, nor 0 for automatic", c.Replicas)
	}
	return nil
}

// hasLeader reports whether the placement driver can serve, here or elsewhere.
func hasLeader(ctx context.Context, h pdclient.Handler) error {
	resp := h.GetMembers(ctx, &pdpb.GetMembersRequest{Header: &pdpb.Header{}})
	if resp.GetLeader() == nil {
		return errors.New("no member leads")
	}
	return nil
}

func kvCommand() *cobra.Command {
	defaults := config{DataDir: "./cairn-kv", Listen: "127.0.0.1:20160", Status: "127.0.0.1:20180", PD: []string{"127.0.0.1:2379"}, LogLevel: "info", StopTimeout: defaultStopTimeout}
	keys := slices.Concat([]string{"data-dir", "listen", "advertise", "pd"}, kvKeys, processKeys)
	return newCommand("kv", "Run a key-value node",
		"KV stores regions of the key space. It needs a placement driver (--pd).", defaults, keys, runKV)
}

func runKV(cmd *cobra.Command, c *config) error {
	material, err := c.peerTLS()
	if err != nil {
		return err
	}
	if err := errors.Join(c.checkListen("listen", c.Listen, material != nil), c.checkKV(), c.planMemory(memory.LeastKV)); err != nil {
		return err
	}
	return runProcess(cmd.Context(), c, "kv", func(ctx context.Context, p *process) error {
		if err := errors.Join(p.claimDirectory(c.DataDir, "kv"), c.checkDrained()); err != nil {
			return err
		}
		pdc, err := dialPD(ctx, p, c)
		if err != nil {
			return err
		}
		o, err := c.kvOptions(p, pdc)
		if err != nil {
			return err
		}
		o.Listen = c.Listen
		if material != nil {
			o.TLS, o.PeerTLS = material.Server(), material.Client()
		}
		node, err := interruptible(ctx, func() (*kvnode.Node, error) { return kvnode.New(o) })
		if err != nil {
			return err
		}
		p.onClose("kv node", node.Close)
		p.onDrain("kv node", evictLeaders(node))
		p.serve("kv node", node.Serve)
		p.serve("store", func(ctx context.Context) error { return awaitDrained(ctx, c, pdc, node.StoreID()) })
		p.ready = func(ctx context.Context) error { _, err := pdc.TS(ctx); return err }
		fmt.Fprintf(cmd.OutOrStdout(), "CairnDB %s kv node %d is ready on %s.\n", version, node.StoreID(), node.Addr())
		return nil
	})
}

func sqlCommand() *cobra.Command {
	defaults := config{Listen: "127.0.0.1:4000", Status: "127.0.0.1:10080", PD: []string{"127.0.0.1:2379"}, LogLevel: "info", StopTimeout: defaultStopTimeout}
	keys := append([]string{"listen", "pd", "data-dir", "labels", "tls-cert", "tls-key", "tls-ca"}, processKeys...)
	return newCommand("sql", "Run a SQL node",
		"SQL serves MySQL clients. It keeps no data: --data-dir holds only its certificate, and is optional.", defaults, keys, runSQL)
}

func runSQL(cmd *cobra.Command, c *config) error {
	labels, err := parseLabels(c.Labels)
	if err := errors.Join(err, c.checkListen("listen", c.Listen, c.CertFile != ""), c.planMemory(memory.Least)); err != nil {
		return err
	}
	material, err := c.peerTLS()
	if err != nil {
		return err
	}
	return runProcess(cmd.Context(), c, "sql", func(ctx context.Context, p *process) error {
		pdc, err := dialPD(ctx, p, c)
		if err != nil {
			return err
		}
		o := kvclient.Options{PD: pdc, Labels: labels, Logger: p.log, Registerer: p.registry}
		if material != nil {
			o.TLS = material.Client()
		}
		kv := kvclient.New(o)
		p.onClose("kv client", kv.Close)
		return startSQL(ctx, p, c, kv, pdc, cmd.OutOrStdout())
	})
}

func dialPD(ctx context.Context, p *process, c *config) (pdclient.Client, error) {
	if len(c.PD) == 0 {
		return nil, fmt.Errorf("--pd is empty; give the address of a placement driver, such as 127.0.0.1:2379")
	}
	o := pdclient.Options{Addrs: c.PD, Logger: p.log, Registerer: p.registry}
	material, err := c.peerTLS()
	if err != nil {
		return nil, err
	}
	if material != nil {
		o.TLS = material.Client()
	}
	pdc, err := pdclient.Dial(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("placement driver at %v: %w", c.PD, err)
	}
	p.onClose("placement driver client", pdc.Close)
	return pdc, nil
}
