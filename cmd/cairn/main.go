// Command cairn runs CairnDB: everything in one process (start), its roles in
// processes of their own (pd, kv, sql), operates and measures clusters (ctl, bench),
// and says what it is (version).
package main

import (
	"context"
	"fmt"
	"os"
	"runtime/debug"
	_ "time/tzdata" // named time zones must work on hosts without a database of them

	"github.com/spf13/cobra"

	"github.com/cairndb/cairn/cmd/cairn/bench"
	"github.com/cairndb/cairn/cmd/cairn/ctl"
)

// version is the release; set with -ldflags "-X main.version=...".
var version = "0.1.0"

func main() {
	ctx, stop := withSignals(context.Background())
	err := rootCommand().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "cairn: %v\n", err)
		os.Exit(1)
	}
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "cairn",
		Short: "CairnDB, a MySQL-compatible distributed SQL database",
		Long: `CairnDB is a MySQL-compatible distributed SQL database in one binary.

  cairn start        runs everything in one process, on one data directory
  cairn playground   runs a whole cluster on this machine
  cairn pd, kv, sql  run the roles as processes of their own
  cairn ctl          looks inside a running cluster and operates it
  cairn bench        puts load on a running cluster

Every port listens on loopback unless told otherwise.`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(flagError)
	root.AddCommand(startCommand(), playgroundCommand(), pdCommand(), kvCommand(), sqlCommand(), ctl.New(nil), bench.New(), versionCommand())
	return root
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) {
			fmt.Fprintf(cmd.OutOrStdout(), "CairnDB %s (%s)\n", version, buildInfo())
		},
	}
}

// buildInfo names the toolchain and, when known, the revision.
func buildInfo() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown build"
	}
	out := info.GoVersion
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			out += ", " + s.Value[:12]
		}
	}
	return out
}
