// Package ctl is the command tree "cairn ctl": it shows and operates a running
// cluster through the door of the placement driver. Every command prints a table
// for people or, with --json, one JSON document for machines.
package ctl

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"

	"github.com/cairndb/cairn/internal/certs"
	"github.com/cairndb/cairn/pd/pdclient"
)

// DefaultAddrs are where the placement driver is looked for when nobody says:
// where `cairn pd` listens, and where `cairn start` does.
var DefaultAddrs = []string{"127.0.0.1:2379", "127.0.0.1:14000"}

// Connect opens a client of the placement driver at the addresses.
type Connect func(ctx context.Context, addrs []string, tls *tls.Config) (pdclient.Client, error)

// ctl is what the commands share.
type ctl struct {
	connect Connect
	addrs   []string
	certDir string
	json    bool
	timeout time.Duration
	// dialStore replaces the network to stores, in tests.
	dialStore func(addr string) (storeAdmin, func() error, error)
}

// New returns the tree. A nil connect means the network.
func New(connect Connect) *cobra.Command { return (&ctl{connect: connect}).command() }

func (c *ctl) command() *cobra.Command {
	if c.connect == nil {
		c.connect = func(ctx context.Context, addrs []string, tls *tls.Config) (pdclient.Client, error) {
			return pdclient.Dial(ctx, pdclient.Options{Addrs: addrs, TLS: tls})
		}
	}
	cmd := &cobra.Command{
		Use: "ctl", Short: "Look inside a running cluster and operate it",
		Long: `Ctl asks the placement driver of a running cluster, and tells it what to do.

Keys are written as t42 (table 42), t42_r7 (its row 7), t42_i3 (its index 3),
m:name (metadata) or {hex}. --json prints one JSON document instead of a table.`,
	}
	f := cmd.PersistentFlags()
	f.StringSliceVar(&c.addrs, "pd", nil, "addresses of the placement driver (default: $CAIRN_PD, else "+strings.Join(DefaultAddrs, " or ")+")")
	f.BoolVar(&c.json, "json", false, "print JSON")
	f.DurationVar(&c.timeout, "timeout", 10*time.Second, "for one request")
	f.StringVar(&c.certDir, "cluster-cert-dir", "", "directory with ca.pem, node.pem, node-key.pem, if the cluster uses TLS")
	cmd.AddCommand(c.statusCommand(), c.membersCommand(), c.storesCommand(), c.regionsCommand(), c.operatorsCommand(), c.schedulersCommand(), c.configCommand())
	cmd.AddCommand(c.changeCommands()...)
	cmd.AddCommand(c.consistencyCommand(), c.recoverCommand(), c.kvCommand(), c.gcCommand())
	refuseStrangers(cmd)
	return cmd
}

// refuseStrangers makes every group of commands answer a name that it does not
// have with the nearest that it has.
func refuseStrangers(cmd *cobra.Command) {
	for _, sub := range cmd.Commands() {
		refuseStrangers(sub)
	}
	if !cmd.HasSubCommands() {
		return
	}
	cmd.SuggestionsMinimumDistance = 2
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		message := fmt.Sprintf("%q is not a command of '%s'", args[0], cmd.CommandPath())
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			return fmt.Errorf("%s; did you mean %s?", message, strings.Join(near, " or "))
		}
		return fmt.Errorf("%s; see '%s --help'", message, cmd.CommandPath())
	}
	if cmd.RunE == nil {
		cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	}
}

// session is one connection to the cluster, and where the answer goes.
type session struct {
	*ctl
	pd     pdclient.Client
	tls    *tls.Config // nil = plain text
	stores *stores
	ctx    context.Context // of the command; each request has its own deadline
	out    io.Writer
}

// run makes a command's body of f.
func (c *ctl) run(f func(s *session, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		s := &session{ctl: c, ctx: cmd.Context(), out: cmd.OutOrStdout()}
		if err := s.open(); err != nil {
			return err
		}
		defer s.pd.Close()
		defer s.stores.done()
		return says(f(s, args))
	}
}

func (s *session) open() error {
	addrs, err := s.find()
	if err != nil {
		return err
	}
	var config *tls.Config
	if s.certDir != "" {
		material, err := certs.Load(s.certDir)
		if err != nil {
			return fmt.Errorf("--cluster-cert-dir %s: %w", s.certDir, err)
		}
		config = material.Client()
	}
	s.tls, s.stores = config, newStores(config)
	if s.dialStore != nil {
		s.stores.dial = s.dialStore
	}
	ctx, cancel := s.request()
	defer cancel()
	if s.pd, err = s.connect(ctx, addrs, config); err != nil {
		return fmt.Errorf("no placement driver answers at %s (%w); is the cluster running? --pd says where", strings.Join(addrs, ", "), err)
	}
	return nil
}

// request is the context of one request.
func (s *session) request() (context.Context, context.CancelFunc) {
	return context.WithTimeout(s.ctx, s.timeout)
}

// find decides which addresses to ask.
func (s *session) find() ([]string, error) {
	if len(s.addrs) == 0 && os.Getenv("CAIRN_PD") != "" {
		s.addrs = strings.Split(os.Getenv("CAIRN_PD"), ",")
	}
	for _, addr := range s.addrs {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			return nil, fmt.Errorf("--pd %q is not an address; write it as %s", addr, DefaultAddrs[0])
		}
	}
	if len(s.addrs) > 0 {
		return s.addrs, nil
	}
	var found []string
	for _, addr := range DefaultAddrs {
		conn, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			_ = conn.Close()
			found = append(found, addr)
		}
	}
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("no placement driver listens at %s; --pd says where it is", strings.Join(DefaultAddrs, " or "))
	case 1:
		return found, nil
	}
	return nil, fmt.Errorf("clusters run at %s; say which you mean with --pd", strings.Join(found, " and "))
}

// says turns an answer of the placement driver into what a person should read.
func says(err error) error {
	var refusal *pdclient.Error
	if errors.As(err, &refusal) && refusal.Message != "" {
		return errors.New(refusal.Message)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("no answer in time; --timeout gives it longer: %w", err)
	}
	return err
}

// show prints v as JSON, or what the table says.
func (s *session) show(v any, t *printed) error {
	if s.json {
		encoder := json.NewEncoder(s.out)
		encoder.SetIndent("", "  ")
		return encoder.Encode(v)
	}
	t.render(s.out)
	return nil
}

// tell prints a sentence, or v as JSON.
func (s *session) tell(v any, format string, args ...any) error {
	if s.json {
		return s.show(v, nil)
	}
	_, err := fmt.Fprintf(s.out, format+"\n", args...)
	return err
}

// printed is a table and the sentence that stands for it when it has no rows.
type printed struct {
	table table.Writer
	none  string
	rows  int
}

// newTable begins a table. Columns whose name ends in > are numbers.
func newTable(none string, columns ...string) *printed {
	t := &printed{table: table.NewWriter(), none: none}
	style := table.StyleLight
	style.Options = table.OptionsNoBordersAndSeparators
	style.Box.PaddingLeft, style.Box.PaddingRight = "", "  "
	style.Format.Header = 0
	t.table.SetStyle(style)
	t.table.SuppressTrailingSpaces()
	header := table.Row{}
	var configs []table.ColumnConfig
	for i, name := range columns {
		name, number := strings.CutSuffix(name, ">")
		header = append(header, strings.ToUpper(name))
		if number {
			configs = append(configs, table.ColumnConfig{Number: i + 1, Align: text.AlignRight, AlignHeader: text.AlignRight})
		}
	}
	t.table.SetColumnConfigs(configs)
	t.table.AppendHeader(header)
	return t
}

func (t *printed) row(cells ...any) {
	t.table.AppendRow(cells)
	t.rows++
}

func (t *printed) render(w io.Writer) {
	if t.rows == 0 {
		fmt.Fprintln(w, t.none)
		return
	}
	fmt.Fprintln(w, t.table.Render())
}

// pair is a line of a description: a name and what it is.
type pair struct {
	name  string
	value any
}

// describe prints pairs below each other; those without a value are left out.
func describe(w io.Writer, pairs ...pair) {
	width := 0
	for _, p := range pairs {
		width = max(width, len(p.name))
	}
	for _, p := range pairs {
		if value := strings.TrimSpace(fmt.Sprint(p.value)); value != "" {
			fmt.Fprintf(w, "%-*s  %s\n", width, p.name, strings.ReplaceAll(value, "\n", "\n"+strings.Repeat(" ", width+2)))
		}
	}
}

// counted is "1 region", "3 regions".
func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// ids reads arguments as ids of what.
func ids(what string, args []string) ([]uint64, error) {
	var list []uint64
	for _, arg := range args {
		id, err := strconv.ParseUint(arg, 10, 64)
		if err != nil || id == 0 {
			return nil, fmt.Errorf("%q is not the id of a %s; ids are numbers, see 'cairn ctl %ss'", arg, what, what)
		}
		if !slices.Contains(list, id) {
			list = append(list, id)
		}
	}
	return list, nil
}

func id(what, arg string) (uint64, error) {
	list, err := ids(what, []string{arg})
	if err != nil {
		return 0, err
	}
	return list[0], nil
}

// exactly wants these arguments.
func exactly(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != len(names) {
			return fmt.Errorf("'%s' wants %s; it got %s", cmd.CommandPath(), strings.Join(names, " "), counted(len(args), "argument"))
		}
		return nil
	}
}

// atLeast wants n arguments of this kind, or more.
func atLeast(n int, name string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < n {
			return fmt.Errorf("'%s' wants %s", cmd.CommandPath(), name)
		}
		return nil
	}
}
