package catalog

import (
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestAProcessIsSeenToBeDead with a child that has ended but is not reaped, and one that is.
func TestAProcessIsSeenToBeDead(t *testing.T) {
	self := thisProcess()
	if self.Space == "" {
		t.Skip("the system does not tell")
	}
	require.False(t, self.knownDead(self))
	require.False(t, process{}.knownDead(self))
	require.False(t, process{Space: "another machine", PID: 1, Start: "1"}.knownDead(self))
	require.True(t, process{Space: self.Space, PID: self.PID, Start: "1"}.knownDead(self), "the pid was used again")

	child := exec.Command("sleep", "60")
	require.NoError(t, child.Start())
	p := process{Space: self.Space, PID: child.Process.Pid, Start: startTime(child.Process.Pid)}
	require.NotEmpty(t, p.Start)
	require.False(t, p.knownDead(self))
	require.NoError(t, child.Process.Signal(os.Kill))
	require.Eventually(t, func() bool { return p.knownDead(self) }, 5*time.Second, time.Millisecond)
	require.Error(t, child.Wait())
	require.True(t, p.knownDead(self))
}

func TestTheDeadCountForASecond(t *testing.T) {
	c := &Catalog{process: thisProcess()}
	if c.process.Space == "" {
		t.Skip("the system does not tell")
	}
	c.mu.dead = map[string]time.Time{}
	r := nodeRecord{ID: "x", Process: process{Space: c.process.Space, PID: c.process.PID, Start: "1"}}
	require.False(t, c.longDead(r))
	require.False(t, c.longDead(r))
	c.mu.dead["x"] = time.Now().Add(-2 * deadGrace)
	require.True(t, c.longDead(r))
}
