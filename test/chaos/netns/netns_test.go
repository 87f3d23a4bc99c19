package netns

import (
	"errors"
	"net"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestPacketsAreLostInOneDirection sends UDP from a host of its own to one in a
// namespace, where bash and its /dev/udp are the sender.
func TestPacketsAreLostInOneDirection(t *testing.T) {
	n, err := New()
	if errors.Is(err, ErrUnsupported) {
		t.Skip(err)
	}
	require.NoError(t, err)
	defer n.Close()
	a, err := n.Add("a")
	require.NoError(t, err)
	b, err := n.Add("b")
	require.NoError(t, err)

	// The listener lives on the bridge: what a sends to it passes, whatever is cut
	// between a and b.
	ln, err := net.ListenPacket("udp", n.subnet+"1:0")
	require.NoError(t, err)
	defer ln.Close()
	_, port, err := net.SplitHostPort(ln.LocalAddr().String())
	require.NoError(t, err)
	require.NoError(t, n.CutBoth("a", "b"))
	for _, h := range []*Host{a, b} {
		send := append(h.Through[1:], "bash", "-c", "echo hello > /dev/udp/"+n.subnet+"1/"+port)
		require.NoError(t, exec.Command(h.Through[0], send...).Run())
		require.NoError(t, ln.SetReadDeadline(time.Now().Add(10*time.Second)))
		_, from, err := ln.ReadFrom(make([]byte, 16))
		require.NoError(t, err)
		require.Equal(t, h.IP, from.(*net.UDPAddr).IP.String())
	}
	require.Len(t, n.cuts, 2)
	require.False(t, reaches(t, a, b))
	require.False(t, reaches(t, b, a))
	require.NoError(t, n.Heal())
	require.True(t, reaches(t, a, b))
	require.NoError(t, n.Cut("a", "b"))
	require.False(t, reaches(t, a, b))
	require.Error(t, n.Cut("a", "c"))
	require.NoError(t, n.Heal())
	require.NoError(t, n.Slow("a", 1000))
	require.True(t, reaches(t, a, b))
	require.NoError(t, n.Heal())
	if CanLose() {
		require.NoError(t, n.Lose("b", 100))
		require.False(t, reaches(t, a, b), "the answer is lost")
		require.NoError(t, n.Heal())
		require.True(t, reaches(t, a, b))
	}
}

// reaches reports whether b answers a: a port without a listener refuses, what is
// lost does not.
func reaches(t *testing.T, a, b *Host) bool {
	t.Helper()
	cmd := append(a.Through[1:], "timeout", "1", "bash", "-c", "echo > /dev/tcp/"+b.IP+"/9")
	err := exec.Command(a.Through[0], cmd...).Run()
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit)
	return exit.ExitCode() == 1 // refused; 124 is the timeout
}
