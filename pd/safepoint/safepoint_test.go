package safepoint

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/pd/meta"
	"github.com/cairndb/cairn/proto/pdpb"
)

// disk is metadata in a map; fail makes writes fail.
type disk struct {
	kv   map[string][]byte
	fail error
}

func (d *disk) Write(_ context.Context, ops ...meta.Op) error {
	if d.fail != nil {
		return d.fail
	}
	for _, op := range ops {
		if op.Delete {
			delete(d.kv, op.Key)
		} else {
			d.kv[op.Key] = op.Value
		}
	}
	return nil
}

func (d *disk) Get(_ context.Context, key string) ([]byte, bool, error) {
	v, ok := d.kv[key]
	return v, ok, nil
}

func (d *disk) List(_ context.Context, dir string, fn func(string, []byte) error) error {
	for _, k := range slices.Sorted(maps.Keys(d.kv)) {
		if name, ok := strings.CutPrefix(k, dir); ok {
			if err := fn(name, d.kv[k]); err != nil {
				return err
			}
		}
	}
	return nil
}

var ctx = context.Background()

// bed is a keeper whose clock and timestamps agree.
type bed struct {
	*Keeper
	t    *testing.T
	disk *disk
	at   time.Time
}

func newBed(t *testing.T) *bed {
	b := &bed{t: t, disk: &disk{kv: map[string][]byte{}}, at: time.UnixMilli(1_800_000_000_000)}
	b.lead()
	b.at = b.at.Add(MaxReport)
	return b
}

// lead begins a new term.
func (b *bed) lead() {
	k, err := Load(ctx, b.at, b.disk, b.disk)
	require.NoError(b.t, err)
	b.Keeper = k
}

func (b *bed) now() uint64 { return uint64(b.at.UnixMilli()) << 18 }

func (b *bed) ago(d time.Duration) uint64 { return b.now() - physical(d) }

func (b *bed) report(holder string, oldest uint64, round uint64) (target uint64) {
	b.t.Helper()
	_, target, err := b.Report(b.at, b.now(), &pdpb.ReportReadsRequest{
		Holder: holder, OldestTs: oldest, OldestWhat: "session 7", LifeMs: 600_000, TtlMs: 20_000, Round: round,
	})
	require.NoError(b.t, err)
	return target
}

func (b *bed) raise(ts uint64, holder string) uint64 {
	b.t.Helper()
	point, err := b.Raise(ctx, b.at, b.now(), ts, holder)
	require.NoError(b.t, err)
	return point
}

func TestTheSafePointFollowsTheClockInRounds(t *testing.T) {
	b := newBed(t)
	target := b.report("a", 0, 0)
	require.Equal(t, b.ago(10*time.Minute), target)
	require.Zero(t, b.report("b", 0, 0), "a is at it")
	require.Zero(t, b.report("a", 0, target))
	require.Zero(t, b.Point(), "the locks are not settled yet")
	b.at = b.at.Add(10 * time.Second)
	require.Equal(t, target, b.raise(target, "a"))
	require.Zero(t, b.report("b", 0, 0), "not worth a round yet")
	b.at = b.at.Add(55 * time.Second)
	require.Equal(t, b.ago(10*time.Minute), b.report("b", 0, 0))
	d := b.Describe(b.at, b.now())
	require.Equal(t, "a", d.LastRound.Holder)
	require.EqualValues(t, 10_000, d.LastRound.RunningMs)
	require.Equal(t, "b", d.Round.Holder)
}

func TestReadersHoldTheSafePointBack(t *testing.T) {
	b := newBed(t)
	oldest := b.ago(time.Hour)
	require.Equal(t, oldest, b.report("a", oldest, 0))
	require.Equal(t, oldest, b.raise(b.now(), "a"), "no further than is allowed when it is raised")
	require.Zero(t, b.report("b", b.ago(time.Minute), 0))
	d := b.Describe(b.at, b.now())
	require.Equal(t, oldest, d.Allowed)
	require.Contains(t, d.Reason, "session 7")
	require.Equal(t, []string{"a", "b"}, []string{d.Holds[0].Name, d.Holds[1].Name})
	b.at = b.at.Add(21 * time.Second)
	require.Equal(t, b.ago(10*time.Minute), b.report("b", 0, 0), "a is not heard of any more")
}

// A report that comes between the beginning of a round and its end counts.
func TestAReaderThatComesDuringARoundCounts(t *testing.T) {
	b := newBed(t)
	target := b.report("a", 0, 0)
	oldest := b.ago(20 * time.Minute)
	b.report("b", oldest, 0)
	require.Equal(t, oldest, b.raise(target, "a"))
	b.report("b", oldest-5, 0)
	require.Equal(t, oldest, b.raise(target, ""), "never back")
}

func TestARoundOfANodeThatIsGoneIsGivenToAnother(t *testing.T) {
	b := newBed(t)
	target := b.report("a", 0, 0)
	require.NotZero(t, target)
	b.at = b.at.Add(15 * time.Second)
	require.Zero(t, b.report("b", 0, 0))
	b.at = b.at.Add(6 * time.Second)
	require.NotZero(t, b.report("b", 0, 0))
	require.Equal(t, target, b.raise(target, "a"), "what it did counts all the same")
	require.Equal(t, "b", b.Describe(b.at, b.now()).Round.Holder)
}

func TestANewLeaderWaitsForReports(t *testing.T) {
	b := newBed(t)
	b.raise(b.ago(time.Hour), "")
	point := b.Point()
	oldest := b.ago(30 * time.Minute)
	b.lead()
	require.Zero(t, b.report("a", 0, 0))
	require.Equal(t, point, b.raise(b.now(), ""))
	b.at = b.at.Add(MaxReport - time.Second)
	require.Zero(t, b.report("b", oldest, 0))
	b.at = b.at.Add(time.Second)
	require.Equal(t, oldest, b.report("a", 0, 0))
}

func TestHoldsOutliveTheLeader(t *testing.T) {
	b := newBed(t)
	start := b.ago(2 * time.Hour)
	held, err := b.Hold(ctx, b.at, "backup", start, time.Minute)
	require.NoError(t, err)
	require.Equal(t, start, held)
	b.lead()
	b.at = b.at.Add(MaxReport)
	require.Equal(t, start, b.report("a", 0, 0))
	require.Equal(t, start, b.raise(b.now(), "a"))
	held, err = b.Hold(ctx, b.at, "dump", 0, time.Minute)
	require.NoError(t, err)
	require.Equal(t, start, held, "where it is")
	_, err = b.Hold(ctx, b.at, "late", start-1, time.Minute)
	require.ErrorIs(t, err, ErrPassed)
	for _, name := range []string{"", "a/b"} {
		_, err = b.Hold(ctx, b.at, name, 0, time.Minute)
		require.ErrorIs(t, err, ErrInvalid)
	}
	_, err = b.Hold(ctx, b.at, "dump", 0, 0)
	require.NoError(t, err)
	b.at = b.at.Add(31 * time.Second)
	require.Contains(t, b.Describe(b.at, b.now()).Reason, "versions live for", "the hold is over")
	require.NoError(t, b.Expire(ctx, b.at))
	require.Len(t, b.disk.kv, 1)
}

func TestWhatIsNotDurableIsNotInForce(t *testing.T) {
	b := newBed(t)
	b.disk.fail = errors.New("disk")
	_, err := b.Raise(ctx, b.at, b.now(), b.ago(time.Hour), "")
	require.Error(t, err)
	require.Zero(t, b.Point())
	_, err = b.Hold(ctx, b.at, "backup", b.ago(time.Hour), time.Minute)
	require.Error(t, err)
	require.Empty(t, b.Describe(b.at, b.now()).Holds)
}

func TestNobodyIsWaitedForForever(t *testing.T) {
	b := newBed(t)
	b.report("a", b.ago(25*time.Hour), 0)
	d := b.Describe(b.at, b.now())
	require.Equal(t, b.ago(10*time.Minute), d.Allowed)
	require.True(t, d.Holds[0].Ignored)
}

func TestTheLongestLifeTimeCounts(t *testing.T) {
	b := newBed(t)
	for _, life := range []time.Duration{time.Hour, time.Minute} {
		_, _, err := b.Report(b.at, b.now(), &pdpb.ReportReadsRequest{Holder: life.String(), LifeMs: uint64(life.Milliseconds()), TtlMs: 1000})
		require.NoError(t, err)
	}
	require.Equal(t, b.ago(time.Hour), b.Describe(b.at, b.now()).Allowed)
	_, _, err := b.Report(b.at, b.now(), &pdpb.ReportReadsRequest{Holder: "x", TtlMs: 60_000})
	require.ErrorIs(t, err, ErrInvalid)
	_, _, err = b.Report(b.at, b.now(), &pdpb.ReportReadsRequest{TtlMs: 1000})
	require.ErrorIs(t, err, ErrInvalid)
}
