package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// field is one key of the configuration: where it lies, under which heading
// --help shows it, and what it says there.
type field struct {
	group string
	in    func(*config) any // pointer to the value
	help  string
}

// The headings of --help, in this order.
const (
	groupData    = "Data"
	groupAddress = "Addresses"
	groupMembers = "Cluster"
	groupRaft    = "Raft and regions"
	groupTLS     = "Security"
	groupProcess = "Process"
)

var groups = []string{groupData, groupAddress, groupMembers, groupRaft, groupTLS, groupProcess}

var fields = map[string]field{
	"data-dir":   {groupData, func(c *config) any { return &c.DataDir }, "directory of all durable data"},
	"cache-size": {groupData, func(c *config) any { return &c.CacheSize }, "block cache of the storage engine, to which it adds a quarter for rows read lately; 0 = a quarter of Go's memory, at most 1GiB"},

	"unsafe-no-sync": {groupData, func(c *config) any { return &c.UnsafeNoSync }, "FOR TESTS: do not make anything durable; what was acknowledged is lost in a crash"},

	"raft-tick":         {groupRaft, func(c *config) any { return &c.RaftTick }, "unit of Raft's time; the same on all nodes (default 100ms)"},
	"raft-heartbeat":    {groupRaft, func(c *config) any { return &c.RaftHeartbeat }, "between two heartbeats of a leader (default two ticks)"},
	"raft-election":     {groupRaft, func(c *config) any { return &c.RaftElection }, "without a heartbeat until an election, up to twice that (default five heartbeats)"},
	"raft-lease":        {groupRaft, func(c *config) any { return &c.RaftLease }, "how long a leader serves reads without hearing of a quorum (default eight tenths of the election time, which is also the most)"},
	"region-split-size": {groupRaft, func(c *config) any { return &c.RegionSplitSize }, "size of the pieces that a region is split into (default: as PD says, 256MiB)"},
	"region-max-size":   {groupRaft, func(c *config) any { return &c.RegionMaxSize }, "size at which a region is split (default: as PD says, 384MiB)"},
	"region-split-qps":  {groupRaft, func(c *config) any { return &c.RegionSplitQPS }, "queries per second from which a region is split so that other nodes can share its load; 0 = when this process is short of processors; less than 0 = never"},
	"replicas":          {groupMembers, func(c *config) any { return &c.Replicas }, "copies of the data in a new cluster, which answers when it has them; 0 = 3 as soon as there are three nodes; later 'cairn ctl config set replicas=N'"},

	"listen":    {groupAddress, func(c *config) any { return &c.Listen }, "address to listen on"},
	"advertise": {groupAddress, func(c *config) any { return &c.Advertise }, "address by which other processes reach this one (default: the listen address)"},
	"status":    {groupAddress, func(c *config) any { return &c.Status }, "address of /metrics, /healthz and /debug/pprof; empty = none"},
	"pd":        {groupAddress, func(c *config) any { return &c.PD }, "addresses of the placement driver, comma-separated"},
	"labels":    {groupMembers, func(c *config) any { return &c.Labels }, "where this node is, for placement and for reads of the closest replica: zone=a,host=h1"},
	"name":      {groupMembers, func(c *config) any { return &c.Name }, "name of this placement driver member"},

	"cluster-listen":    {groupMembers, func(c *config) any { return &c.ClusterListen }, "address for the other processes of the cluster (default: " + defaultClusterListen + ", or the next free port)"},
	"cluster-advertise": {groupMembers, func(c *config) any { return &c.ClusterAdvertise }, "address by which they reach this one (default: the cluster listen address)"},

	"initial-cluster": {groupMembers, func(c *config) any { return &c.InitialCluster }, "a new placement driver of several members: all of them, as name=address, comma-separated"},
	"join":            {groupMembers, func(c *config) any { return &c.Join }, "become part of the cluster that has these members, comma-separated; one is enough"},

	"insecure":         {groupTLS, func(c *config) any { return &c.Insecure }, "allow a listener outside loopback without TLS"},
	"tls-cert":         {groupTLS, func(c *config) any { return &c.CertFile }, "PEM certificate shown to MySQL clients (default: one made in the data directory)"},
	"tls-key":          {groupTLS, func(c *config) any { return &c.KeyFile }, "PEM key of the certificate"},
	"tls-ca":           {groupTLS, func(c *config) any { return &c.CAFile }, "PEM authority that certificates of MySQL clients must be signed by"},
	"cluster-cert-dir": {groupTLS, func(c *config) any { return &c.CertDir }, "directory with ca.pem, node.pem, node-key.pem: turns on mutual TLS between components"},

	"memory-limit": {groupProcess, func(c *config) any { return &c.MemoryLimit }, "memory of the process as a whole; caches, memtables and the quota of a statement follow from it (default: GOMEMLIMIT, or what the control group allows, or three quarters of the machine)"},
	"stop-timeout": {groupProcess, func(c *config) any { return &c.StopTimeout }, "on SIGTERM, the time to hand leaders and clients over; Ctrl-C does not wait"},

	"pid-file":  {groupProcess, func(c *config) any { return &c.PIDFile }, "file to write the process id to"},
	"log-file":  {groupProcess, func(c *config) any { return &c.LogFile }, "file to log to (default: standard error)"},
	"log-level": {groupProcess, func(c *config) any { return &c.LogLevel }, "debug, info, warn or error"},
}

// groupedUsage prints the flags under their headings.
func groupedUsage(cmd *cobra.Command, keys []string) error {
	out := cmd.OutOrStderr()
	fmt.Fprintf(out, "Usage:\n  %s\n", cmd.UseLine())
	for _, group := range groups {
		set := pflag.NewFlagSet("", pflag.ContinueOnError)
		set.SortFlags = false
		for _, key := range keys {
			if fields[key].group == group {
				set.AddFlag(cmd.Flags().Lookup(key))
			}
		}
		if group == groupProcess {
			cmd.Flags().VisitAll(func(f *pflag.Flag) {
				if !slices.Contains(keys, f.Name) {
					set.AddFlag(f)
				}
			})
		}
		if set.HasFlags() {
			fmt.Fprintf(out, "\n%s:\n%s", group, set.FlagUsages())
		}
	}
	return nil
}

// flagError adds the flag that was probably meant to an error about one that
// does not exist.
func flagError(cmd *cobra.Command, err error) error {
	const unknown = "unknown flag: --"
	_, name, ok := strings.Cut(err.Error(), unknown)
	if !ok {
		return fmt.Errorf("%w; see '%s --help'", err, cmd.CommandPath())
	}
	best, distance := "", 3
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if d := editDistance(name, f.Name); d < distance || strings.HasPrefix(f.Name, name) && distance > 1 {
			best, distance = f.Name, min(d, 1)
		}
	})
	if best == "" {
		return fmt.Errorf("%w; see '%s --help'", err, cmd.CommandPath())
	}
	return fmt.Errorf("%w; did you mean --%s?", err, best)
}

// editDistance is the number of letters to insert, delete or replace.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
