package store

import (
	"testing"

	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
)

func TestWhatIsLeftOfARegion(t *testing.T) {
	region := func(roles ...kvpb.PeerRole) *kvpb.Region {
		r := &kvpb.Region{Id: 1, Epoch: &kvpb.RegionEpoch{ConfVer: 5, Version: 1}}
		for i, role := range roles {
			r.Peers = append(r.Peers, &kvpb.Peer{Id: uint64(i + 11), StoreId: uint64(i + 1), Role: role})
		}
		return r
	}
	const voter, learner = kvpb.PeerRole_PEER_ROLE_VOTER, kvpb.PeerRole_PEER_ROLE_LEARNER
	const incoming, demoting = kvpb.PeerRole_PEER_ROLE_INCOMING_VOTER, kvpb.PeerRole_PEER_ROLE_DEMOTING_VOTER
	require.Nil(t, withoutStores(region(voter, voter, voter), []uint64{3}), "a majority is left")
	require.Nil(t, withoutStores(region(voter, voter, voter), []uint64{1, 2, 3}), "nobody is left")
	left := withoutStores(region(voter, voter, voter), []uint64{2, 3})
	require.Len(t, left.Peers, 1)
	require.Greater(t, left.Epoch.ConfVer, uint64(5))
	left = withoutStores(region(voter, voter, voter, learner), []uint64{1, 2, 3})
	require.Equal(t, voter, left.Peers[0].Role, "a learner is better than nothing")
	left = withoutStores(region(voter, voter, incoming, demoting), []uint64{2, 3})
	require.Len(t, left.Peers, 2, "one of the two configurations has lost its majority")
	require.Equal(t, voter, left.Peers[1].Role)
}

func TestAStoreThatIsLeftAloneServesAgain(t *testing.T) {
	fs, pd := vfs.NewCrashableMem(), newFakePD(7)
	s := openStore(t, fs, pd)
	v, refused := s.admit(contextFor(s, "k"))
	require.Nil(t, refused)
	require.Nil(t, propose(t.Context(), v, "k", "v"))
	_, err := UnsafeRecover(RecoverOptions{Dir: "data", FS: fs, FailedStores: []uint64{9}})
	require.ErrorContains(t, err, "in use")
	require.NoError(t, s.Close())
	list, err := UnsafeRecover(RecoverOptions{Dir: "data", FS: fs, FailedStores: []uint64{9}})
	require.NoError(t, err)
	require.Empty(t, list, "it lacks nobody")
}
