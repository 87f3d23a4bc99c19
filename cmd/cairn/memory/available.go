package memory

import (
	"bufio"
	"bytes"
	"io/fs"
	"math"
	"path"
	"strconv"
	"strings"
)

// unknown is the memory of a machine that does not tell.
const unknown = 8 << 30

// Source says who bounds the memory of a process.
type Source string

// Who bounds it.
const (
	Machine Source = "the machine"
	Cgroup  Source = "the control group"
)

// Available is how much memory the process could take before the kernel stops it, in bytes:
// the machine's, or what its control group, one of version 1 or 2, or one above that
// may take, if that is less. root is the root of the file system, as os.DirFS("/").
func Available(root fs.FS) (int64, Source) {
	total := machine(root)
	if group := cgroup(root); group < total {
		return group, Cgroup
	}
	return total, Machine
}

// machine reads "MemTotal:  24571820 kB".
func machine(root fs.FS) int64 {
	for line := range lines(root, "proc/meminfo") {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "MemTotal:" {
			if kib, err := strconv.ParseInt(f[1], 10, 64); err == nil {
				return kib << 10
			}
		}
	}
	return unknown
}

// hierarchy is where a tree of control groups is mounted, and the file with the limit in
// each of its groups.
type hierarchy struct {
	v1    bool
	root  string // the group that is mounted
	mount string // where
	file  string
}

// cgroup is the least limit of the group of this process and those above it.
func cgroup(root fs.FS) int64 {
	least := int64(math.MaxInt64)
	groups := memberships(root)
	for line := range lines(root, "proc/self/mountinfo") {
		h, ok := parseMount(line)
		if !ok {
			continue
		}
		group, ok := groups[h.v1]
		if !ok {
			continue
		}
		// In a container the group may be named as the host sees it, and be mounted as root.
		rel, below := strings.CutPrefix(group, strings.TrimSuffix(h.root, "/"))
		if !below || strings.HasPrefix(rel, "/..") {
			rel = "/"
		}
		for at := path.Clean("/" + rel); ; at = path.Dir(at) {
			if n, ok := limit(root, path.Join(h.mount, at, h.file)); ok {
				least = min(least, n)
			}
			if at == "/" {
				break
			}
		}
	}
	return least
}

// memberships are the groups of this process that memory is counted in, by version: lines
// "4:memory:/a/b" and "0::/a/b".
func memberships(root fs.FS) map[bool]string {
	groups := map[bool]string{}
	for line := range lines(root, "proc/self/cgroup") {
		f := strings.SplitN(line, ":", 3)
		switch {
		case len(f) != 3:
		case f[0] == "0" && f[1] == "":
			groups[false] = f[2]
		case has(f[1], "memory"):
			groups[true] = f[2]
		}
	}
	return groups
}

// parseMount reads a line as "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory".
func parseMount(line string) (hierarchy, bool) {
	front, back, ok := strings.Cut(line, " - ")
	f, b := strings.Fields(front), strings.Fields(back)
	if !ok || len(f) < 5 || len(b) < 3 {
		return hierarchy{}, false
	}
	switch {
	case b[0] == "cgroup2":
		return hierarchy{root: f[3], mount: f[4], file: "memory.max"}, true
	case b[0] == "cgroup" && has(b[2], "memory"):
		return hierarchy{v1: true, root: f[3], mount: f[4], file: "memory.limit_in_bytes"}, true
	}
	return hierarchy{}, false
}

// limit reads a number of bytes, or "max". Of version 1 a number near 2^63 means none.
func limit(root fs.FS, name string) (int64, bool) {
	text, err := fs.ReadFile(root, strings.TrimPrefix(name, "/"))
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(string(bytes.TrimSpace(text)), 10, 64)
	return n, err == nil && n > 0
}

func has(list, name string) bool {
	for item := range strings.SplitSeq(list, ",") {
		if item == name {
			return true
		}
	}
	return false
}

// lines yields the lines of a file; none if it cannot be read.
func lines(root fs.FS, name string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		f, err := root.Open(name)
		if err != nil {
			return
		}
		defer f.Close()
		for sc := bufio.NewScanner(f); sc.Scan(); {
			if !yield(sc.Text()) {
				return
			}
		}
	}
}
