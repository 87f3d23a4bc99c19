package gc

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/cairndb/cairn/kvnode/engine"
	"github.com/cairndb/cairn/kvnode/mvcc"
	"github.com/cairndb/cairn/proto/kvpb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// region collects at once.
type region struct {
	t         *testing.T
	db        *engine.DB
	meta      *kvpb.Region
	written   uint64
	safePoint uint64
	collected uint64
	steps     int
	refuse    int // the step that is refused, 0 = none
}

func newRegion(t *testing.T) *region {
	db, err := engine.Open(engine.Options{Dir: "x", FS: vfs.NewMem()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return &region{t: t, db: db, meta: &kvpb.Region{Id: 1, Epoch: &kvpb.RegionEpoch{Version: 1}, StartKey: []byte("b"), EndKey: []byte("y")}}
}

func (r *region) Meta() *kvpb.Region { return r.meta }
func (r *region) Engine() *engine.DB { return r.db }
func (r *region) Collected() uint64  { return r.collected }

func (r *region) CollectGarbage(_ context.Context, safePoint uint64, spans []mvcc.GarbageSpan, done bool) *kvpb.RegionError {
	if r.steps++; r.steps == r.refuse {
		return &kvpb.RegionError{Message: "not now"}
	}
	r.safePoint = max(r.safePoint, safePoint)
	b := r.db.NewBatch()
	for _, s := range spans {
		require.LessOrEqual(r.t, string(r.meta.StartKey), string(s.Lower))
		require.LessOrEqual(r.t, string(s.Upper), string(r.meta.EndKey))
		_, err := mvcc.Collect(r.db, b, s)
		require.NoError(r.t, err)
	}
	require.NoError(r.t, r.db.Commit(b, false))
	require.NoError(r.t, b.Close())
	if done {
		r.collected = safePoint
	}
	return nil
}

func (r *region) put(ts uint64, keys ...string) {
	b := r.db.NewBatch()
	w := mvcc.Writer{Batch: b}
	for _, k := range keys {
		w.PutWrite([]byte(k), ts, &mvcc.Write{Type: mvcc.WritePut, StartTS: ts - 1, HasValue: true})
	}
	require.NoError(r.t, r.db.Commit(b, false))
	r.written += uint64(b.Len())
	require.NoError(r.t, b.Close())
}

func (r *region) versions() (n int) {
	it, err := r.db.NewIter(engine.IterOptions{CF: engine.CFWrite})
	require.NoError(r.t, err)
	for ok := it.First(); ok; ok = it.Next() {
		n++
	}
	require.NoError(r.t, it.Close())
	return n
}

// bed is a collector whose rounds the test makes.
type bed struct {
	*Collector
	safePoint uint64
	regions   []*region
}

func newBed(regions ...*region) *bed {
	b := &bed{regions: regions}
	b.Collector = New(Options{
		Regions: func() (list []Led) {
			for _, r := range b.regions {
				list = append(list, Led{Region: r, Written: r.written})
			}
			return list
		},
		SafePoint: func() uint64 { return b.safePoint },
	})
	return b
}

func keysTo(n int) (keys []string) {
	for i := range n {
		keys = append(keys, fmt.Sprintf("k%06d", i))
	}
	return keys
}

func TestGarbageOfTheRegionsLedGoes(t *testing.T) {
	r := newRegion(t)
	keys := keysTo(3000)
	for ts := uint64(10); ts <= 40; ts += 10 {
		r.put(ts, keys...)
	}
	b := newBed(r)
	b.round(t.Context())
	require.Zero(t, r.steps, "nobody knows the safe point")
	b.safePoint = 25
	b.round(t.Context())
	require.Greater(t, r.steps, 1, "in steps")
	require.EqualValues(t, 25, r.collected)
	require.Equal(t, 3*len(keys), r.versions())
	steps := r.steps
	b.round(t.Context())
	require.Equal(t, steps, r.steps, "the safe point is where it was")
	b.safePoint = 45
	b.round(t.Context())
	require.Equal(t, steps, r.steps, "too little has changed to look again so soon")
	b.seen[keyOf(r)].at = time.Now().Add(-defaultPatience)
	b.round(t.Context())
	require.Equal(t, len(keys), r.versions())
	require.EqualValues(t, 45, r.collected)
}

// What is refused is tried again in the next round, and what is found then is all.
func TestAPassThatIsRefusedIsRepeated(t *testing.T) {
	r := newRegion(t)
	keys := keysTo(5000)
	r.put(10, keys...)
	r.put(20, keys...)
	r.refuse = 2
	b := newBed(r)
	b.safePoint = 30
	b.round(t.Context())
	require.Zero(t, r.collected)
	require.Greater(t, r.versions(), len(keys))
	b.round(t.Context())
	require.EqualValues(t, 30, r.collected)
	require.Equal(t, len(keys), r.versions())
}

// A region without garbage costs no entry of its log, however often it is looked at.
func TestARegionWithoutGarbageIsLeftAlone(t *testing.T) {
	r := newRegion(t)
	r.put(10, keysTo(10)...)
	b := newBed(r)
	for b.safePoint = 20; b.safePoint < 50; b.safePoint++ {
		b.round(t.Context())
		b.seen[keyOf(r)].at = time.Now().Add(-defaultPatience)
	}
	require.Zero(t, r.steps)
	require.EqualValues(t, 49, b.seen[keyOf(r)].collected)
}

// What is written is looked at when the safe point has passed it, not before, and not much
// later if it is much.
func TestMuchThatIsWrittenIsLookedAtSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pace
		now := func() uint64 { return uint64(time.Now().UnixMilli()) << 18 }
		start := now()
		p.note(100)
		time.Sleep(time.Minute)
		p.note(5000)
		p.note(5000)
		time.Sleep(time.Minute)
		p.note(7000)
		require.Len(t, p.samples, 3)
		require.Zero(t, p.passed(start-1))
		require.EqualValues(t, 100, p.passed(start))
		require.EqualValues(t, 5000, p.passed(now()-1))
		require.Len(t, p.samples, 2, "what lies behind is forgotten")
		require.EqualValues(t, 7000, p.passed(now()))
		p.looked = 7000
		p.note(50)
		require.Zero(t, p.looked, "the replica was opened again")
		for i := range uint64(1000) {
			time.Sleep(time.Second)
			p.note(100 + i)
		}
		require.LessOrEqual(t, len(p.samples), maxSamples)
		require.EqualValues(t, 1099, p.passed(now()))
	})
}

// Writes that a pass came too early for are not forgotten by it.
func TestAPassForgetsOnlyWhatItHasSeen(t *testing.T) {
	r := newRegion(t)
	b := newBed(r)
	now := func() uint64 { return uint64(time.Now().UnixMilli()) << 18 }
	keys := keysTo(2000)
	r.put(now()-2000<<18, keys...)
	b.safePoint = now() - 3000<<18
	b.round(t.Context())
	r.put(now()-1000<<18, keys...)
	b.safePoint = now() - 2500<<18
	b.round(t.Context())
	require.Equal(t, 2*len(keys), r.versions())
	b.safePoint = now() + 5<<18
	b.round(t.Context())
	require.Equal(t, len(keys), r.versions())
}

// A region that rests is not looked at any more once the safe point has passed all of it.
func TestARegionThatRestsIsNotLookedAt(t *testing.T) {
	r := newRegion(t)
	r.put(10, "c")
	b := newBed(r)
	b.safePoint = uint64(time.Now().Add(time.Hour).UnixMilli()) << 18
	b.round(t.Context())
	p := b.seen[keyOf(r)]
	require.Equal(t, b.safePoint, p.collected)
	p.at = time.Now().Add(-time.Hour)
	b.safePoint++
	require.False(t, b.due(Led{r, r.written}, b.safePoint))
}

func TestACollectorEndsWithItsContext(t *testing.T) {
	r := newRegion(t)
	r.put(10, keysTo(100)...)
	r.put(20, keysTo(100)...)
	ctx, cancel := context.WithCancel(t.Context())
	b := newBed(r)
	b.o.Interval, b.safePoint = time.Millisecond, 30
	b.o.Busy = func() bool { cancel(); return true }
	b.Run(ctx)
	require.NotZero(t, r.steps)
}
