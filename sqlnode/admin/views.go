package admin

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/cairndb/cairn/internal/keys"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/pd/pdclient"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/pdpb"
	"github.com/cairndb/cairn/sqlnode/catalog"
)

// RegionRows makes the rows of information_schema.CAIRN_REGIONS, in key order.
func (c *Cluster) RegionRows(ctx context.Context, snap *catalog.Snapshot, add func(...types.Value) error) error {
	regions, err := c.Regions(ctx, nil, nil)
	if err != nil {
		return err
	}
	for _, r := range regions {
		id, db, table, index := owner(snap, r.GetRegion().GetStartKey())
		var pending, down []*kvpb.Peer
		pending = r.GetPendingPeers()
		for _, p := range r.GetDownPeers() {
			down = append(down, p.GetPeer())
		}
		operator := types.Null()
		if o := r.GetOperator(); o != nil {
			operator = types.String(o.GetKind() + ": " + o.GetReason())
		}
		err := add(
			types.Uint(r.GetRegion().GetId()), types.String(KeyText(r.GetRegion().GetStartKey())), types.String(KeyText(r.GetRegion().GetEndKey())),
			id, db, table, index,
			types.Uint(r.GetRegion().GetEpoch().GetVersion()), types.Uint(r.GetRegion().GetEpoch().GetConfVer()),
			types.Uint(r.GetLeader().GetId()), types.Uint(r.GetLeader().GetStoreId()),
			types.String(placesText(r.GetRegion().GetPeers())), types.String(placesText(pending)), types.String(placesText(down)),
			whole(r.GetRates().GetWrittenBytes()), whole(r.GetRates().GetReadBytes()), whole(r.GetRates().GetQueries()),
			types.Uint(r.GetApproximateBytes()), types.Uint(r.GetApproximateKeys()), operator, types.String(reason(r)),
		)
		if err != nil {
			return err
		}
	}
	return nil
}

// owner names the table and index of a key, NULL for none.
func owner(snap *catalog.Snapshot, key []byte) (id, db, table, index types.Value) {
	id, db, table, index = types.Null(), types.Null(), types.Null(), types.Null()
	n, _, err := keys.DecodeTable(key)
	if err != nil {
		return
	}
	id = types.Int(n)
	t := snap.TableByID(n)
	if t == nil {
		return
	}
	db, table = types.String(t.DB), types.String(t.Name)
	if _, ixID, _, err := keys.DecodeIndex(key); err == nil {
		if ix := t.IndexByID(ixID); ix != nil {
			index = types.String(ix.Name)
		}
	}
	return
}

// placesText lists replicas as id@store, learners in parentheses.
func placesText(peers []*kvpb.Peer) string {
	out := make([]string, len(peers))
	for i, p := range peers {
		out[i] = fmt.Sprintf("%d@%d", p.GetId(), p.GetStoreId())
		if p.GetRole() == kvpb.PeerRole_PEER_ROLE_LEARNER {
			out[i] = "(" + out[i] + ")"
		}
	}
	return strings.Join(out, ", ")
}

func whole(f float64) types.Value { return types.Uint(uint64(math.Round(max(f, 0)))) }

// StoreRows makes the rows of information_schema.CAIRN_STORES, by id.
func (c *Cluster) StoreRows(ctx context.Context, loc *time.Location, add func(...types.Value) error) error {
	stores, err := c.stores(ctx)
	if err != nil {
		return err
	}
	for _, d := range stores {
		started := types.Null()
		if at := d.GetStore().GetStartTimeUnix(); at != 0 {
			if loc == nil {
				loc = time.UTC
			}
			started = types.TimeVal(types.TimeOf(time.Unix(at, 0).In(loc)))
		}
		labels := make([]string, len(d.GetStore().GetLabels()))
		for i, l := range d.GetStore().GetLabels() {
			labels[i] = l.GetKey() + "=" + l.GetValue()
		}
		err := add(
			types.Uint(d.GetStore().GetId()), types.String(d.GetStore().GetAddress()), types.String(stateText(d)), types.String(strings.Join(labels, ", ")),
			types.String(d.GetStore().GetVersion()), started, types.Uint(d.GetSilentMs()),
			count(d.GetLeaders()), count(d.GetRegions()), count(d.GetLearners()), count(d.GetPending()),
			types.Uint(d.GetRegionBytes()), types.Uint(d.GetStats().GetCapacityBytes()), types.Uint(d.GetStats().GetAvailableBytes()),
			whole(d.GetRates().GetWrittenBytes()), whole(d.GetRates().GetReadBytes()), whole(d.GetRates().GetQueries()),
			types.String(strings.Join(d.GetRemarks(), "; ")),
		)
		if err != nil {
			return err
		}
	}
	return nil
}

func count(n uint32) types.Value { return types.Uint(uint64(n)) }

// stores describes all stores, with little to say of them when PD keeps no statistics.
func (c *Cluster) stores(ctx context.Context) ([]*pdpb.StoreDescription, error) {
	out, err := c.PD.DescribeStores(ctx)
	if !errors.Is(err, pdclient.ErrRefused) {
		return out, err
	}
	list, err := c.PD.GetStores(ctx)
	if err != nil {
		return nil, fmt.Errorf("list stores: %w", err)
	}
	for _, s := range list {
		d := &pdpb.StoreDescription{Store: s}
		switch s.GetState() {
		case kvpb.StoreState_STORE_STATE_OFFLINE:
			d.Liveness = pdpb.Liveness_LIVENESS_OFFLINE
		case kvpb.StoreState_STORE_STATE_TOMBSTONE:
			d.Liveness = pdpb.Liveness_LIVENESS_TOMBSTONE
		}
		out = append(out, d)
	}
	return out, nil
}

// stateText is Up, Disconnected, Down, Offline or Tombstone.
func stateText(d *pdpb.StoreDescription) string {
	name := strings.TrimPrefix(d.GetLiveness().String(), "LIVENESS_")
	if name == "" {
		return strconv.Itoa(int(d.GetLiveness()))
	}
	return name[:1] + strings.ToLower(name[1:])
}
