package store

import (
	"testing"
	"time"

	"github.com/cairndb/cairn/kvnode/engine"
	"github.com/stretchr/testify/require"
)

func TestWritersAreSlowedDownBeforeTheyAreRefused(t *testing.T) {
	last := time.Duration(0)
	for sublevels := range hardSublevels {
		delay, refuse := assess(engine.Pressure{L0Sublevels: sublevels, MemTables: 1})
		require.False(t, refuse)
		require.Equal(t, sublevels >= softSublevels, delay > 0, "%d sublevels", sublevels)
		require.GreaterOrEqual(t, delay, last)
		require.LessOrEqual(t, delay, maxDelay)
		last = delay
	}
	_, refuse := assess(engine.Pressure{L0Sublevels: hardSublevels})
	require.True(t, refuse)
	some, _ := assess(engine.Pressure{MemTables: softMemTables})
	more, _ := assess(engine.Pressure{MemTables: hardMemTables})
	require.Positive(t, some)
	require.Greater(t, more, some)
}

func TestFlowBoundsTheBytesUnderWay(t *testing.T) {
	f := newFlow()
	require.Nil(t, f.admit(t.Context(), maxPendingBytes))
	require.NotNil(t, f.admit(t.Context(), 1).GetServerIsBusy())
	f.done(maxPendingBytes)
	require.Nil(t, f.admit(t.Context(), 1))
	f.done(1)
	require.Zero(t, f.pending.Load())
	f.refuse.Store(true)
	require.NotZero(t, f.admit(t.Context(), 1).GetServerIsBusy().GetWaitMs())
	require.Zero(t, f.pending.Load())
}
