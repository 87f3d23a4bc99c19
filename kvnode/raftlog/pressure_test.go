package raftlog

import (
	"testing"
	"testing/synctest"
	"time"

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
