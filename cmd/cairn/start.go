package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/cairndb/cairn/cmd/cairn/memory"
	"github.com/cairndb/cairn/internal/certs"
	"github.com/cairndb/cairn/kvnode"
	"github.com/cairndb/cairn/kvnode/kvclient"
	"github.com/cairndb/cairn/pd"
	"github.com/cairndb/cairn/pd/pdclient"
	"github.com/cairndb/cairn/sqlnode"
)

// serverVersion is what SELECT VERSION() answers. Clients choose features by
// the number in front: 8.0.11 promises nothing the parser cannot read.
func serverVersion() string { return "8.0.11-CairnDB-v" + version }

func startCommand() *cobra.Command {
	defaults := config{
		DataDir: "./cairn-data", Listen: "127.0.0.1:4000", Status: "127.0.0.1:10080", LogLevel: "info", StopTimeout: defaultStopTimeout,
	}
	keys := slices.Concat([]string{"data-dir", "listen", "join", "cluster-listen", "cluster-advertise", "replicas", "tls-cert", "tls-key", "tls-ca"}, kvKeys, processKeys)
	return newCommand("start", "Run everything in one process, durable, in one data directory",
		`Start runs the SQL layer, the key-value tier and the placement driver in one process.
Everything it keeps is in the data directory; the same directory starts again where it stopped.

More processes on other machines make it a cluster: start each with --join and the cluster
address of one that runs. From the third on, data has three copies.`,
		defaults, keys, runStart)
}

func runStart(cmd *cobra.Command, c *config) error {
	if err := errors.Join(c.checkListen("listen", c.Listen, c.CertFile != ""), c.checkKV(), c.checkReplicas(), c.planMemory(memory.LeastKV)); err != nil {
		return err
	}
	material, err := c.peerTLS()
	if err != nil {
		return err
	}
	if c.ClusterListen != "" {
		if err := c.checkListen("cluster-listen", c.ClusterListen, material != nil); err != nil {
			return err
		}
	}
	return runProcess(cmd.Context(), c, "start", func(ctx context.Context, p *process) error {
		if err := p.claimDirectory(c.DataDir, "start"); err != nil {
			return err
		}
		parts, err := startTiers(ctx, p, c, material, cmd.OutOrStdout())
		if err != nil {
			return err
		}
		o := kvclient.Options{
			PD: parts.pd, Logger: p.log, Registerer: p.registry, FromStore: parts.node.StoreID(),
			Local: func(id uint64) kvclient.Handler {
				if id == parts.node.StoreID() {
					return parts.node.Handler()
				}
				return nil
			},
		}
		if material != nil {
			o.TLS = material.Client()
		}
		kv := kvclient.New(o)
		p.onClose("kv client", kv.Close)
		return startSQL(ctx, p, c, kv, parts.pd, cmd.OutOrStdout())
	})
}

// tiers are the parts below SQL, in this process.
type tiers struct {
	pd   pdclient.Client
	node *kvnode.Node
}

// startTiers opens the placement driver and the KV node. Both are reached by
// other processes at one address.
func startTiers(ctx context.Context, p *process, c *config, material *certs.Material, out io.Writer) (*tiers, error) {
	placement, moved, err := openClusterPD(ctx, p, c, material, out)
	if err != nil {
		return nil, err
	}
	if err := c.rememberClusterAddress(placement.Addr()); err != nil {
		return nil, err
	}
	p.cluster, p.clusterMoved = cmp.Or(c.ClusterAdvertise, placement.Addr()), moved
	t := &tiers{}
	own := pdclient.Options{Local: placement.Handler(), Logger: p.log, Registerer: p.registry}
	if material != nil {
		own.TLS = material.Client()
	}
	t.pd = pdclient.New(own)
	p.onClose("placement driver client", t.pd.Close)
	o, err := c.kvOptions(p, t.pd)
	if err != nil {
		return nil, err
	}
	o.Server, o.Advertise = placement.GRPC(), p.cluster
	if material != nil {
		o.PeerTLS = material.Client()
	}
	if t.node, err = interruptible(ctx, func() (*kvnode.Node, error) { return kvnode.New(o) }); err != nil {
		return nil, err
	}
	p.onClose("kv node", t.node.Close)
	p.onDrain("kv node", evictLeaders(t.node))
	servePD(p, placement) // and with it the kv node
	return t, nil
}

// openClusterPD opens the placement driver of a process that has all roles, at
// the cluster address. If another program takes a free address first, it looks
// for the next one.
func openClusterPD(ctx context.Context, p *process, c *config, material *certs.Material, out io.Writer) (placement *pd.Server, moved bool, err error) {
	for try := 0; try < 10; try++ {
		addr, elsewhere, err := c.clusterAddress()
		if err != nil {
			return nil, false, err
		}
		if err := c.checkJoin(cmp.Or(c.ClusterAdvertise, addr)); err != nil {
			return nil, false, err
		}
		c.tellJoin(out)
		placement, err = openPD(ctx, p, pd.Options{
			DataDir: c.sub("pd"), ListenAddr: addr, AdvertiseAddr: c.ClusterAdvertise, Join: c.Join, Certs: material,
			Replicas: uint32(c.Replicas),
		})
		if err == nil {
			return placement, elsewhere, nil
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			return nil, false, err
		}
		if c.ClusterListen != "" {
			return nil, false, fmt.Errorf("%w; is another server running there? choose another --cluster-listen", err)
		}
	}
	return nil, false, errors.New("every address found for the cluster was taken by somebody faster; choose one with --cluster-listen")
}

// openPD opens a placement driver until the process ends.
func openPD(ctx context.Context, p *process, o pd.Options) (*pd.Server, error) {
	o.Logger, o.Registerer = p.log, p.registry
	placement, err := interruptible(ctx, func() (*pd.Server, error) { return pd.New(o) })
	if err != nil {
		return nil, err
	}
	p.onClose("placement driver", placement.Close)
	return placement, nil
}

// servePD lets other processes reach it.
func servePD(p *process, placement *pd.Server) {
	p.serve("placement driver", func(ctx context.Context) error { return placement.Serve(ctx) })
}

// startSQL opens a SQL node over kv and pdc and prints how to connect to it.
func startSQL(ctx context.Context, p *process, c *config, kv *kvclient.Client, pdc pdclient.Client, out io.Writer) error {
	tlsConfig, err := c.clientTLS()
	if err != nil {
		return err
	}
	srv, err := sqlnode.New(ctx, sqlnode.Options{
		Listen: c.Listen, KV: kv, PD: pdc, TLS: tlsConfig, Version: serverVersion(), DataDir: c.DataDir,
		MemoryQuota: c.budget.Quota, MaxTxnBytes: int(c.budget.Txn),
		Logger: p.log, Registerer: p.registry,
	})
	if err != nil {
		return err
	}
	p.onClose("sql node", srv.Close)
	p.onDrain("sql node", srv.Drain)
	p.ready = srv.Ready
	p.serve("sql node", func(context.Context) error { return srv.Serve() })
	banner(out, p, c, srv.Addr().String())
	return nil
}

// banner says what runs and how to connect.
func banner(out io.Writer, p *process, c *config, addr string) {
	host, port := splitAddr(addr)
	fmt.Fprintf(out, "CairnDB %s is ready after %s.\n\n", version, time.Since(p.started).Round(time.Millisecond))
	fmt.Fprintf(out, "  connect   mysql -h %s -P %s -u root\n", host, port)
	if c.DataDir != "" {
		fmt.Fprintf(out, "  data      %s\n", c.DataDir)
	}
	if p.cluster != "" {
		fmt.Fprintf(out, "  cluster   %s, for cairn start --join %s", p.cluster, p.cluster)
		if p.clusterMoved {
			fmt.Fprintf(out, " (%s was taken)", defaultClusterListen)
		}
		fmt.Fprintln(out)
	}
	if c.Status != "" {
		fmt.Fprintf(out, "  status    http://%s/metrics\n", p.statusAddr)
	}
	fmt.Fprintf(out, "\nStop with Ctrl-C.\n")
	if f, ok := out.(*os.File); ok {
		_ = f.Sync()
	}
}
