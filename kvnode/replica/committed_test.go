package replica

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/kvnode/engine"
	"github.com/cairndb/cairn/proto/kvpb"
)

// ProposeCommitted tells of the visibility once, when it is there, if it has answered nil and only then.
func TestProposeCommitted(t *testing.T) {
	c := newCluster(t, 3)
	v := c.elect(0)
	visible := make(chan bool, 8)
	propose := func(value string) *kvpb.RegionError {
		return c.await("write", c.async(func() *kvpb.RegionError {
			return v.ProposeCommitted(context.Background(), set(v.Engine(), "a", value), 0, func() {}, func(ok bool) {
				got, _, err := v.Engine().GetVersioned(engine.CFWrite, []byte("a"), 1)
				visible <- ok && err == nil && string(got) == value
			})
		}))
	}
	for _, value := range []string{"1", "2", "3"} {
		require.Nil(t, propose(value))
		require.True(t, <-visible)
	}
	since := v.Refusals()
	require.NotNil(t, c.await("write", c.async(func() *kvpb.RegionError {
		return v.ProposeCommitted(context.Background(), set(v.Engine(), "a", "x"), since+1, func() {}, func(bool) { t.Error("it rests on what was refused") })
	})).GetServerIsBusy())
	require.Equal(t, since+1, v.Refusals())
	c.stores[0].refuse = &kvpb.RegionError{Kind: &kvpb.RegionError_ServerIsBusy{ServerIsBusy: &kvpb.ServerIsBusy{}}}
	require.NotNil(t, propose("4").GetServerIsBusy())
	c.stores[0].refuse = nil
	c.settle() // the peer is known to have caught up
	require.Nil(t, c.await("transfer", c.async(func() *kvpb.RegionError { return v.TransferLeader(context.Background(), 12) })))
	require.NotNil(t, propose("5"), "the view is of another term")
	require.Equal(t, since+1, v.Refusals(), "none of them had a place")
	require.Empty(t, visible)
}
