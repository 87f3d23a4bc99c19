package playground

import (
	"fmt"
	"os"
	"syscall"
)

// machineMemory is the memory of the machine in bytes.
func machineMemory() int64 {
	var info syscall.Sysinfo_t
	if syscall.Sysinfo(&info) != nil {
		return 8 << 30
	}
	return int64(info.Totalram) * int64(info.Unit)
}

// cachePerNode divides what one kv node would take for its block cache.
func cachePerNode(nodes int) int64 { return min(machineMemory()/4, 1<<30) / int64(nodes) }

// memoryLimit is the environment that divides the machine between the nodes,
// unless the user decided. Each gets twice its share: they are not all busy at once.
func memoryLimit(nodes int) []string {
	if os.Getenv("GOMEMLIMIT") != "" {
		return nil
	}
	return []string{fmt.Sprintf("GOMEMLIMIT=%d", max(256<<20, min(machineMemory()*6/10, machineMemory()*12/10/int64(nodes))))}
}
