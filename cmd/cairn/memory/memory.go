// Package memory says how much memory a process may take, and divides it.
package memory

import "math"

const (
	// Least is the smallest limit of a process, LeastKV of one with a KV node. The
	// code alone is some 50 MiB, and under writes a KV node needs what it needs.
	Least, LeastKV = 128 << 20, 512 << 20

	// outside is the most that is left for what Go does not count and for what the
	// collector is late for.
	outside = 1 << 30

	maxCache    = 1 << 30
	maxMemTable = 32 << 20
	minMemTable = 4 << 20
	maxQuota    = 1 << 30
	maxTxn      = 100 << 20
)

// Budget is the memory of a process in bytes.
//
// Go's collector runs the more often the nearer what is alive comes to Go's limit, and in
// the end takes half of all CPU and lets the limit go. So what lives for long, the block
// cache, the memtables of both databases and one statement that uses its quota, is together
// about two thirds of it. (Built without cgo, cache and memtables lie on Go's heap.)
type Budget struct {
	// Go is the soft limit of Go's runtime: its heap, stacks and what it keeps of both to use
	// again. The process takes some 50 MiB more, for its code, and what the
	// collector is late for.
	Go int64
	// Cache is the block cache. The state's memtables are taken from it while it has room.
	Cache int64
	// MemTable is the size of a memtable; there may be four or five of each database.
	MemTable int64
	// Quota is what one statement may take.
	Quota int64
	// Txn is what one transaction may hold until it commits. On its way through the commit it is
	// there four times.
	Txn int64
}

// Plan divides the memory of a process. limit is what it was told to take, 0 = nothing was said;
// goLimit is the soft limit that Go's runtime took from its environment, 0 = none, math.MaxInt64 = off;
// available and source are as Available says. The first of them that says something decides, and by names it.
func Plan(limit, goLimit, available int64, source Source) (b Budget, by string) {
	switch {
	case limit > 0:
		return Divide(limit), "--memory-limit"
	case goLimit > 0 && goLimit < available:
		return Within(goLimit), "GOMEMLIMIT"
	case source == Cgroup: // it is there for this process
		b, by = Divide(available), string(source)
	default: // it is shared, with the page cache at least
		b, by = Divide(available/4*3), string(source)
	}
	if goLimit > 0 {
		b.Go, by = goLimit, "GOMEMLIMIT"
	}
	return b, by
}

// Divide divides the memory of a process that may take limit bytes as a whole.
func Divide(limit int64) Budget { return Within(limit - min(limit/4, outside)) }

// Within divides the memory below Go's soft limit; math.MaxInt64 is none.
func Within(soft int64) Budget {
	return Budget{
		Go:       soft,
		Cache:    min(soft/4, maxCache),
		MemTable: min(max(soft/32, minMemTable), maxMemTable),
		Quota:    min(soft/4, maxQuota),
		Txn:      min(soft/8, maxTxn),
	}
}

// Engine is what a storage engine holds at most of that: its cache, and the memtables of its two databases.
func (b Budget) Engine() int64 { return b.Cache + 9*b.MemTable }

// MaxCache is the largest block cache that leaves room for everything else.
func (b Budget) MaxCache() int64 {
	if b.Go == math.MaxInt64 {
		return b.Go
	}
	return b.Go / 2
}
