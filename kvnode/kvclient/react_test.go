package kvclient

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/proto/kvpb"
)

var bg = context.Background()

// TestReactions: for each region error, what the client does before it succeeds.
func TestReactions(t *testing.T) {
	re := func(kind any) *kvpb.RegionError {
		switch k := kind.(type) {
		case *kvpb.NotLeader:
			return &kvpb.RegionError{Kind: &kvpb.RegionError_NotLeader{NotLeader: k}}
		case *kvpb.EpochNotMatch:
			return &kvpb.RegionError{Kind: &kvpb.RegionError_EpochNotMatch{EpochNotMatch: k}}
		case *kvpb.RegionNotFound:
			return &kvpb.RegionError{Kind: &kvpb.RegionError_RegionNotFound{RegionNotFound: k}}
		case *kvpb.KeyNotInRegion:
			return &kvpb.RegionError{Kind: &kvpb.RegionError_KeyNotInRegion{KeyNotInRegion: k}}
		case *kvpb.StoreNotMatch:
			return &kvpb.RegionError{Kind: &kvpb.RegionError_StoreNotMatch{StoreNotMatch: k}}
		case *kvpb.ServerIsBusy:
			return &kvpb.RegionError{Kind: &kvpb.RegionError_ServerIsBusy{ServerIsBusy: k}}
		case *kvpb.StaleCommand:
			return &kvpb.RegionError{Kind: &kvpb.RegionError_StaleCommand{StaleCommand: k}}
		case *kvpb.ReadIndexNotReady:
			return &kvpb.RegionError{Kind: &kvpb.RegionError_ReadIndexNotReady{ReadIndexNotReady: k}}
		case *kvpb.ProposalInMergingMode:
			return &kvpb.RegionError{Kind: &kvpb.RegionError_ProposalInMergingMode{ProposalInMergingMode: k}}
		case *kvpb.RegionNotInitialized:
			return &kvpb.RegionError{Kind: &kvpb.RegionError_RegionNotInitialized{RegionNotInitialized: k}}
		case *kvpb.MaxTimestampNotSynced:
			return &kvpb.RegionError{Kind: &kvpb.RegionError_MaxTimestampNotSynced{MaxTimestampNotSynced: k}}
		case *kvpb.DiskFull:
			return &kvpb.RegionError{Kind: &kvpb.RegionError_DiskFull{DiskFull: k}}
		case *kvpb.DataIsNotReady:
			return &kvpb.RegionError{Kind: &kvpb.RegionError_DataIsNotReady{DataIsNotReady: k}}
		case *kvpb.Undetermined:
			return &kvpb.RegionError{Kind: &kvpb.RegionError_Undetermined{Undetermined: k}}
		case *kvpb.DeadlineExceeded:
			return &kvpb.RegionError{Kind: &kvpb.RegionError_DeadlineExceeded{DeadlineExceeded: k}}
		case *kvpb.RaftEntryTooLarge:
			return &kvpb.RegionError{Kind: &kvpb.RegionError_RaftEntryTooLarge{RaftEntryTooLarge: k}}
		}
		return &kvpb.RegionError{Message: "something new"}
	}
	base := region(1, "", "", 3, 1, 2, 3)
	type outcome struct {
		kind   any
		err    error         // nil: the second attempt succeeds
		fatal  bool          // *RegionError
		peer   uint64        // of the second attempt
		ver    uint64        // epoch version of the second attempt
		slept  time.Duration // at least half of it, at most one and a half
		lookup bool          // PD is asked again
	}
	for name, want := range map[string]outcome{
		"not leader, named":         {kind: &kvpb.NotLeader{Leader: base.Peers[2]}, peer: 103, ver: 3},
		"not leader, unknown":       {kind: &kvpb.NotLeader{}, peer: 102, ver: 3, slept: 10 * time.Millisecond},
		"not leader, strange peer":  {kind: &kvpb.NotLeader{Leader: &kvpb.Peer{Id: 999, StoreId: 9}}, peer: 999, ver: 3, lookup: true},
		"epoch, same range":         {kind: &kvpb.EpochNotMatch{CurrentRegions: []*kvpb.Region{region(1, "", "", 4, 1, 2, 3)}}, peer: 101, ver: 4},
		"epoch, split":              {kind: &kvpb.EpochNotMatch{CurrentRegions: []*kvpb.Region{region(1, "", "m", 4), region(2, "m", "", 4)}}, err: ErrRegionChanged},
		"epoch, older than cached":  {kind: &kvpb.EpochNotMatch{CurrentRegions: []*kvpb.Region{region(1, "", "", 2)}}, peer: 101, ver: 3, slept: 2 * time.Millisecond},
		"epoch, none named":         {kind: &kvpb.EpochNotMatch{}, peer: 101, ver: 3, slept: 2 * time.Millisecond, lookup: true},
		"region not found":          {kind: &kvpb.RegionNotFound{}, peer: 102, ver: 3, slept: 2 * time.Millisecond, lookup: true},
		"key not in region":         {kind: &kvpb.KeyNotInRegion{}, peer: 101, ver: 3, slept: 2 * time.Millisecond, lookup: true},
		"store not match":           {kind: &kvpb.StoreNotMatch{}, peer: 101, ver: 3, slept: 2 * time.Millisecond, lookup: true},
		"server is busy":            {kind: &kvpb.ServerIsBusy{}, peer: 101, ver: 3, slept: 2 * time.Second},
		"server is busy, estimated": {kind: &kvpb.ServerIsBusy{WaitMs: 30}, peer: 101, ver: 3, slept: 30 * time.Millisecond},
		"stale command":             {kind: &kvpb.StaleCommand{}, peer: 101, ver: 3, slept: 2 * time.Millisecond},
		"read index not ready":      {kind: &kvpb.ReadIndexNotReady{}, peer: 101, ver: 3, slept: 2 * time.Millisecond},
		"merging":                   {kind: &kvpb.ProposalInMergingMode{}, peer: 101, ver: 3, slept: 2 * time.Millisecond},
		"not initialized":           {kind: &kvpb.RegionNotInitialized{}, peer: 101, ver: 3, slept: 2 * time.Millisecond},
		"max ts":                    {kind: &kvpb.MaxTimestampNotSynced{}, peer: 101, ver: 3, slept: 2 * time.Millisecond},
		"disk full":                 {kind: &kvpb.DiskFull{}, peer: 101, ver: 3, slept: 500 * time.Millisecond},
		"data not ready":            {kind: &kvpb.DataIsNotReady{}, peer: 101, ver: 3},
		"undetermined":              {kind: &kvpb.Undetermined{}, peer: 101, ver: 3, slept: 2 * time.Millisecond},
		"deadline":                  {kind: &kvpb.DeadlineExceeded{}, peer: 102, ver: 3},
		"entry too large":           {kind: &kvpb.RaftEntryTooLarge{EntrySize: 1 << 30}, fatal: true},
		"unknown":                   {fatal: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				pd := &fakePD{regions: []*kvpb.Region{base}}
				var seen []*kvpb.Context
				c := local(t, pd, handlerFunc(func(_ context.Context, req *kvpb.Request) *kvpb.Response {
					k := req.GetGet().Context
					seen = append(seen, &kvpb.Context{RegionId: k.RegionId, Epoch: k.Epoch, Peer: k.Peer})
					require.NotZero(t, k.TimeoutMs)
					if len(seen) == 1 {
						return respond(req, re(want.kind))
					}
					return respond(req, nil)
				}))
				r, err := c.Locate(bg, []byte("k"))
				require.NoError(t, err)
				began, asked := time.Now(), pd.lookups()
				resp, err := c.Send(bg, r, getRequest("k"))
				switch {
				case want.err != nil:
					require.ErrorIs(t, err, want.err)
					return
				case want.fatal:
					var fatal *RegionError
					require.ErrorAs(t, err, &fatal)
					require.Len(t, seen, 1)
					return
				}
				require.NoError(t, err)
				require.Equal(t, "v-k", string(resp.GetGet().Value))
				require.Len(t, seen, 2)
				require.EqualValues(t, 101, seen[0].Peer.Id)
				require.Equal(t, want.peer, seen[1].Peer.Id)
				require.Equal(t, want.ver, seen[1].Epoch.Version)
				slept := time.Since(began)
				require.LessOrEqual(t, slept, want.slept*3/2)
				require.GreaterOrEqual(t, slept, want.slept/2)
				synctest.Wait() // a refresh in the background
				require.Equal(t, want.lookup, pd.lookups() > asked)
			})
		})
	}
}

func TestBudgetEndsWithTheLastErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := local(t, &fakePD{regions: []*kvpb.Region{region(1, "", "", 1)}}, handlerFunc(func(_ context.Context, req *kvpb.Request) *kvpb.Response {
			return respond(req, &kvpb.RegionError{Kind: &kvpb.RegionError_StaleCommand{StaleCommand: &kvpb.StaleCommand{}}})
		}))
		began := time.Now()
		_, err := c.Get(bg, &kvpb.GetRequest{Key: []byte("k")})
		var timeout *TimeoutError
		require.ErrorAs(t, err, &timeout)
		require.Equal(t, "get", timeout.Op)
		require.Equal(t, "stale_command", timeout.Kind)
		require.Len(t, timeout.Last, keepErrors)
		require.InDelta(t, 20, time.Since(began).Seconds(), 2)
		require.ErrorContains(t, err, "stale_command")

		ctx, cancel := context.WithTimeout(bg, time.Second)
		defer cancel()
		_, err = c.Get(ctx, &kvpb.GetRequest{Key: []byte("k")})
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
}

// A store that hangs costs attempts, and the budget bounds them too.
func TestHangingStoreIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		attempts := 0
		c := local(t, &fakePD{regions: []*kvpb.Region{region(1, "", "", 1)}}, handlerFunc(func(ctx context.Context, req *kvpb.Request) *kvpb.Response {
			attempts++
			<-ctx.Done()
			return respond(req, &kvpb.RegionError{Kind: &kvpb.RegionError_DeadlineExceeded{DeadlineExceeded: &kvpb.DeadlineExceeded{}}})
		}))
		_, err := c.Get(bg, &kvpb.GetRequest{Key: []byte("k")})
		var timeout *TimeoutError
		require.ErrorAs(t, err, &timeout)
		require.Equal(t, 5, attempts) // 1 + 2 + 4 + 8 + 8 seconds
	})
}

func TestUndeterminedOnlyWhenItCouldDecide(t *testing.T) {
	undetermined := &kvpb.RegionError{Kind: &kvpb.RegionError_Undetermined{Undetermined: &kvpb.Undetermined{Reason: "lost leadership"}}}
	for _, tc := range []struct {
		name     string
		req      *kvpb.Request
		decisive bool
	}{
		{"get", getRequest("k"), false},
		{"commit", commitRequest("k"), true},
		{"prewrite", prewriteRequest("k", false), false},
		{"one-phase prewrite", prewriteRequest("k", true), true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				retries := 0
				c := local(t, &fakePD{regions: []*kvpb.Region{region(1, "", "", 1)}}, handlerFunc(func(_ context.Context, req *kvpb.Request) *kvpb.Response {
					if req.GetPrewrite().GetIsRetry() {
						retries++
					}
					return respond(req, undetermined)
				}))
				r, err := c.Locate(bg, []byte("k"))
				require.NoError(t, err)
				_, err = c.Send(bg, r, tc.req)
				var timeout *TimeoutError
				require.ErrorAs(t, err, &timeout)
				if tc.decisive {
					require.ErrorIs(t, err, ErrUndetermined)
				} else {
					require.NotErrorIs(t, err, ErrUndetermined)
				}
				require.Equal(t, tc.req.GetPrewrite() != nil, retries > 0, "a prewrite sent again says so")

				ctx, cancel := context.WithTimeout(bg, time.Second)
				defer cancel()
				_, err = c.Send(ctx, r, tc.req)
				require.ErrorIs(t, err, context.DeadlineExceeded)
				if tc.decisive {
					require.ErrorIs(t, err, ErrUndetermined)
				}
			})
		})
	}
}

// After an answer was lost, a one-phase prewrite that meets a split must not be
// taken for one that never ran; a commit may just be sent again.
func TestSplitAfterALostAnswer(t *testing.T) {
	for _, tc := range []struct {
		req  *kvpb.Request
		want error
	}{
		{commitRequest("k"), ErrRegionChanged},
		{prewriteRequest("k", true), ErrUndetermined},
		{prewriteRequest("k", false), ErrRegionChanged},
	} {
		synctest.Test(t, func(t *testing.T) {
			n := 0
			c := local(t, &fakePD{regions: []*kvpb.Region{region(1, "", "", 1)}}, handlerFunc(func(_ context.Context, req *kvpb.Request) *kvpb.Response {
				if n++; n == 1 {
					return respond(req, &kvpb.RegionError{Kind: &kvpb.RegionError_Undetermined{Undetermined: &kvpb.Undetermined{}}})
				}
				return respond(req, &kvpb.RegionError{Kind: &kvpb.RegionError_EpochNotMatch{EpochNotMatch: &kvpb.EpochNotMatch{
					CurrentRegions: []*kvpb.Region{region(1, "", "m", 2), region(2, "m", "", 2)}}}})
			}))
			r, err := c.Locate(bg, []byte("k"))
			require.NoError(t, err)
			_, err = c.Send(bg, r, tc.req)
			require.ErrorIs(t, err, tc.want)
		})
	}
}

func TestStoresThatPointAtEachOtherAreNotAskedForever(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := region(1, "", "", 1, 1, 2, 3)
		attempts := 0
		c := local(t, &fakePD{regions: []*kvpb.Region{m}}, handlerFunc(func(_ context.Context, req *kvpb.Request) *kvpb.Response {
			attempts++
			at := req.GetGet().Context.Peer.StoreId
			return respond(req, &kvpb.RegionError{Kind: &kvpb.RegionError_NotLeader{NotLeader: &kvpb.NotLeader{Leader: m.Peers[at%3]}}})
		}))
		_, err := c.Get(bg, &kvpb.GetRequest{Key: []byte("k")})
		var timeout *TimeoutError
		require.ErrorAs(t, err, &timeout)
		require.Less(t, attempts, 1500)
	})
}

func TestGetFollowsASplit(t *testing.T) {
	halves := []*kvpb.Region{region(1, "", "m", 2), region(2, "m", "", 2)}
	c := local(t, &fakePD{regions: []*kvpb.Region{region(1, "", "", 1)}}, handlerFunc(func(_ context.Context, req *kvpb.Request) *kvpb.Response {
		if req.GetGet().Context.Epoch.Version == 1 {
			return respond(req, &kvpb.RegionError{Kind: &kvpb.RegionError_EpochNotMatch{EpochNotMatch: &kvpb.EpochNotMatch{CurrentRegions: halves}}})
		}
		require.EqualValues(t, 2, req.GetGet().Context.RegionId)
		return respond(req, nil)
	}))
	resp, err := c.Get(bg, &kvpb.GetRequest{Key: []byte("x")})
	require.NoError(t, err)
	require.Equal(t, "v-x", string(resp.Value))
}

// splitter splits one region in memory.
type splitter struct {
	handlerFunc
	pd    *fakePD
	next  uint64
	calls int
}

func (s *splitter) SplitRegion(_ context.Context, req *kvpb.SplitRegionRequest) *kvpb.SplitRegionResponse {
	s.calls++
	meta, _, _ := s.pd.GetRegion(bg, req.SplitKeys[0])
	if s.calls == 1 {
		return &kvpb.SplitRegionResponse{RegionError: &kvpb.RegionError{Kind: &kvpb.RegionError_StaleCommand{StaleCommand: &kvpb.StaleCommand{}}}}
	}
	bounds := [][]byte{meta.StartKey}
	bounds = append(append(bounds, req.SplitKeys...), meta.EndKey)
	var out []*kvpb.Region
	for i := range bounds[1:] {
		s.next++
		out = append(out, region(s.next, string(bounds[i]), string(bounds[i+1]), meta.Epoch.Version+uint64(len(req.SplitKeys))))
	}
	rest := out
	for _, m := range s.pd.regions {
		if m != meta {
			rest = append(rest, m)
		}
	}
	s.pd.set(rest...)
	return &kvpb.SplitRegionResponse{Regions: out}
}

func TestSplitAt(t *testing.T) {
	pd := &fakePD{regions: []*kvpb.Region{region(1, "", "m", 2), region(2, "m", "", 2)}}
	s := &splitter{pd: pd, next: 10}
	c := local(t, pd, s)
	require.NoError(t, c.SplitAt(bg, [][]byte{[]byte("b"), []byte("c"), []byte("m"), []byte("x")}))
	require.Equal(t, 3, s.calls)
	for _, k := range []string{"b", "c", "m", "x"} {
		r, err := c.Locate(bg, []byte(k))
		require.NoError(t, err)
		require.Equal(t, k, string(r.Meta.StartKey))
	}
	require.NoError(t, c.SplitAt(bg, [][]byte{[]byte("b"), []byte("x")}))
	require.Equal(t, 3, s.calls, "there already")
}

func TestUnsupportedIsAnErrorOfItsOwn(t *testing.T) {
	c := local(t, &fakePD{regions: []*kvpb.Region{region(1, "", "", 1)}}, handlerFunc(func(context.Context, *kvpb.Request) *kvpb.Response {
		return &kvpb.Response{Unsupported: "not here"}
	}))
	r, err := c.Locate(bg, nil)
	require.NoError(t, err)
	var unsupported *UnsupportedError
	_, err = c.Send(bg, r, getRequest("k"))
	require.ErrorAs(t, err, &unsupported)
	_, err = c.Send(bg, r, &kvpb.Request{})
	require.ErrorAs(t, err, &unsupported)
}

func BenchmarkLocalGet(b *testing.B) {
	resp := &kvpb.Response{Cmd: &kvpb.Response_Get{Get: &kvpb.GetResponse{Value: []byte("v")}}}
	c := local(b, &fakePD{regions: []*kvpb.Region{region(1, "", "", 1)}}, handlerFunc(func(context.Context, *kvpb.Request) *kvpb.Response { return resp }))
	run := func(b *testing.B, next func() bool) {
		key := []byte("k")
		for next() {
			if _, err := c.Get(bg, &kvpb.GetRequest{Key: key, ReadTs: 1}); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("one", func(b *testing.B) { b.ReportAllocs(); run(b, b.Loop) })
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) { run(b, pb.Next) })
	})
}
