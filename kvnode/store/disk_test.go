package store

import (
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
)

// moodyFS is a file system whose operations take as long as the test says.
type moodyFS struct {
	vfs.FS
	takes atomic.Int64
}

func (fs *moodyFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := fs.FS.Create(name, c)
	return moodyFile{f, fs}, err
}

func (fs *moodyFS) Remove(name string) error {
	time.Sleep(time.Duration(fs.takes.Load()))
	return fs.FS.Remove(name)
}

type moodyFile struct {
	vfs.File
	fs *moodyFS
}

func (f moodyFile) Sync() error {
	time.Sleep(time.Duration(f.fs.takes.Load()))
	return f.File.Sync()
}

func (f moodyFile) Write(p []byte) (int, error) {
	time.Sleep(time.Duration(f.fs.takes.Load()))
	return f.File.Write(p)
}

// diskTest runs f in a bubble, with a watched disk and the list of what the
// watch said, with seconds since the start.
func diskTest(t *testing.T, f func(t *testing.T, w *diskWatch, fs *moodyFS, file vfs.File, said func() []string)) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var events []string
		start := time.Now()
		say := func(format string, args ...any) {
			mu.Lock()
			defer mu.Unlock()
			events = append(events, fmt.Sprintf("%.0f s: ", time.Since(start).Seconds())+fmt.Sprintf(format, args...))
		}
		w := newDiskWatch(slog.New(slog.DiscardHandler),
			func(slow bool, reason string) { say("slow %v %s", slow, reason) },
			func(msg string) { say("fatal %s", msg) })
		w.start()
		moody := &moodyFS{FS: vfs.NewMem()}
		fs := watchedFS{moody, w}
		file, err := fs.Create("f", vfs.WriteCategoryUnspecified)
		require.NoError(t, err)
		f(t, w, moody, file, func() []string {
			mu.Lock()
			defer mu.Unlock()
			e := events
			events = nil
			return e
		})
		moody.takes.Store(0)
		require.NoError(t, file.Close())
		w.close()
	})
}

// fullFS has no room for files and what is written to them.
type fullFS struct{ vfs.FS }

func (fullFS) Create(name string, _ vfs.DiskWriteCategory) (vfs.File, error) {
	return nil, &os.PathError{Op: "open", Path: name, Err: syscall.ENOSPC}
}

func TestALogThatCannotBeWrittenEndsTheProcessWithAClearMessage(t *testing.T) {
	diskTest(t, func(t *testing.T, w *diskWatch, _ *moodyFS, _ vfs.File, said func() []string) {
		fs := watchedFS{fullFS{vfs.NewMem()}, w}
		_, err := fs.Create("state/000012.sst", vfs.WriteCategoryUnspecified)
		require.Error(t, err)
		require.Empty(t, said(), "a flush or compaction is tried again")
		_, err = fs.Create("raft/000012.log", vfs.WriteCategoryUnspecified)
		require.Error(t, err)
		require.Equal(t, []string{"0 s: fatal create of raft/000012.log: open raft/000012.log: no space left on device; " +
			"the disk is full: free space, then start again"}, said())
	})
}

func TestAHangOfTheDiskGivesLeadersAwayAndIsForgiven(t *testing.T) {
	for _, what := range []string{"fsync", "write", "remove"} {
		t.Run(what, func(t *testing.T) {
			diskTest(t, func(t *testing.T, w *diskWatch, fs *moodyFS, file vfs.File, said func() []string) {
				fs.takes.Store(int64(4 * time.Second))
				require.NoError(t, file.Sync())
				require.Empty(t, said(), "four seconds are only logged")
				fs.takes.Store(int64(8 * time.Second))
				switch what { // from 4 s to 12 s
				case "fsync":
					require.NoError(t, file.Sync())
				case "write":
					_, err := file.Write([]byte("x"))
					require.NoError(t, err)
				case "remove":
					require.NoError(t, watchedFS{fs, w}.Remove("f"))
				}
				require.Equal(t, []string{fmt.Sprintf("9 s: slow true the disk has not answered for 5s (%s, f)", what)}, said())
				slow, _ := w.state()
				require.True(t, slow)
				require.Equal(t, 1.0, metricValue(t, w.slowNow))
				fs.takes.Store(0)
				for range 30 {
					time.Sleep(time.Second)
					require.NoError(t, file.Sync())
				}
				require.Equal(t, []string{"22 s: slow false "}, said(), "ten seconds after it was well")
				require.Equal(t, 0.0, metricValue(t, w.slowNow))
			})
		})
	}
}

func TestADiskThatHangsForLongEndsTheProcess(t *testing.T) {
	diskTest(t, func(t *testing.T, w *diskWatch, fs *moodyFS, file vfs.File, said func() []string) {
		fs.takes.Store(int64(20*time.Second + 2*diskInterval))
		require.NoError(t, file.Sync())
		got := said() // a real fatal would not return
		require.GreaterOrEqual(t, len(got), 2)
		require.Equal(t, []string{
			"5 s: slow true the disk has not answered for 5s (fsync, f)",
			"20 s: fatal the disk has not answered for 20s: fsync, f",
		}, got[:2])
	})
}

func TestAProcessThatStoodStillDoesNotBlameTheDisk(t *testing.T) {
	var said []string
	w := newDiskWatch(slog.New(slog.DiscardHandler),
		func(slow bool, reason string) { said = append(said, reason) }, func(msg string) { said = append(said, msg) })
	op := w.begin(opSync, "f")
	now := op.since
	look := func(after time.Duration) {
		now = now.Add(after)
		w.check(now)
	}
	look(diskInterval)
	look(30 * time.Second) // SIGSTOP, SIGCONT
	require.Empty(t, said)
	for range 17 {
		look(diskInterval)
	}
	require.Empty(t, said)
	look(diskInterval)
	require.Equal(t, []string{"the disk has not answered for 5s (fsync, f)"}, said, "from then on it counts")
	w.end(op)
}

func TestADiskThatIsSlowForLongGivesLeadersAway(t *testing.T) {
	diskTest(t, func(t *testing.T, w *diskWatch, fs *moodyFS, file vfs.File, said func() []string) {
		fs.takes.Store(int64(600 * time.Millisecond)) // no single one is worth a warning
		for range 20 {
			require.NoError(t, file.Sync())
		}
		got := said()
		require.Len(t, got, 1)
		require.Regexp(t, `^[1-5] s: slow true the disk is slow: half of its fsyncs take longer than 600ms`, got[0])
		fs.takes.Store(int64(100 * time.Millisecond))
		for range 300 {
			require.NoError(t, file.Sync())
		}
		got = said()
		require.Len(t, got, 1)
		require.Contains(t, got[0], "slow false")
	})
}

func TestOneSlowSyncAmongManyIsNoSlowDisk(t *testing.T) {
	diskTest(t, func(t *testing.T, w *diskWatch, fs *moodyFS, file vfs.File, said func() []string) {
		for i := range 200 {
			fs.takes.Store(int64(50 * time.Millisecond))
			if i%5 == 0 {
				fs.takes.Store(int64(900 * time.Millisecond))
			}
			require.NoError(t, file.Sync())
		}
		require.Empty(t, said())
	})
}

func TestAStallOfADatabaseCountsAsAHang(t *testing.T) {
	diskTest(t, func(t *testing.T, w *diskWatch, fs *moodyFS, file vfs.File, said func() []string) {
		stall := w.onStall("state")
		stall(true)
		stall(true)
		time.Sleep(6 * time.Second)
		require.Equal(t, []string{"5 s: slow true the disk has not answered for 5s (stalled writes, state)"}, said())
		stall(false)
		stall(false)
		time.Sleep(11 * time.Second)
		require.Equal(t, []string{"16 s: slow false "}, said())
	})
}
