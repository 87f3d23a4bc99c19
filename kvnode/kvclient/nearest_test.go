package kvclient

import (
	"context"
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/proto/kvpb"
)

// bed is a region on three stores, led by store 1, that note what they are asked.
type bed struct {
	t     *testing.T
	pd    *fakePD
	c     *Client
	asked []string
	// notReady: replicas that do not lead have not been told of anything closed, or have not
	// applied the index.
	notReady bool
	refuse   *kvpb.RegionError // of the leader, to read_index
	open     [][]byte          // what the leader leaves open
}

func newBed(t *testing.T, o Options) *bed {
	b := &bed{t: t, pd: &fakePD{leaders: map[uint64]*kvpb.Peer{}, labels: map[uint64][]*kvpb.StoreLabel{}}}
	m := region(7, "", "", 1, 1, 2, 3)
	b.pd.set(m)
	b.pd.leaders[7] = m.Peers[0]
	o.PD = b.pd
	o.Local = func(id uint64) Handler {
		return handlerFunc(func(_ context.Context, req *kvpb.Request) *kvpb.Response { return b.execute(id, req) })
	}
	b.c = New(o)
	t.Cleanup(func() { require.NoError(t, b.c.Close()) })
	return b
}

func (b *bed) execute(store uint64, req *kvpb.Request) *kvpb.Response {
	if r := req.GetReadIndex(); r != nil {
		b.asked = append(b.asked, fmt.Sprintf("%d close %d keep %v", store, r.ReadTs, r.KeepClosing))
		return &kvpb.Response{Cmd: &kvpb.Response_ReadIndex{ReadIndex: &kvpb.ReadIndexResponse{RegionError: b.refuse, Index: 99, OpenKeys: b.open}}}
	}
	c := req.GetGet().Context
	b.asked = append(b.asked, fmt.Sprintf("%d read at %d %d", store, c.ReadIndex, c.ReplicaRead))
	if c.Peer.StoreId != store {
		b.t.Errorf("asked store %d for peer %v", store, c.Peer)
	}
	if store != 1 && (b.notReady || c.ReadIndex == 0) {
		return respond(req, &kvpb.RegionError{Kind: &kvpb.RegionError_DataIsNotReady{DataIsNotReady: &kvpb.DataIsNotReady{}}})
	}
	return respond(req, nil)
}

// get reads a key and returns what the stores were asked meanwhile.
func (b *bed) get(ts uint64, mode kvpb.ReplicaRead) []string {
	b.t.Helper()
	b.asked = nil
	req := &kvpb.GetRequest{Context: &kvpb.Context{ReplicaRead: mode}, Key: []byte("k"), ReadTs: ts}
	resp, err := b.c.Get(context.Background(), req)
	require.NoError(b.t, err)
	require.Equal(b.t, "v-k", string(resp.Value))
	require.Equal(b.t, mode, req.Context.ReplicaRead, "the caller's")
	return b.asked
}

const (
	follower = kvpb.ReplicaRead_REPLICA_READ_FOLLOWER
	closest  = kvpb.ReplicaRead_REPLICA_READ_CLOSEST
)

func tsOf(at time.Time) uint64 { return uint64(at.UnixMilli()) << 18 }

func TestAFollowerReadAsksTheLeaderOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, Options{})
		ts := tsOf(time.Now())
		require.Equal(t, []string{"1 read at 0 0"}, b.get(ts, kvpb.ReplicaRead_REPLICA_READ_LEADER))
		first := b.get(ts, follower)
		require.Equal(t, fmt.Sprintf("1 close %d keep false", ts), first[0])
		require.Len(t, first, 2)
		require.Regexp(t, "^[23] read at 99 1$", first[1])
		second := b.get(ts-5, follower)
		require.Len(t, second, 1, "what is closed stays closed")
		require.NotEqual(t, first[1][0], second[0][0], "the followers take turns")
		require.Len(t, b.get(ts+1, follower), 2)
		require.Equal(t, []string{"1 read at 0 0"}, b.get(math.MaxUint64, follower), "the newest version only the leader knows")
	})
}

// Keys that are being committed are read at the leader, others nearby.
func TestOpenKeysAreReadAtTheLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, Options{FromStore: 2})
		b.open = [][]byte{[]byte("z"), []byte("k"), []byte("a")}
		got := b.get(tsOf(time.Now()), closest)
		require.Equal(t, "1 read at 0 0", got[len(got)-1])
		require.Equal(t, []string{"1 read at 0 0"}, b.get(tsOf(time.Now())-1, closest), "as long as it goes by this answer")
		b.open = [][]byte{[]byte("l"), []byte("j")}
		got = b.get(tsOf(time.Now())+1, closest)
		require.Equal(t, "2 read at 99 2", got[len(got)-1])
	})
}

func TestWhatAClosedTimestampCovers(t *testing.T) {
	cl := &closed{open: [][]byte{[]byte("c"), []byte("m")}}
	get := func(k string) *kvpb.Request {
		return &kvpb.Request{Cmd: &kvpb.Request_Get{Get: &kvpb.GetRequest{Key: []byte(k)}}}
	}
	batch := func(keys ...string) *kvpb.Request {
		req := &kvpb.BatchGetRequest{}
		for _, k := range keys {
			req.Keys = append(req.Keys, []byte(k))
		}
		return &kvpb.Request{Cmd: &kvpb.Request_BatchGet{BatchGet: req}}
	}
	scan := func(start, end string) *kvpb.Request {
		return &kvpb.Request{Cmd: &kvpb.Request_Scan{Scan: &kvpb.ScanRequest{StartKey: []byte(start), EndKey: []byte(end)}}}
	}
	for _, req := range []*kvpb.Request{get("b"), get("c1"), get("z"), batch("a", "b", "d"), scan("a", "c"), scan("c1", "m"), scan("m1", "")} {
		require.True(t, cl.covers(req), "%v", req)
		require.True(t, (&closed{}).covers(req))
	}
	for _, req := range []*kvpb.Request{get("c"), get("m"), batch("a", "m"), scan("a", "c1"), scan("c", "d"), scan("d", ""), scan("", "")} {
		require.False(t, cl.covers(req), "%v", req)
	}
}

func TestAnOldReadNeedsNoLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, Options{})
		ts := tsOf(time.Now().Add(-5 * time.Second))
		got := b.get(ts, follower)
		require.Len(t, got, 3)
		require.Regexp(t, "^[23] read at 0 1$", got[0], "perhaps the replica knows")
		require.Equal(t, fmt.Sprintf("1 close %d keep true", ts), got[1])
		require.Regexp(t, "^[23] read at 99 1$", got[2])
		require.Len(t, b.get(ts, follower), 1)
	})
}

func TestTheLeaderServesWhatAReplicaCannot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, Options{})
		b.notReady = true
		got := b.get(tsOf(time.Now()), follower)
		require.Equal(t, "1 read at 0 0", got[len(got)-1])
		require.Equal(t, []string{"1 read at 0 0"}, b.get(tsOf(time.Now()), follower), "the next ones would wait too")
		time.Sleep(lagPause)
		b.refuse = &kvpb.RegionError{Kind: &kvpb.RegionError_StaleCommand{StaleCommand: &kvpb.StaleCommand{}}}
		got = b.get(tsOf(time.Now())+1, follower)
		require.Equal(t, "1 read at 0 0", got[len(got)-1])
		require.Len(t, got, 2)
	})
}

// Requests to the leader go on with an old set of replicas; who looks for one near asks for it.
func TestANewReplicaIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, Options{FromStore: 2})
		alone := region(7, "", "", 1, 1)
		b.pd.set(alone)
		require.Equal(t, []string{"1 read at 0 0"}, b.get(tsOf(time.Now()), closest))
		synctest.Wait()
		asked := b.pd.lookups()
		for range 10 {
			b.get(tsOf(time.Now()), closest)
			synctest.Wait()
		}
		require.Equal(t, asked, b.pd.lookups(), "not with every read")
		grown := region(7, "", "", 1, 1, 2, 3)
		grown.Epoch.ConfVer = alone.Epoch.ConfVer + 4
		b.pd.set(grown)
		time.Sleep(peersEvery)
		b.get(tsOf(time.Now()), closest)
		synctest.Wait()
		got := b.get(tsOf(time.Now())+1, closest)
		require.Equal(t, "2 read at 99 2", got[len(got)-1])
	})
}

func TestTheClosestReplica(t *testing.T) {
	label := func(kv ...string) (out []*kvpb.StoreLabel) {
		for i := 0; i < len(kv); i += 2 {
			out = append(out, &kvpb.StoreLabel{Key: kv[i], Value: kv[i+1]})
		}
		return out
	}
	for name, tc := range map[string]struct {
		o    Options
		want string
	}{
		"in this process":         {Options{FromStore: 2}, "2"},
		"where the leader is":     {Options{FromStore: 1}, "1"},
		"nothing is known":        {Options{}, "1"},
		"in the same rack":        {Options{Labels: label("zone", "b", "rack", "1")}, "3"},
		"in the zone, and leads":  {Options{Labels: label("zone", "a", "rack", "9")}, "1"},
		"labels of the own store": {Options{FromStore: 4}, "3"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBed(t, tc.o)
				b.pd.labels = map[uint64][]*kvpb.StoreLabel{
					1: label("zone", "a", "rack", "1"), 2: label("zone", "b", "rack", "2"), 3: label("zone", "b", "rack", "1"),
					4: label("zone", "b", "rack", "1"),
				}
				ts := tsOf(time.Now())
				for range 5 { // labels are learned in the background, the own ones first
					b.get(ts, closest)
					synctest.Wait()
				}
				got := b.get(ts, closest)
				require.Equal(t, tc.want, got[len(got)-1][:1], "%v", got)
			})
		})
	}
}
