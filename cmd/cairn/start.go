package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

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
	keys := slices.Concat([]string{"data-dir", "listen", "tls-cert", "tls-key", "tls-ca"}, kvKeys, processKeys)
	return newCommand("start", "Run everything in one process, durable, in one data directory",
		"Start runs the SQL layer, the key-value tier and the placement driver in one process.\nEverything it keeps is in the data directory; the same directory starts again where it stopped.",
		defaults, keys, runStart)
}

func runStart(cmd *cobra.Command, c *config) error {
	if err := c.checkListen("listen", c.Listen, c.CertFile != ""); err != nil {
		return err
	}
	return runProcess(cmd.Context(), c, "start", func(ctx context.Context, p *process) error {
		if err := p.claimDirectory(c.DataDir, "start"); err != nil {
			return err
		}
		placement, err := startPD(p, pd.Options{DataDir: c.sub("pd"), Name: "pd"})
		if err != nil {
			return err
		}
		pdc := pdclient.Direct(placement.Handler())
		p.onClose("placement driver client", pdc.Close)
		o, err := c.kvOptions(p, pdc)
		if err != nil {
			return err
		}
		node, err := kvnode.New(o)
		if err != nil {
			return err
		}
		p.onClose("kv node", node.Close)
		local := node.Handler()
		kv := kvclient.New(kvclient.Options{
			PD: pdc, Logger: p.log, Registerer: p.registry,
			Local: func(id uint64) kvclient.Handler {
				if id == node.StoreID() {
					return local
				}
				return nil
			},
		})
		p.onClose("kv client", kv.Close)
		return startSQL(ctx, p, c, kv, pdc, cmd.OutOrStdout())
	})
}

// startPD opens a placement driver and serves it until the process ends.
func startPD(p *process, o pd.Options) (*pd.Server, error) {
	o.Logger, o.Registerer = p.log, p.registry
	placement, err := pd.New(o)
	if err != nil {
		return nil, err
	}
	p.onClose("placement driver", placement.Close)
	p.serve("placement driver", func(ctx context.Context) error { return placement.Serve(ctx) })
	return placement, nil
}

// startSQL opens a SQL node over kv and pdc and prints how to connect to it.
func startSQL(ctx context.Context, p *process, c *config, kv *kvclient.Client, pdc pdclient.Client, out io.Writer) error {
	tlsConfig, err := c.clientTLS()
	if err != nil {
		return err
	}
	srv, err := sqlnode.New(ctx, sqlnode.Options{
		Listen: c.Listen, KV: kv, PD: pdc, TLS: tlsConfig, Version: serverVersion(), DataDir: c.DataDir,
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
	if c.Status != "" {
		fmt.Fprintf(out, "  status    http://%s/metrics\n", p.statusAddr)
	}
	fmt.Fprintf(out, "\nStop with Ctrl-C.\n")
	if f, ok := out.(*os.File); ok {
		_ = f.Sync()
	}
}
