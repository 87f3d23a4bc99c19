package nosync

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
)

func write(t *testing.T, db *pebble.DB, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		require.NoError(t, db.Set(fmt.Appendf(nil, "%06d", i), bytes.Repeat([]byte("v"), 100), pebble.Sync))
	}
}

func count(t *testing.T, db *pebble.DB) int {
	t.Helper()
	iter, err := db.NewIter(nil)
	require.NoError(t, err)
	n := 0
	for iter.First(); iter.Valid(); iter.Next() {
		n++
	}
	require.NoError(t, iter.Close())
	return n
}

func TestWhatWasSyncedIsLostWithTheProcess(t *testing.T) {
	disk := vfs.NewMem()
	db, err := pebble.Open("db", &pebble.Options{FS: FS(disk)})
	require.NoError(t, err)
	write(t, db, 0, 2000)

	// The process dies: what it held is gone, what it wrote to the file system stays.
	rest := vfs.NewMem()
	_, err = vfs.Clone(disk, rest, "db", "db")
	require.NoError(t, err)
	after, err := pebble.Open("db", &pebble.Options{FS: rest})
	require.NoError(t, err)
	left := count(t, after)
	require.Less(t, left, 2000)
	require.Greater(t, left, 2000-HoldBytes/100, "no more than promised is lost")
	require.NoError(t, after.Close())
	require.NoError(t, db.Close())
}

func TestWhatIsClosedIsKept(t *testing.T) {
	disk := vfs.NewMem()
	for round := range 3 { // logs are reused
		db, err := pebble.Open("db", &pebble.Options{FS: FS(disk)})
		require.NoError(t, err)
		require.Equal(t, round*500, count(t, db))
		write(t, db, round*500, (round+1)*500)
		require.NoError(t, db.Close())
	}
}

func TestNothingIsSynced(t *testing.T) {
	disk := vfs.NewCrashableMem()
	fs := FS(disk)
	f, err := fs.Create("table.sst", vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	_, err = f.Write([]byte("x"))
	require.NoError(t, err)
	require.NoError(t, f.Sync())
	dir, err := fs.OpenDir("")
	require.NoError(t, err)
	require.NoError(t, dir.Sync())
	_, err = disk.CrashClone(vfs.CrashCloneCfg{}).Stat("table.sst")
	require.Error(t, err)
	require.NoError(t, f.Close())
	require.NoError(t, dir.Close())
}
