package catalog

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"time"
)

// process identifies an operating system process, so that another one on the same machine can see that it is gone
// without waiting for its lease. The zero value identifies none: the system does not tell (it is not Linux).
type process struct {
	// Space is the boot of the machine and the pid namespace: only there does PID mean anything.
	Space string `json:"space,omitempty"`
	PID   int    `json:"pid,omitempty"`
	// Start is when the process started, in clock ticks since boot: pids are used again.
	Start string `json:"start,omitempty"`
}

// deadGrace is how long after a process was first seen dead its record still counts: requests it had sent may be on
// their way.
const deadGrace = time.Second

func thisProcess() process {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return process{}
	}
	ns, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return process{}
	}
	p := process{Space: strings.TrimSpace(string(boot)) + " " + ns, PID: os.Getpid()}
	if p.Start = startTime(p.PID); p.Start == "" {
		return process{}
	}
	return p
}

// startTime reads field 22 of /proc/PID/stat; "" when there is no such process or it is a zombie.
func startTime(pid int) string {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return ""
	}
	// The second field is the command in parentheses, which may hold anything.
	i := bytes.LastIndexByte(stat, ')')
	if i < 0 {
		return ""
	}
	fields := strings.Fields(string(stat[i+1:])) // from field 3, the state
	const state, start = 0, 22 - 3
	if len(fields) <= start || fields[state] == "Z" || fields[state] == "X" {
		return ""
	}
	return fields[start]
}

// knownDead says that p is a process of this machine that has ended.
func (p process) knownDead(self process) bool {
	return p.Space != "" && p.Space == self.Space && startTime(p.PID) != p.Start
}
