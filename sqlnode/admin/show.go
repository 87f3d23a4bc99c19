package admin

import (
	"math"
	"strconv"
	"strings"

	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/pdpb"
)

// RegionColumns are the columns of SHOW TABLE ... REGIONS: TiDB's, and why PD moves
// the region or lets it be.
var RegionColumns = []struct {
	Name string
	Type types.Type
}{
	{"REGION_ID", types.NewUint()}, {"START_KEY", types.NewString(256, 255)}, {"END_KEY", types.NewString(256, 255)},
	{"LEADER_ID", types.NewUint()}, {"LEADER_STORE_ID", types.NewUint()}, {"PEERS", types.NewString(256, 255)},
	{"SCATTERING", types.NewInt()}, {"WRITTEN_BYTES", types.NewUint()}, {"READ_BYTES", types.NewUint()},
	{"APPROXIMATE_SIZE(MB)", types.NewUint()}, {"APPROXIMATE_KEYS", types.NewUint()},
	{"SCHEDULING_CONSTRAINTS", types.NewString(256, 255)}, {"SCHEDULING_STATE", types.NewString(16, 255)},
	{"REASON", types.NewString(1024, 255)},
}

// trafficSeconds is what WRITTEN_BYTES and READ_BYTES are about: the traffic of a
// minute, at the average rate of late.
const trafficSeconds = 60

// RegionRow describes a region in RegionColumns.
func RegionRow(r *pdpb.RegionDescription) []types.Value {
	return []types.Value{
		types.Uint(r.GetRegion().GetId()), types.String(KeyText(r.GetRegion().GetStartKey())), types.String(KeyText(r.GetRegion().GetEndKey())),
		types.Uint(r.GetLeader().GetId()), types.Uint(r.GetLeader().GetStoreId()), types.String(peersText(r.GetRegion().GetPeers())),
		boolean(scattering(r)), traffic(r.GetRates().GetWrittenBytes()), traffic(r.GetRates().GetReadBytes()),
		types.Uint((r.GetApproximateBytes() + 1<<20 - 1) >> 20), types.Uint(r.GetApproximateKeys()),
		types.String(""), types.String(state(r)), types.String(reason(r)),
	}
}

func traffic(perSecond float64) types.Value {
	return types.Uint(uint64(math.Round(max(perSecond, 0) * trafficSeconds)))
}

func boolean(b bool) types.Value {
	if b {
		return types.Int(1)
	}
	return types.Int(0)
}

func peersText(peers []*kvpb.Peer) string {
	ids := make([]string, len(peers))
	for i, p := range peers {
		ids[i] = strconv.FormatUint(p.Id, 10)
	}
	return strings.Join(ids, ", ")
}

// scattering reports whether an operator spreads the region.
func scattering(r *pdpb.RegionDescription) bool {
	return strings.HasPrefix(r.GetOperator().GetKind(), "scatter")
}

func state(r *pdpb.RegionDescription) string {
	if r.GetOperator() != nil {
		return "INPROGRESS"
	}
	if len(r.GetProblems()) > 0 {
		return "PENDING"
	}
	return "SCHEDULED"
}

func reason(r *pdpb.RegionDescription) string {
	parts := append([]string(nil), r.GetProblems()...)
	if r.GetReason() != "" {
		parts = append(parts, r.GetReason())
	}
	return strings.Join(parts, "; ")
}
