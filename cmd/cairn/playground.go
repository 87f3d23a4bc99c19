package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/cairndb/cairn/cmd/cairn/playground"
)

// where says which playground a command is about.
type where struct{ dir, tag string }

func (w *where) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&w.dir, "dir", "", "directory of the playground")
	cmd.Flags().StringVar(&w.tag, "tag", "", "name of a playground below "+playground.Root())
}

// resolve returns the directory; "" when neither flag was given.
func (w *where) resolve() (string, error) {
	switch {
	case w.dir != "" && w.tag != "":
		return "", errors.New("--dir and --tag both say where the playground is; give one of them")
	case strings.ContainsAny(w.tag, `/\`) || w.tag == "." || w.tag == "..":
		return "", fmt.Errorf("--tag %q is a name, not a path; for a path there is --dir", w.tag)
	case w.tag != "":
		return filepath.Join(playground.Root(), w.tag), nil
	case w.dir != "":
		return filepath.Abs(w.dir)
	}
	return "", nil
}

func playgroundCommand() *cobra.Command {
	var at where
	var o playground.Options
	var pdArgs, kvArgs, sqlArgs []string
	cmd := &cobra.Command{
		Use: "playground", Short: "Run a whole cluster on this machine", Args: noArgs,
		Long: `Playground runs a cluster of processes on this machine: placement drivers, key-value
nodes and SQL nodes, in one directory. Started again on the same directory, it goes on
where it stopped. Ctrl-C stops all of it.

  cairn playground                         1 pd, 3 kv, 1 sql in a new directory
  cairn playground --tag demo --kv 5       a name, to come back to it
  cairn playground --kill-after 30s        kill a node under load and see what clients see
  cairn playground ps | stop               what runs, and an end to it`,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if o.Dir, err = at.resolve(); err != nil {
				return err
			}
			if o.Dir == "" {
				o.Dir = filepath.Join(playground.Root(), time.Now().Format("20060102-150405"))
			}
			if err := checkPlayground(cmd, &o); err != nil {
				return err
			}
			if o.Binary, err = os.Executable(); err != nil {
				return err
			}
			o.Args = map[string][]string{playground.RolePD: pdArgs, playground.RoleKV: kvArgs, playground.RoleSQL: sqlArgs}
			o.Out = cmd.OutOrStdout()
			return playground.Run(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.IntVar(&o.KV, "kv", 3, "number of key-value nodes")
	f.IntVar(&o.PD, "pd", 1, "number of placement drivers, 1 or 3")
	f.IntVar(&o.SQL, "sql", 1, "number of SQL nodes")
	at.flags(cmd)
	f.IntVar(&o.PortBase, "port-base", 0, "first port to try (default: the usual ports of the roles, or the next free ones)")
	f.BoolVar(&o.Restart, "restart", false, "start nodes again that die")
	f.DurationVar(&o.KillAfter, "kill-after", 0, "after this time, kill -9 the kv node with most leaders while clients write")
	f.BoolVar(&o.KillRandom, "kill-random", false, "with --kill-after: any kv node, not the one with most leaders")
	f.StringArrayVar(&pdArgs, "pd-arg", nil, "further flag of every pd, such as --pd-arg=--log-level=debug; may be repeated")
	f.StringArrayVar(&kvArgs, "kv-arg", nil, "further flag of every kv")
	f.StringArrayVar(&sqlArgs, "sql-arg", nil, "further flag of every sql")
	cmd.AddCommand(playgroundPS(), playgroundStop())
	return cmd
}

// checkPlayground refuses numbers that make no cluster. Numbers that were not
// given are 0: as many as the directory has.
func checkPlayground(cmd *cobra.Command, o *playground.Options) error {
	for name, n := range map[string]*int{"kv": &o.KV, "pd": &o.PD, "sql": &o.SQL} {
		switch {
		case !cmd.Flags().Changed(name):
			*n = 0
		case *n < 1:
			return fmt.Errorf("--%s %d: a cluster needs at least one of each role", name, *n)
		case *n > 100:
			return fmt.Errorf("--%s %d is more than one machine should run", name, *n)
		}
	}
	if o.PD%2 == 0 && o.PD != 0 {
		return fmt.Errorf("--pd %d: an even number of members survives no more failures than one less; use %d or %d", o.PD, o.PD-1, o.PD+1)
	}
	if o.PortBase != 0 && (o.PortBase < 1024 || o.PortBase > 60000) {
		return fmt.Errorf("--port-base %d is not between 1024 and 60000", o.PortBase)
	}
	if o.KillRandom && o.KillAfter == 0 {
		return errors.New("--kill-random needs --kill-after")
	}
	return nil
}

func playgroundPS() *cobra.Command {
	var at where
	cmd := &cobra.Command{
		Use: "ps", Short: "Show the playgrounds and their processes", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := at.playgrounds()
			if err != nil {
				return err
			}
			if len(list) == 0 {
				fmt.Fprintf(cmd.OutOrStdout(), "There is no playground below %s.\n", playground.Root())
				return nil
			}
			for _, s := range list {
				showPlayground(cmd, s)
			}
			return nil
		},
	}
	at.flags(cmd)
	return cmd
}

// playgrounds are the one that the flags name, or all below the root.
func (w *where) playgrounds() ([]playground.State, error) {
	dir, err := w.resolve()
	if err != nil {
		return nil, err
	}
	if dir == "" {
		return playground.List(playground.Root())
	}
	s, err := playground.Read(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("there is no playground in %s", dir)
	}
	return []playground.State{s}, err
}

func showPlayground(cmd *cobra.Command, s playground.State) {
	if !playground.Running(s.Dir) {
		fmt.Fprintf(cmd.OutOrStdout(), "%s  not running; %d nodes\n", s.Dir, len(s.Nodes))
		return
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s  running, pid %d\n", s.Dir, s.PID)
	w := table.NewWriter()
	w.SetStyle(table.StyleLight)
	w.AppendHeader(table.Row{"node", "state", "pid", "address", "status port", "since"})
	for _, n := range s.Nodes {
		w.AppendRow(table.Row{n.Name, n.State, n.PID, n.Addr, n.Status, n.Started.Format(time.DateTime)})
	}
	fmt.Fprintln(cmd.OutOrStdout(), w.Render())
}

func playgroundStop() *cobra.Command {
	var at where
	cmd := &cobra.Command{
		Use: "stop", Short: "Stop a playground that runs elsewhere", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := at.resolve()
			if err != nil {
				return err
			}
			if dir == "" {
				if dir, err = onlyRunning(); err != nil {
					return err
				}
			}
			if err := playground.Stop(dir, time.Minute); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "The playground in %s is stopped.\n", dir)
			return nil
		},
	}
	at.flags(cmd)
	return cmd
}

// onlyRunning is the directory of the one playground that runs.
func onlyRunning() (string, error) {
	all, err := playground.List(playground.Root())
	if err != nil {
		return "", err
	}
	var running []string
	for _, s := range all {
		if playground.Running(s.Dir) {
			running = append(running, s.Dir)
		}
	}
	switch len(running) {
	case 0:
		return "", fmt.Errorf("no playground runs below %s; one in another directory is named with --dir", playground.Root())
	case 1:
		return running[0], nil
	}
	return "", fmt.Errorf("%d playgrounds run; say which with --dir:\n  %s", len(running), strings.Join(running, "\n  "))
}
