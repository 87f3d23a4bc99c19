package kvclient

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/proto/kvpb"
)

// Region after region, again where a region has changed in between, and after an answer
// that says nothing.
func TestDestroyRangeVisitsEveryRegion(t *testing.T) {
	pd := &fakePD{addrs: map[uint64]string{1: "x"}}
	a, b, c := region(1, "", "f", 1), region(2, "f", "p", 1), region(3, "p", "", 1)
	pd.set(a, b, c)
	b1, b2 := region(2, "f", "k", 2), region(4, "k", "p", 2)
	var asked []uint64
	undetermined := true
	client := local(t, pd, handlerFunc(func(_ context.Context, req *kvpb.Request) *kvpb.Response {
		d := req.GetDestroyRange()
		require.NotEmpty(t, d.StartKey)
		require.Equal(t, "q", string(d.EndKey))
		asked = append(asked, d.Context.RegionId)
		var re *kvpb.RegionError
		switch {
		case d.Context.RegionId == 2 && d.Context.Epoch.Version == 1:
			re = &kvpb.RegionError{Kind: &kvpb.RegionError_EpochNotMatch{EpochNotMatch: &kvpb.EpochNotMatch{CurrentRegions: []*kvpb.Region{b1, b2}}}}
		case d.Context.RegionId == 4 && undetermined:
			undetermined = false
			re = &kvpb.RegionError{Kind: &kvpb.RegionError_Undetermined{Undetermined: &kvpb.Undetermined{}}}
		}
		return &kvpb.Response{Cmd: &kvpb.Response_DestroyRange{DestroyRange: &kvpb.DestroyRangeResponse{RegionError: re}}}
	}))
	require.NoError(t, client.DestroyRange(bg, []byte("b"), []byte("q")))
	require.Equal(t, []uint64{1, 2, 2, 4, 4, 3}, asked)
	require.Error(t, client.DestroyRange(bg, []byte("b"), nil))
	require.Error(t, client.DestroyRange(bg, nil, []byte("b")))
}
