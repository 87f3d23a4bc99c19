package quantity

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestSizesAreReadAndWritten(t *testing.T) {
	for _, c := range []struct {
		text string
		want int64
		back string
	}{
		{"0", 0, "0"}, {"1000", 1000, "1000"}, {"64MiB", 64 << 20, "64MiB"}, {"64mb", 64 << 20, "64MiB"},
		{"512 K", 512 << 10, "512KiB"}, {"1536MiB", 1536 << 20, "1536MiB"}, {"2g", 2 << 30, "2GiB"}, {"1t", 1 << 40, "1TiB"},
	} {
		var s Size
		require.NoError(t, s.Set(c.text), c.text)
		require.EqualValues(t, c.want, s, c.text)
		require.Equal(t, c.back, s.String())
	}
	for _, text := range []string{"", "MiB", "-1", "1.5MiB", "99999999999TiB", "10m b"} {
		var s Size
		require.ErrorContains(t, s.Set(text), "is not a size", text)
	}
}

func TestDurationsAreReadAndWritten(t *testing.T) {
	var d Duration
	require.NoError(t, d.Set("100ms"))
	require.Equal(t, Duration(100*time.Millisecond), d)
	require.Equal(t, "100ms", d.String())
	require.ErrorContains(t, d.Set("100"), "write it as 100ms")
	require.ErrorContains(t, d.Set("-1s"), "is not a time span")
}
