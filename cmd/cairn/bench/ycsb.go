package bench

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
)

// operation is what a client does once.
type operation int

const (
	opRead operation = iota
	opUpdate
	opInsert
	opScan
	opModify // read, change, write
	operationCount
)

var operationNames = [operationCount]string{"read", "update", "insert", "scan", "read-modify-write"}

// workload is a mix of operations, in percent, and how records are chosen.
type workload struct {
	name    string
	percent [operationCount]int
	latest  bool // newer records more often; else a few of all, Zipf's law
}

// workloads are those of YCSB (Cooper et al., Benchmarking Cloud Serving Systems with YCSB, 2010).
var workloads = map[string]workload{
	"a": {"a: update heavy", [operationCount]int{opRead: 50, opUpdate: 50}, false},
	"b": {"b: read mostly", [operationCount]int{opRead: 95, opUpdate: 5}, false},
	"c": {"c: read only", [operationCount]int{opRead: 100}, false},
	"d": {"d: read latest", [operationCount]int{opRead: 95, opInsert: 5}, true},
	"e": {"e: short ranges", [operationCount]int{opScan: 95, opInsert: 5}, false},
	"f": {"f: read-modify-write", [operationCount]int{opRead: 50, opModify: 50}, false},
}

// maxScan is how many records a scan reads at most; the number is uniform.
const maxScan = 100

func (w workload) choose(rng *rand.Rand) operation {
	n := rng.IntN(100)
	for op, p := range w.percent {
		if n -= p; n < 0 {
			return operation(op)
		}
	}
	return opRead
}

// chooser chooses records. It is safe for concurrent use.
type chooser struct {
	zipf   zipf
	latest bool
	count  atomic.Int64 // records there are: all numbers below it

	mu    sync.Mutex     // protects ahead
	ahead map[int64]bool // records that are there, though one before them is not yet
}

func newChooser(records int, latest bool) *chooser {
	c := &chooser{zipf: newZipf(records), latest: latest, ahead: map[int64]bool{}}
	c.count.Store(int64(records))
	return c
}

// inserted tells that record n is there.
func (c *chooser) inserted(n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead[n] = true
	for at := c.count.Load(); c.ahead[at]; at++ {
		delete(c.ahead, at)
		c.count.Store(at + 1)
	}
}

// next is the number of a record that exists.
func (c *chooser) next(rng *rand.Rand) int64 {
	n := c.count.Load()
	rank := int64(c.zipf.next(rng))
	if c.latest {
		return max(n-1-rank, 0)
	}
	return int64(hash(uint64(rank)) % uint64(n))
}

// zipf draws ranks by Zipf's law with exponent 0.99 (Gray et al., Quickly Generating
// Billion-Record Synthetic Databases, 1994). The zero rank is the most frequent.
type zipf struct {
	n                 float64
	alpha, eta, zetan float64
}

const theta = 0.99

func newZipf(n int) zipf {
	zeta := func(n int) (sum float64) {
		for i := 1; i <= n; i++ {
			sum += 1 / math.Pow(float64(i), theta)
		}
		return sum
	}
	z := zipf{n: float64(n), alpha: 1 / (1 - theta), zetan: zeta(n)}
	z.eta = (1 - math.Pow(2/z.n, 1-theta)) / (1 - zeta(2)/z.zetan)
	return z
}

func (z *zipf) next(rng *rand.Rand) int {
	u := rng.Float64()
	uz := u * z.zetan
	switch {
	case uz < 1:
		return 0
	case uz < 1+math.Pow(0.5, theta):
		return min(1, int(z.n)-1)
	}
	return min(int(z.n*math.Pow(z.eta*u-z.eta+1, z.alpha)), int(z.n)-1)
}

func hash(n uint64) uint64 {
	h := fnv.New64a()
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], n)
	_, _ = h.Write(b[:])
	return h.Sum64()
}

// keyPrefix begins all keys of the benchmark, keyEnd ends them.
const (
	keyPrefix = "ycsb/"
	keyEnd    = "ycsb0"
)

// key is where record n is; neighbours in number are far apart.
func key(n int64) []byte { return fmt.Appendf(nil, "%suser%016x", keyPrefix, hash(uint64(n))) }

// value is a new value for a record.
func value(rng *rand.Rand, size int) []byte {
	v := make([]byte, size)
	for i := range v {
		v[i] = 'a' + byte(rng.Uint32()%26)
	}
	return v
}
