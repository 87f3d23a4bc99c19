package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// config is what can be said in the file and by flags; flags win. Sizes are in
// bytes, times in the units their names say.
type config struct {
	DataDir   string   `toml:"data-dir"`
	Listen    string   `toml:"listen"`
	Advertise string   `toml:"advertise"`
	Status    string   `toml:"status"`
	PD        []string `toml:"pd"`
	Name      string   `toml:"name"`
	PIDFile   string   `toml:"pid-file"`
	LogFile   string   `toml:"log-file"`
	LogLevel  string   `toml:"log-level"`
	Insecure  bool     `toml:"insecure"`
	CertFile  string   `toml:"tls-cert"`
	KeyFile   string   `toml:"tls-key"`
	CAFile    string   `toml:"tls-ca"`
	CertDir   string   `toml:"cluster-cert-dir"`
	CacheSize int64    `toml:"cache-size"`
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
	fields := c.fields()
	for _, key := range keys {
		f := fields[key]
		switch p := f.ptr.(type) {
		case *string:
			c.set.StringVar(p, key, *p, f.help)
		case *bool:
			c.set.BoolVar(p, key, *p, f.help)
		case *int64:
			c.set.Int64Var(p, key, *p, f.help)
		case *[]string:
			c.set.StringSliceVar(p, key, *p, f.help)
		}
	}
	c.set.StringVar(&c.file, "config", "", "TOML file with the same keys as the flags; flags win")
	c.set.BoolVar(&c.printConfig, "print-config", false, "print the configuration in force and exit")
	c.set.SortFlags = false
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

type field struct {
	ptr  any
	help string
}

func (c *command) fields() map[string]field {
	return map[string]field{
		"data-dir":  {&c.DataDir, "directory of all durable data"},
		"listen":    {&c.Listen, "address to listen on"},
		"advertise": {&c.Advertise, "address by which other processes reach this one (default: the listen address)"},
		"status":    {&c.Status, "address of /metrics, /healthz and /debug/pprof; empty = none"},
		"pd":        {&c.PD, "addresses of the placement driver, comma-separated"},
		"name":      {&c.Name, "name of this placement driver member"},
		"pid-file":  {&c.PIDFile, "file to write the process id to"},
		"log-file":  {&c.LogFile, "file to log to (default: standard error)"},
		"log-level": {&c.LogLevel, "debug, info, warn or error"},
		"insecure":  {&c.Insecure, "allow a listener outside loopback without TLS"},
		"tls-cert":  {&c.CertFile, "PEM certificate shown to MySQL clients (default: one made in the data directory)"},
		"tls-key":   {&c.KeyFile, "PEM key of the certificate"},
		"tls-ca":    {&c.CAFile, "PEM authority that certificates of MySQL clients must be signed by"},

		"cluster-cert-dir": {&c.CertDir, "directory with ca.pem, node.pem, node-key.pem: turns on mutual TLS between components"},
		"cache-size":       {&c.CacheSize, "block cache of the storage engine in bytes; 0 = a quarter of memory, at most 1 GiB"},
	}
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
	from := (&command{config: given}).fields()
	to := c.fields()
	c.set.Visit(func(f *pflag.Flag) {
		if src, ok := from[f.Name]; ok {
			assign(to[f.Name].ptr, src.ptr)
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

func assign(dst, src any) {
	switch d := dst.(type) {
	case *string:
		*d = *src.(*string)
	case *bool:
		*d = *src.(*bool)
	case *int64:
		*d = *src.(*int64)
	case *[]string:
		*d = *src.(*[]string)
	}
}

// print writes the configuration in force as a file that would reproduce it.
func (c *command) print(cmd *cobra.Command, keys []string) error {
	fields := c.fields()
	for _, key := range keys {
		f := fields[key]
		fmt.Fprintf(cmd.OutOrStdout(), "# %s\n", f.help)
		var buf bytes.Buffer
		if err := toml.NewEncoder(&buf).Encode(map[string]any{key: deref(f.ptr)}); err != nil {
			return err
		}
		fmt.Fprint(cmd.OutOrStdout(), buf.String())
	}
	return nil
}

func deref(p any) any {
	switch v := p.(type) {
	case *string:
		return *v
	case *bool:
		return *v
	case *int64:
		return *v
	case *[]string:
		return append([]string{}, *v...)
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
