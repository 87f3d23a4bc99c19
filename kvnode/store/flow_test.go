package store

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cairndb/cairn/internal/keys"
	"github.com/cairndb/cairn/kvnode/engine"
	"github.com/cairndb/cairn/kvnode/mvcc"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
)

func TestWritersAreSlowedDownBeforeTheyAreRefused(t *testing.T) {
	for name, at := range map[string]func(part float64) signals{
		"sublevels": func(p float64) signals {
			return signals{Pressure: engine.Pressure{L0Sublevels: int(softSublevels + p*(hardSublevels-softSublevels))}}
		},
		"memtables": func(p float64) signals {
			return signals{Pressure: engine.Pressure{MemTables: softMemTables + p*(hardMemTables-softMemTables)}}
		},
		"debt": func(p float64) signals {
			return signals{Pressure: engine.Pressure{CompactionDebt: uint64(softDebt * (1 + p*(hardDebt-1)))}}
		},
		"debt of a small disk": func(p float64) signals {
			return signals{Pressure: engine.Pressure{CompactionDebt: uint64(minSoftDebt * (1 + p*(hardDebt-1)))}, capacity: 5 << 30}
		},
		"log": func(p float64) signals {
			return signals{logWait: softLogWait + time.Duration(p*float64(hardLogWait-softLogWait))}
		},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, verdict{}, assess(at(0)))
			last := time.Duration(0)
			for _, part := range []float64{0.25, 0.5, 0.75} {
				v := assess(at(part))
				require.False(t, v.refuse)
				require.NotEmpty(t, v.reason)
				require.Greater(t, v.delay, last)
				require.Less(t, v.delay, maxDelay)
				last = v.delay
			}
			v := assess(at(1))
			require.True(t, v.refuse)
			require.NotEmpty(t, v.reason)
		})
	}
	require.Equal(t, "compactions lag behind the writes (14 sublevels in L0)",
		assess(signals{Pressure: engine.Pressure{L0Sublevels: 14, MemTables: 3}}).reason, "the worst is named")
}

// flowFor is a flow control over signals that the test sets, and a batch of n bytes.
func flowFor(t *testing.T, read func() signals) (*flow, func(n int) *engine.Batch) {
	db, err := engine.Open(engine.Options{Dir: "db", FS: vfs.NewMem()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	batch := func(n int) *engine.Batch {
		b := db.NewBatch()
		t.Cleanup(func() { require.NoError(t, b.Close()) })
		b.SetVersioned(engine.CFWrite, []byte("k"), 1, make([]byte, n))
		return b
	}
	return newFlow(read, newSpace(vfs.NewMem(), "", 0, 7, slog.New(slog.DiscardHandler))), batch
}

func TestFlowBoundsTheBytesUnderWay(t *testing.T) {
	f, batch := flowFor(t, nil)
	large, small := batch(hardPendingBytes), batch(1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // no delays
	require.Nil(t, f.admit(ctx, large), "a write that is alone may always go")
	busy := f.admit(ctx, small).GetServerIsBusy()
	require.NotZero(t, busy.GetWaitMs())
	require.Equal(t, "writes of 128 MiB are under way", busy.GetReason())
	f.done(large.Len())
	require.Nil(t, f.admit(ctx, small))
	f.done(small.Len())
	require.Zero(t, f.pending.Load())
}

// TestFlowFollowsThePressure: delays within a sample of pressure, refusal at
// its height, and neither soon after it is over.
func TestFlowFollowsThePressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sublevels atomic.Int64
		f, batch := flowFor(t, func() signals { return signals{Pressure: engine.Pressure{L0Sublevels: int(sublevels.Load())}} })
		stop, done := make(chan struct{}), make(chan struct{})
		go func() { defer close(done); f.run(stop) }()
		b := batch(100)
		write := func() (took time.Duration, refused bool) {
			start := time.Now()
			r := f.admit(t.Context(), b)
			if r == nil {
				f.done(b.Len())
			}
			return time.Since(start), r != nil
		}
		took, refused := write()
		require.Zero(t, took)
		require.False(t, refused)
		sublevels.Store(14)
		time.Sleep(sampleInterval)
		write() // without writes nobody looks
		synctest.Wait()
		sum0 := metricValue(t, f.delaySum)
		var sum time.Duration
		for range 200 {
			took, refused = write()
			require.False(t, refused)
			require.LessOrEqual(t, took, 100*time.Millisecond)
			sum += took
		}
		require.InEpsilon(t, maxDelay/4, sum/200, 0.2, "half way up, a quarter of the delay")
		require.InEpsilon(t, sum.Seconds(), metricValue(t, f.delaySum)-sum0, 0.01)
		sublevels.Store(30)
		time.Sleep(pressedInterval)
		synctest.Wait()
		r := f.admit(t.Context(), b)
		require.NotZero(t, r.GetServerIsBusy().GetWaitMs())
		require.Contains(t, r.GetMessage(), "30 sublevels")
		sublevels.Store(0)
		time.Sleep(pressedInterval)
		synctest.Wait()
		took, refused = write()
		require.Zero(t, took)
		require.False(t, refused)
		require.Zero(t, f.pending.Load())
		close(stop)
		<-done
	})
}

// smallDisk is a file system with a given room.
type smallDisk struct {
	vfs.FS
	usage vfs.DiskUsage
}

func (d *smallDisk) GetDiskUsage(string) (vfs.DiskUsage, error) { return d.usage, nil }

func TestAFullDiskRefusesValuesAndNothingElse(t *testing.T) {
	const gib = 1 << 30
	disk := &smallDisk{FS: vfs.NewMem(), usage: vfs.DiskUsage{TotalBytes: 100 * gib, AvailBytes: 50 * gib}}
	f, batch := flowFor(t, nil)
	f.space = newSpace(disk, "", 0, 7, slog.New(slog.DiscardHandler))
	value := batch(10)
	require.Nil(t, f.admit(t.Context(), value))
	available := func(n uint64) { disk.usage.AvailBytes = n; f.space.look() }
	available(2*gib - 1) // less than 2 %
	full := f.admit(t.Context(), value)
	require.Equal(t, []uint64{7}, full.GetDiskFull().GetStoreIds())
	require.Contains(t, full.GetMessage(), "the disk is nearly full")
	require.Equal(t, 1.0, metricValue(t, f.space.gauge))

	put := mvcc.Lock{Type: mvcc.LockPut, StartTS: 1, Primary: []byte("k")}
	remove := mvcc.Lock{Type: mvcc.LockDelete, StartTS: 1, Primary: []byte("k")}
	wait := mvcc.Lock{Type: mvcc.LockPessimistic, StartTS: 1, Primary: []byte("k")}
	written := mvcc.Write{Type: mvcc.WritePut, StartTS: 1}
	deleted := mvcc.Write{Type: mvcc.WriteDelete, StartTS: 1}
	k := []byte("k")
	for _, c := range []struct {
		name string
		ok   bool
		fill func(b *engine.Batch)
	}{
		{"prewrite of a value", false, func(b *engine.Batch) { b.Set(engine.CFLock, k, put.AppendTo(nil)) }},
		{"long value", false, func(b *engine.Batch) { b.SetVersioned(engine.CFDefault, k, 1, nil) }},
		{"one-phase commit of a value", false, func(b *engine.Batch) { b.SetVersioned(engine.CFWrite, k, 2, written.AppendTo(nil)) }},
		{"prewrite of a deletion", true, func(b *engine.Batch) { b.Set(engine.CFLock, k, remove.AppendTo(nil)) }},
		{"pessimistic lock", true, func(b *engine.Batch) { b.Set(engine.CFLock, k, wait.AppendTo(nil)) }},
		{"one-phase commit of a deletion", true, func(b *engine.Batch) { b.SetVersioned(engine.CFWrite, k, 2, deleted.AppendTo(nil)) }},
		{"commit of what was prewritten", true, func(b *engine.Batch) {
			b.SetVersioned(engine.CFWrite, k, 2, written.AppendTo(nil))
			b.Delete(engine.CFLock, k)
		}},
		{"rollback", true, func(b *engine.Batch) {
			b.DeleteVersioned(engine.CFDefault, k, 1)
			b.Delete(engine.CFLock, k)
		}},
		{"metadata", true, func(b *engine.Batch) {
			b.SetVersioned(engine.CFWrite, keys.Meta("tables"), 2, written.AppendTo(nil))
		}},
		{"garbage collection", true, func(b *engine.Batch) { b.DeleteVersioned(engine.CFWrite, k, 1) }},
	} {
		b := batch(0)
		b.Reset()
		c.fill(b)
		require.Equal(t, c.ok, f.admit(t.Context(), b) == nil, c.name)
	}

	available(2*gib + 1)
	require.NotNil(t, f.admit(t.Context(), value), "not at the same limit")
	available(2*gib + gib/2)
	require.Nil(t, f.admit(t.Context(), value))
	require.Equal(t, 0.0, metricValue(t, f.space.gauge))

	for _, c := range []struct{ total, limit uint64 }{{1000 * gib, 20 * gib}, {10 * gib, gib / 2}, {gib, gib / 8}} {
		require.Equal(t, c.limit, f.space.limit(c.total))
	}
	f.space.reserve = 5
	require.Equal(t, uint64(5), f.space.limit(gib))
}

// metricValue reads a collector of one counter or gauge.
func metricValue(t *testing.T, c prometheus.Collector) float64 {
	t.Helper()
	ch := make(chan prometheus.Metric, 1)
	c.Collect(ch)
	var m dto.Metric
	require.NoError(t, (<-ch).Write(&m))
	return m.GetCounter().GetValue() + m.GetGauge().GetValue()
}
