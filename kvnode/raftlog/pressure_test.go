package raftlog

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
)

func TestQueueLatencyIsTheAgeOfTheOldestWaitingWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &DB{} // without a writer
		d.work.L = &d.mu
		require.Zero(t, d.QueueLatency())
		d.submit(task{})
		time.Sleep(time.Second)
		d.submit(task{})
		require.Equal(t, time.Second, d.QueueLatency())
	})
}

func TestWithoutSyncACrashLosesAcknowledgedAppends(t *testing.T) {
	fs := vfs.NewCrashableMem()
	d, err := Open(Options{Dir: "raft", FS: fs, UnsafeNoSync: true})
	require.NoError(t, err)
	o := newOwner()
	s := load(t, d, 1, InitialIndex, o)
	s.Submit(appendMsg(&hardState{term: 6}, entry(InitialIndex+1, 6, "a")))
	<-o.durable
	after := fs.CrashClone(vfs.CrashCloneCfg{})
	require.NoError(t, d.Close())
	d, err = Open(Options{Dir: "raft", FS: after})
	require.NoError(t, err)
	last, err := load(t, d, 1, InitialIndex, newOwner()).LastIndex()
	require.NoError(t, err)
	require.Equal(t, uint64(InitialIndex), last, "nothing was synced")
	require.NoError(t, d.Close())
}
