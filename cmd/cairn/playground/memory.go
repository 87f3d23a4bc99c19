package playground

import (
	"fmt"
	"os"
	"runtime/debug"

	"github.com/cairndb/cairn/cmd/cairn/memory"
)

// memoryFlags divide the memory there is between the nodes, of which kvs are kv nodes. Each gets twice its share: they
// are not all busy at once. Block caches are filled and stay, so there each gets its share alone.
func memoryFlags(role string, nodes, kvs int) []string {
	available, source := memory.Available(os.DirFS("/"))
	limit := max(memory.LeastKV, min(available/4*3, available*3/2/int64(nodes)))
	b, flags := memory.Divide(limit), []string{"--memory-limit", fmt.Sprint(limit)}
	if os.Getenv("GOMEMLIMIT") != "" { // the user decided, for each of them
		b, _ = memory.Plan(0, debug.SetMemoryLimit(-1), available, source)
		flags = nil
	}
	if role == RoleKV {
		flags = append(flags, "--cache-size", fmt.Sprint(min(min(available/4, 1<<30)/int64(kvs), b.Cache)))
	}
	return flags
}
