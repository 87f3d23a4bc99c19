package txncmd_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/internal/keys"
	"github.com/cairndb/cairn/kvnode/txncmd"
	"github.com/cairndb/cairn/kvnode/txncmd/regiontest"
	"github.com/cairndb/cairn/proto/kvpb"
)

// rawStore executes raw requests against one region, and a map that is told the same.
type rawStore struct {
	t    *testing.T
	e    *txncmd.Executor
	s    *regiontest.Store
	twin map[string]rawTwin
}

type rawTwin struct {
	value []byte
	until time.Time // zero = for ever
}

func (r *rawStore) do(req *kvpb.RawRequest) *kvpb.RawResponse {
	m := r.s.Locate([]byte("r"))
	req.Context = &kvpb.Context{RegionId: m.Id, Epoch: m.Epoch, Peer: m.Peers[0]}
	resp := r.e.Raw(context.Background(), req)
	require.Nil(r.t, resp.RegionError)
	require.Empty(r.t, resp.Error)
	return resp
}

// get is what the map has now.
func (r *rawStore) get(key []byte) (rawTwin, bool) {
	p, ok := r.twin[string(key)]
	if ok && !p.until.IsZero() && !time.Now().Before(p.until) {
		return rawTwin{}, false
	}
	return p, ok
}

func (r *rawStore) put(p *kvpb.RawPair) {
	t := rawTwin{value: p.Value}
	if p.TtlMs != 0 {
		t.until = time.Now().Add(time.Duration(p.TtlMs) * time.Millisecond)
	}
	r.twin[string(p.Key)] = t
}

func TestRawPairsAgainstAMap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := regiontest.Open()
		require.NoError(t, err)
		defer s.Close()
		r := &rawStore{t: t, s: s, e: txncmd.New(txncmd.Options{Regions: s}), twin: map[string]rawTwin{}}
		rng := rand.New(rand.NewPCG(1, 2))
		key := func() []byte { return keys.AppendRaw(nil, fmt.Appendf(nil, "%02d", rng.IntN(20))) }
		pair := func() *kvpb.RawPair {
			p := &kvpb.RawPair{Key: key(), Value: bytes.Repeat([]byte{byte(rng.IntN(3))}, rng.IntN(3))}
			if rng.IntN(2) == 0 {
				p.TtlMs = uint64(1 + rng.IntN(5000))
			}
			return p
		}
		for range 3000 {
			time.Sleep(time.Duration(rng.IntN(100)) * time.Millisecond)
			switch rng.IntN(5) {
			case 0:
				k := key()
				got := r.do(&kvpb.RawRequest{Op: &kvpb.RawRequest_Get{Get: k}})
				want, ok := r.get(k)
				require.Equal(t, ok, got.Found)
				require.True(t, bytes.Equal(want.value, got.Value))
				if !want.until.IsZero() {
					require.EqualValues(t, time.Until(want.until).Milliseconds(), got.TtlMs)
				}
			case 1:
				p, q := pair(), pair()
				list := []*kvpb.RawPair{p}
				if !bytes.Equal(p.Key, q.Key) {
					list = append(list, q)
				}
				r.do(&kvpb.RawRequest{Op: &kvpb.RawRequest_Put{Put: &kvpb.RawPut{Pairs: list}}})
				for _, p := range list {
					r.put(p)
				}
			case 2:
				k := key()
				r.do(&kvpb.RawRequest{Op: &kvpb.RawRequest_Delete{Delete: &kvpb.RawDelete{Keys: [][]byte{k}}}})
				delete(r.twin, string(k))
			case 3:
				op := &kvpb.RawCompareAndSwap{Pair: pair(), Delete: rng.IntN(4) == 0, ExpectAbsent: rng.IntN(3) == 0}
				had, ok := r.get(op.Pair.Key)
				if op.Expect = pair().Value; rng.IntN(2) == 0 {
					op.Expect = had.value
				}
				got := r.do(&kvpb.RawRequest{Op: &kvpb.RawRequest_Cas{Cas: op}})
				require.Equal(t, ok, got.Found)
				require.True(t, bytes.Equal(had.value, got.Value))
				swap := op.ExpectAbsent && !ok || !op.ExpectAbsent && ok && bytes.Equal(had.value, op.Expect)
				require.Equal(t, swap, got.Swapped)
				switch {
				case swap && op.Delete:
					delete(r.twin, string(op.Pair.Key))
				case swap:
					r.put(op.Pair)
				}
			case 4:
				r.compareScan(uint32(rng.IntN(4)), uint32(rng.IntN(2)*10))
			}
		}
	})
}

// compareScan reads all pairs page by page.
func (r *rawStore) compareScan(limit, bytesLimit uint32) {
	var got []string
	at := []byte("r")
	for more := true; more; {
		resp := r.do(&kvpb.RawRequest{Op: &kvpb.RawRequest_Scan{Scan: &kvpb.RawScan{StartKey: at, EndKey: keys.RawEnd(), Limit: limit, ByteLimit: bytesLimit}}})
		off := resp.Pairs.GetOffsets()
		for i := 0; i+2 < len(off); i += 2 {
			got = append(got, fmt.Sprintf("%s=%x", resp.Pairs.Data[off[i]:off[i+1]], resp.Pairs.Data[off[i+1]:off[i+2]]))
		}
		more, at = resp.More, resp.ResumeKey
	}
	var want []string
	for _, k := range slices.Sorted(maps.Keys(r.twin)) {
		if p, ok := r.get([]byte(k)); ok {
			want = append(want, fmt.Sprintf("%s=%x", k, p.value))
		}
	}
	require.Equal(r.t, want, got)
}

// Sweeping removes what has expired, and nothing that can be seen.
func TestSweepingChangesNothingThatIsSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := regiontest.Open()
		require.NoError(t, err)
		defer s.Close()
		r := &rawStore{t: t, s: s, e: txncmd.New(txncmd.Options{Regions: s}), twin: map[string]rawTwin{}}
		rng := rand.New(rand.NewPCG(3, 4))
		lasting := 0
		for i := 0; i < 10_000; i += 1000 {
			put := &kvpb.RawPut{}
			for j := range 1000 {
				p := &kvpb.RawPair{Key: keys.AppendRaw(nil, fmt.Appendf(nil, "%05d", i+j)), Value: []byte("v")}
				if rng.IntN(2) == 0 {
					p.TtlMs = 1000 * uint64(1+rng.IntN(10))
				}
				if p.TtlMs == 0 || p.TtlMs > 5000 {
					lasting++
				}
				put.Pairs = append(put.Pairs, p)
				r.put(p)
			}
			r.do(&kvpb.RawRequest{Op: &kvpb.RawRequest_Put{Put: put}})
		}
		time.Sleep(5 * time.Second)
		m := s.Locate([]byte("r"))
		c := &kvpb.Context{RegionId: m.Id, Epoch: m.Epoch, Peer: m.Peers[0]}
		removed, calls := 0, 0
		for at := []byte{}; at != nil; calls++ {
			n, next, err := r.e.SweepRaw(t.Context(), c, at)
			require.NoError(t, err)
			removed, at = removed+n, next
		}
		require.Equal(t, 10_000-lasting, removed)
		require.Equal(t, 3, calls)
		r.compareScan(0, 0)
		n, next, err := r.e.SweepRaw(t.Context(), c, nil)
		require.NoError(t, err)
		require.Zero(t, n)
		require.NotNil(t, next)
	})
}

func TestRawRequestsStayAmongRawKeys(t *testing.T) {
	s, err := regiontest.Open()
	require.NoError(t, err)
	defer s.Close()
	e := txncmd.New(txncmd.Options{Regions: s})
	for _, req := range []*kvpb.RawRequest{
		{},
		{Op: &kvpb.RawRequest_Get{Get: []byte("t1")}},
		{Op: &kvpb.RawRequest_Put{Put: &kvpb.RawPut{Pairs: []*kvpb.RawPair{{Key: []byte("r1")}, {Key: []byte("m")}}}}},
		{Op: &kvpb.RawRequest_Delete{Delete: &kvpb.RawDelete{Keys: [][]byte{{}}}}},
		{Op: &kvpb.RawRequest_Cas{Cas: &kvpb.RawCompareAndSwap{Pair: &kvpb.RawPair{Key: []byte("s")}}}},
		{Op: &kvpb.RawRequest_Scan{Scan: &kvpb.RawScan{StartKey: []byte("r"), EndKey: []byte("t")}}},
		{Op: &kvpb.RawRequest_Scan{Scan: &kvpb.RawScan{StartKey: []byte("r")}}},
	} {
		require.NotEmpty(t, e.Raw(context.Background(), req).Error)
	}
}
