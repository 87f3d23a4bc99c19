package memory

import (
	"math"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
)

const (
	meminfo = "MemTotal:       16777216 kB\nMemFree:         1000 kB\n"
	gib     = 1 << 30
)

func TestAvailableIsTheLeastOfMachineAndControlGroups(t *testing.T) {
	const (
		v1 = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n36 31 0:33 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
		v2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
	)
	for _, c := range []struct {
		name  string
		files map[string]string
		want  int64
		from  Source
	}{
		{"nothing known", nil, 8 * gib, Machine},
		{"no groups", map[string]string{"proc/meminfo": meminfo}, 16 * gib, Machine},
		{"v2, a container", map[string]string{
			"proc/meminfo": meminfo, "proc/self/mountinfo": v2, "proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "1073741824\n",
		}, gib, Cgroup},
		{"v2, without a limit", map[string]string{
			"proc/meminfo": meminfo, "proc/self/mountinfo": v2, "proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n",
		}, 16 * gib, Machine},
		{"v2, a limit of a group above", map[string]string{
			"proc/meminfo": meminfo, "proc/self/mountinfo": v2, "proc/self/cgroup": "0::/system.slice/cairn.service\n",
			"sys/fs/cgroup/system.slice/memory.max": "2147483648\n", "sys/fs/cgroup/system.slice/cairn.service/memory.max": "max\n",
		}, 2 * gib, Cgroup},
		{"v2, the least of several", map[string]string{
			"proc/meminfo": meminfo, "proc/self/mountinfo": v2, "proc/self/cgroup": "0::/a/b\n",
			"sys/fs/cgroup/a/memory.max": "2147483648\n", "sys/fs/cgroup/a/b/memory.max": "4294967296\n",
		}, 2 * gib, Cgroup},
		{"v1", map[string]string{
			"proc/meminfo": meminfo, "proc/self/mountinfo": v1 + v2, "proc/self/cgroup": "4:memory:/x\n1:cpu,cpuacct:/y\n0::/\n",
			"sys/fs/cgroup/memory/x/memory.limit_in_bytes": "1073741824\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
		}, gib, Cgroup},
		{"v1, without a limit", map[string]string{
			"proc/meminfo": meminfo, "proc/self/mountinfo": v1, "proc/self/cgroup": "4:memory:/x\n",
			"sys/fs/cgroup/memory/x/memory.limit_in_bytes": "9223372036854771712\n",
		}, 16 * gib, Machine},
		{"v1, a container that sees the host's name of its group", map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "4:memory:/docker/abc\n",
			"proc/self/mountinfo":                        "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "1073741824\n",
		}, gib, Cgroup},
		{"a group that is not below what is mounted", map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "0::/../other\n", "proc/self/mountinfo": v2, "sys/fs/cgroup/memory.max": "1073741824\n",
		}, gib, Cgroup},
		{"what cannot be read", map[string]string{
			"proc/meminfo": "MemTotal: lots kB\n", "proc/self/cgroup": "nonsense\n", "proc/self/mountinfo": "nonsense\n1 2 - cgroup2\n" + v2,
			"sys/fs/cgroup/memory.max": "plenty\n",
		}, 8 * gib, Machine},
	} {
		root := fstest.MapFS{}
		for name, text := range c.files {
			root[name] = &fstest.MapFile{Data: []byte(text)}
		}
		got, from := Available(root)
		require.Equal(t, c.want, got, c.name)
		require.Equal(t, c.from, from, c.name)
	}
}

// What lives for long has to stay well below Go's limit, whatever the limit is.
func TestTheCollectorHasRoomUnderEveryLimit(t *testing.T) {
	last := Budget{}
	for limit := int64(LeastKV); limit < 64*gib; limit += 64 << 20 {
		b := Divide(limit)
		require.Less(t, b.Go, limit)
		require.GreaterOrEqual(t, limit-b.Go, int64(64<<20), "code and what the collector is late for, of %d", limit)
		// The memtables of the log, those of the state where they are more than the cache, the
		// cache with the quarter that rows take, a statement.
		lives := 4*b.MemTable + max(b.Cache, 5*b.MemTable) + b.Cache/4 + b.Quota
		require.LessOrEqual(t, lives, b.Go*3/4, "of %d", limit)
		require.LessOrEqual(t, b.Cache, b.MaxCache())
		require.True(t, b.Go >= last.Go && b.Cache >= last.Cache && b.MemTable >= last.MemTable && b.Quota >= last.Quota, "of %d", limit)
		last = b
	}
	require.Equal(t, Budget{Go: last.Go, Cache: gib, MemTable: 32 << 20, Quota: gib, Txn: 100 << 20}, last)
}

func TestTheFlagDecidesBeforeTheEnvironmentAndThatBeforeTheMachine(t *testing.T) {
	for _, c := range []struct {
		limit, goLimit, available int64
		source                    Source
		want                      Budget
		by                        string
	}{
		{gib, 5 * gib, 16 * gib, Machine, Divide(gib), "--memory-limit"},
		{0, 2 * gib, 16 * gib, Machine, Within(2 * gib), "GOMEMLIMIT"},
		{0, 0, 16 * gib, Machine, Divide(12 * gib), "the machine"},
		{0, 0, gib, Cgroup, Divide(gib), "the control group"},
		{0, math.MaxInt64, gib, Cgroup, Budget{Go: math.MaxInt64, Cache: Divide(gib).Cache, MemTable: Divide(gib).MemTable, Quota: Divide(gib).Quota, Txn: Divide(gib).Txn}, "GOMEMLIMIT"},
	} {
		got, by := Plan(c.limit, c.goLimit, c.available, c.source)
		require.Equal(t, c.want, got)
		require.Equal(t, c.by, by)
	}
}
