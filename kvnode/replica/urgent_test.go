package replica

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/proto/kvpb"
)

func TestUrgentWritesPassFlowControl(t *testing.T) {
	c := newCluster(t, 1)
	v := c.elect(0)
	s := c.stores[0]
	s.refuse = &kvpb.RegionError{Kind: &kvpb.RegionError_ServerIsBusy{ServerIsBusy: &kvpb.ServerIsBusy{}}}
	require.NotNil(t, v.Propose(t.Context(), set(v.Engine(), "a", "1")).GetServerIsBusy())
	s.admitted = 0
	require.Nil(t, c.await("write", c.async(func() *kvpb.RegionError {
		return v.ProposeUrgently(context.Background(), set(v.Engine(), "a", "1"))
	})))
	require.Zero(t, s.admitted, "nor does it count as let pass")
	s.refuse = nil
	require.Nil(t, c.await("write", c.async(func() *kvpb.RegionError {
		return v.Propose(context.Background(), set(v.Engine(), "a", "2"))
	})))
	require.Zero(t, s.admitted, "it is over")
}
