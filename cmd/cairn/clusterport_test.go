package main

import (
	"net"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTheClusterAddressOfTheLastStartIsTakenAgainIfItIsFree(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	c := &config{DataDir: t.TempDir()}
	require.NoError(t, c.rememberClusterAddress(ln.Addr().String()))

	addr, moved, err := c.clusterAddress()
	require.NoError(t, err)
	require.True(t, moved)
	require.NotEqual(t, ln.Addr().String(), addr, "somebody listens there")

	require.NoError(t, ln.Close())
	addr, _, err = c.clusterAddress()
	require.NoError(t, err)
	require.Equal(t, ln.Addr().String(), addr)
}

func TestAGivenClusterAddressIsTakenAsItIs(t *testing.T) {
	c := &config{DataDir: t.TempDir(), ClusterListen: "127.0.0.1:1234"}
	addr, moved, err := c.clusterAddress()
	require.NoError(t, err)
	require.False(t, moved)
	require.Equal(t, "127.0.0.1:1234", addr)
	require.NoError(t, c.rememberClusterAddress(addr))
	_, err = os.Stat(c.sub(clusterAddressFile))
	require.ErrorIs(t, err, os.ErrNotExist)
}
