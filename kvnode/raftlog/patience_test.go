package raftlog

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
)

// What nobody waits for shares the fsync of what somebody does, or has its own after a while.
func TestPatientEntriesWaitForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := openLog(t, vfs.NewMem())
		defer func() { require.NoError(t, d.Close()) }()
		o := newOwner()
		a, b := load(t, d, 1, InitialIndex, o), load(t, d, 2, InitialIndex, o)
		a.Submit(appendMsg(&hardState{6, 1, 5}, entry(6, 6, "")), true)
		b.Submit(appendMsg(&hardState{6, 1, 5}, entry(6, 6, "")), true)
		synctest.Wait()
		require.Len(t, o.durable, 2, "a term is never waited with")
		fsyncs := func() int {
			var m dto.Metric
			require.NoError(t, d.metrics.fsyncs.Write(&m))
			return int(m.GetCounter().GetValue())
		}
		before := fsyncs()
		flushed := func() int {
			synctest.Wait()
			return fsyncs() - before
		}

		a.Submit(appendMsg(nil, entry(7, 6, "commit")), true)
		a.Submit(appendMsg(nil, entry(8, 6, "commit")), true)
		require.Equal(t, 0, flushed())
		b.Submit(appendMsg(nil, entry(7, 6, "prewrite")), false)
		require.Equal(t, 1, flushed())
		require.Len(t, o.durable, 5)

		a.Submit(appendMsg(nil, entry(9, 6, "commit")), true)
		time.Sleep(patience - 1)
		require.Equal(t, 1, flushed())
		time.Sleep(1)
		require.Equal(t, 2, flushed())

		time.Sleep(time.Hour)
		a.Submit(appendMsg(nil, entry(10, 6, "commit")), true)
		a.Hurry()
		require.Equal(t, 3, flushed())
		a.Hurry()
		time.Sleep(time.Hour)
		require.Equal(t, 3, flushed(), "there is nothing to hurry")
		require.Len(t, o.durable, 7)
	})
}
