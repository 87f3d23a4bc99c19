package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/cairndb/cairn/cmd/cairn/memory"
	"github.com/cairndb/cairn/cmd/cairn/quantity"
)

// config is what can be said in the file and by flags; flags win.
type config struct {
	DataDir   string   `toml:"data-dir"`
	Listen    string   `toml:"listen"`
	Advertise string   `toml:"advertise"`
	Status    string   `toml:"status"`
	PD        []string `toml:"pd"`
	Name      string   `toml:"name"`

	InitialCluster []string `toml:"initial-cluster"`
	Join           []string `toml:"join"`

	ClusterListen    string `toml:"cluster-listen"`
	ClusterAdvertise string `toml:"cluster-advertise"`

	PIDFile   string        `toml:"pid-file"`
	LogFile   string        `toml:"log-file"`
	LogLevel  string        `toml:"log-level"`
	Insecure  bool          `toml:"insecure"`
	CertFile  string        `toml:"tls-cert"`
	KeyFile   string        `toml:"tls-key"`
	CAFile    string        `toml:"tls-ca"`
	CertDir   string        `toml:"cluster-cert-dir"`
	CacheSize quantity.Size `toml:"cache-size"`

	RaftTick        quantity.Duration `toml:"raft-tick"`
	RaftHeartbeat   quantity.Duration `toml:"raft-heartbeat"`
	RaftElection    quantity.Duration `toml:"raft-election"`
	RaftLease       quantity.Duration `toml:"raft-lease"`
	RegionSplitSize quantity.Size     `toml:"region-split-size"`
	RegionMaxSize   quantity.Size     `toml:"region-max-size"`
	RegionSplitQPS  int64             `toml:"region-split-qps"`
	Replicas        int64             `toml:"replicas"`

	Labels       []string `toml:"labels"`
	UnsafeNoSync bool     `toml:"unsafe-no-sync"`

	StopTimeout quantity.Duration `toml:"stop-timeout"`
	MemoryLimit quantity.Size     `toml:"memory-limit"`

	// What planMemory made of it, and who decided.
	budget   memory.Budget
	budgetBy string
}

// command ties a config to the flags of one verb.
type command struct {
	config
	file        string
	printConfig bool
	set         *pflag.FlagSet
}

// newCommand declares the flags in keys, with defaults from c.
func newCommand(use, short, long string, defaults config, keys []string, run func(*cobra.Command, *config) error) *cobra.Command {
	c := &command{config: defaults}
	cmd := &cobra.Command{Use: use, Short: short, Long: long, Args: noArgs}
	c.set = cmd.Flags()
	c.set.SortFlags = false
	for _, key := range keys {
		f := fields[key]
		switch p := f.in(&c.config).(type) {
		case *string:
			c.set.StringVar(p, key, *p, f.help)
		case *bool:
			c.set.BoolVar(p, key, *p, f.help)
		case *int64:
			c.set.Int64Var(p, key, *p, f.help)
		case *[]string:
			c.set.StringSliceVar(p, key, *p, f.help)
		case pflag.Value:
			c.set.Var(p, key, f.help)
		}
	}
	c.set.StringVar(&c.file, "config", "", "TOML file with the same keys as the flags; flags win")
	c.set.BoolVar(&c.printConfig, "print-config", false, "print the configuration in force and exit")
	cmd.SetUsageFunc(func(cmd *cobra.Command) error { return groupedUsage(cmd, keys) })
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := c.load(keys); err != nil {
			return err
		}
		if c.printConfig {
			return c.print(cmd, keys)
		}
		return run(cmd, &c.config)
	}
	return cmd
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%q is not understood here; see '%s --help'", args[0], cmd.CommandPath())
	}
	return nil
}

// load reads the file, if any, below the flags that were given.
func (c *command) load(keys []string) error {
	if c.file == "" {
		return nil
	}
	given := c.config // holds the flags' values
	data, err := os.ReadFile(c.file)
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	if err := decodeConfig(data, &c.config, keys); err != nil {
		return fmt.Errorf("%s: %w", c.file, err)
	}
	c.set.Visit(func(flag *pflag.Flag) {
		if f, ok := fields[flag.Name]; ok {
			dst, src := reflect.ValueOf(f.in(&c.config)), reflect.ValueOf(f.in(&given))
			dst.Elem().Set(src.Elem())
		}
	})
	return nil
}

// decodeConfig reads TOML into c and refuses keys that this verb does not have.
func decodeConfig(data []byte, c *config, keys []string) error {
	meta, err := toml.NewDecoder(bytes.NewReader(data)).Decode(c)
	if err != nil {
		var pe toml.ParseError
		if errors.As(err, &pe) {
			return fmt.Errorf("line %d: %s", pe.Position.Line, pe.Message)
		}
		return err
	}
	for _, k := range meta.Undecoded() {
		return fmt.Errorf("unknown key %q; known keys: %s", k, strings.Join(keys, ", "))
	}
	for _, k := range meta.Keys() {
		known := false
		for _, key := range keys {
			known = known || key == k.String()
		}
		if !known {
			return fmt.Errorf("key %q means nothing here; known keys: %s", k, strings.Join(keys, ", "))
		}
	}
	return nil
}

// print writes the configuration in force as a file that would reproduce it.
func (c *command) print(cmd *cobra.Command, keys []string) error {
	for _, key := range keys {
		f := fields[key]
		fmt.Fprintf(cmd.OutOrStdout(), "# %s\n", f.help)
		var buf bytes.Buffer
		if err := toml.NewEncoder(&buf).Encode(map[string]any{key: reflect.ValueOf(f.in(&c.config)).Elem().Interface()}); err != nil {
			return err
		}
		fmt.Fprint(cmd.OutOrStdout(), buf.String())
	}
	return nil
}

// checkListen refuses an address outside loopback unless TLS material is there
// or the operator says --insecure.
func (c *config) checkListen(flag, addr string, hasTLS bool) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("--%s %q is not an address; write it as 127.0.0.1:4000", flag, addr)
	}
	if _, err := net.LookupPort("tcp", port); err != nil {
		return fmt.Errorf("--%s %q: %q is not a port", flag, addr, port)
	}
	if isLoopback(host) || hasTLS || c.Insecure {
		return nil
	}
	return fmt.Errorf("--%s %s is reachable from other machines; give TLS material (see --help), or --insecure if you mean it", flag, addr)
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

func (c *config) sub(name string) string { return filepath.Join(c.DataDir, name) }
