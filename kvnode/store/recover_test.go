package store

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/proto/kvpb"
)

func TestSurvivorsOfALostMajority(t *testing.T) {
	const (
		voter    = kvpb.PeerRole_PEER_ROLE_VOTER
		learner  = kvpb.PeerRole_PEER_ROLE_LEARNER
		incoming = kvpb.PeerRole_PEER_ROLE_INCOMING_VOTER
		demoting = kvpb.PeerRole_PEER_ROLE_DEMOTING_VOTER
	)
	type peers []*kvpb.Peer
	peer := func(store uint64, role kvpb.PeerRole) *kvpb.Peer {
		return &kvpb.Peer{Id: 100 + store, StoreId: store, Role: role}
	}
	for _, c := range []struct {
		name  string
		peers peers
		lost  []uint64
		want  peers // nil = left alone
	}{
		{"one of three", peers{peer(1, voter), peer(2, voter), peer(3, voter)}, []uint64{3}, nil},
		{"two of three", peers{peer(1, voter), peer(2, voter), peer(3, voter)}, []uint64{2, 3}, peers{peer(1, voter)}},
		{"three of five", peers{peer(1, voter), peer(2, voter), peer(3, voter), peer(4, voter), peer(5, voter)}, []uint64{3, 4, 5}, peers{peer(1, voter), peer(2, voter)}},
		{"a learner stays one beside a voter", peers{peer(1, voter), peer(2, voter), peer(3, learner)}, []uint64{2}, peers{peer(1, voter), peer(3, learner)}},
		{"a learner that is alone votes", peers{peer(1, voter), peer(2, voter), peer(3, learner)}, []uint64{1, 2}, peers{peer(3, voter)}},
		{"joint, the old majority is lost", peers{peer(1, voter), peer(2, demoting), peer(3, voter), peer(4, incoming)}, []uint64{2, 3}, peers{peer(1, voter), peer(4, voter)}},
		{"joint, both majorities live", peers{peer(1, voter), peer(2, demoting), peer(3, voter), peer(4, incoming)}, []uint64{2}, nil},
		{"none is lost", peers{peer(1, voter)}, []uint64{9}, nil},
	} {
		region := &kvpb.Region{Id: 7, Epoch: &kvpb.RegionEpoch{ConfVer: 5, Version: 2}, Peers: c.peers}
		got := survivors(region, c.lost)
		if c.want == nil {
			require.Nil(t, got, c.name)
			continue
		}
		require.EqualValues(t, 5+recoveredConfVer, got.Epoch.ConfVer, c.name)
		require.EqualValues(t, 5, region.Epoch.ConfVer, "the argument is not changed")
		require.Len(t, got.Peers, len(c.want), c.name)
		for i, p := range c.want {
			require.Equal(t, p.StoreId, got.Peers[i].StoreId, c.name)
			require.Equal(t, p.Role, got.Peers[i].Role, c.name)
		}
	}
}
