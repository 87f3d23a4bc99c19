package server

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// ticksPerSecond is USER_HZ, the unit of times in /proc: 100 on Linux.
const ticksPerSecond = 100

// Usage is what a process has used so far.
type Usage struct {
	CPU time.Duration // user and system
	RSS int64         // resident memory in bytes, now
}

// UsageOf reads the usage of a process from /proc.
func UsageOf(pid int) (Usage, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return Usage{}, err
	}
	// The name in parentheses may contain anything; fields are counted behind it.
	_, rest, ok := strings.Cut(string(raw), ") ")
	f := strings.Fields(rest)
	if !ok || len(f) < 22 {
		return Usage{}, fmt.Errorf("/proc/%d/stat: unexpected form", pid)
	}
	number := func(i int) int64 {
		n, _ := strconv.ParseInt(f[i], 10, 64)
		return n
	}
	ticks := number(11) + number(12) // utime, stime
	return Usage{
		CPU: time.Duration(ticks) * time.Second / ticksPerSecond,
		RSS: number(21) * int64(os.Getpagesize()),
	}, nil
}

// Usage is what the server has used so far.
func (s *Server) Usage() (Usage, error) { return UsageOf(s.PID) }
