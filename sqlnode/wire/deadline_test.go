package wire

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A deadline never comes before its time, and little after it.
func TestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d Deadline
		sets := 0
		for i, timeout := range []time.Duration{8 * time.Second, 8 * time.Second, time.Hour, time.Hour, 80 * time.Millisecond, 80 * time.Millisecond} {
			for range 10 {
				at, set := d.Next(timeout)
				late := time.Until(at) - timeout
				require.GreaterOrEqual(t, late, time.Duration(0))
				require.LessOrEqual(t, late, min(timeout/8, time.Second), i)
				if set {
					sets++
				}
				time.Sleep(2 * time.Millisecond)
			}
		}
		require.Equal(t, 1+1+2+2, sets)
	})
}
