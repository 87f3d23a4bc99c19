package pdclient

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/pdpb"
)

// stepper is a PD in this process that answers reports with a step and keeps the
// way for later ones.
type stepper struct {
	Handler
	deliver func(*pdpb.RegionHeartbeatResponse) bool
}

func (*stepper) ClusterID() uint64 { return 7 }

func (s *stepper) RegionHeartbeat(_ context.Context, req *pdpb.RegionHeartbeatRequest, deliver func(*pdpb.RegionHeartbeatResponse) bool) *pdpb.RegionHeartbeatResponse {
	s.deliver = deliver
	return split(req.Region.Id)
}

func split(id uint64) *pdpb.RegionHeartbeatResponse {
	return &pdpb.RegionHeartbeatResponse{RegionId: id, Step: &pdpb.RegionHeartbeatResponse_Split{Split: &pdpb.SplitStep{}}}
}

func TestStepsOfADirectClientAreDelivered(t *testing.T) {
	h := &stepper{}
	c := Direct(h)
	report := &pdpb.RegionHeartbeatRequest{Region: &kvpb.Region{Id: 5}}
	require.NoError(t, c.RegionHeartbeat(bg, report), "a client that takes no steps may report")
	require.False(t, h.deliver(split(6)))
	var got []uint64
	c.OnRegionStep(func(resp *pdpb.RegionHeartbeatResponse) { got = append(got, resp.RegionId) })
	require.NoError(t, c.RegionHeartbeat(bg, report))
	require.True(t, h.deliver(split(6)))
	require.Equal(t, []uint64{5, 6}, got)
}

func TestStepsOfARemoteClientAreDelivered(t *testing.T) {
	cluster := newCluster(t, 7, "a")
	cluster.step.Store(true)
	c := cluster.dial(t, "a")
	got := make(chan uint64, 10)
	c.OnRegionStep(func(resp *pdpb.RegionHeartbeatResponse) { got <- resp.RegionId })
	require.NoError(t, c.RegionHeartbeat(bg, &pdpb.RegionHeartbeatRequest{Region: &kvpb.Region{Id: 5}}))
	require.EqualValues(t, 5, <-got)
}

func TestTimestampsAreAwaitedUntilTheClusterIsReplicated(t *testing.T) {
	cluster := newCluster(t, 7, "a")
	cluster.young.Store(true)
	c := cluster.dial(t, "a")
	ctx, cancel := context.WithTimeout(bg, 50*time.Millisecond)
	defer cancel()
	_, err := c.TS(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	f := c.TSAsync(bg)
	cluster.young.Store(false)
	_, err = f.Wait()
	require.NoError(t, err)
}
