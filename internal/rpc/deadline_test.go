package rpc

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestDeadlinePassesWithAndWithoutAWaiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := WithDeadline(context.Background(), time.Now().Add(time.Second))
		require.NoError(t, d.Err())
		<-d.Done()
		require.ErrorIs(t, d.Err(), context.DeadlineExceeded)
		d.Release()

		quiet := WithDeadline(context.Background(), time.Now().Add(time.Second))
		time.Sleep(time.Second) // virtual
		require.ErrorIs(t, quiet.Err(), context.DeadlineExceeded)
		quiet.Release()

		parent, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		p := WithDeadline(parent, time.Now().Add(time.Hour))
		at, ok := p.Deadline()
		require.True(t, ok)
		require.Equal(t, time.Second, time.Until(at))
		child, stop := context.WithCancel(p) // a foreign context type works as a parent
		defer stop()
		<-child.Done()
		require.ErrorIs(t, p.Err(), context.DeadlineExceeded)
		p.Release()
	})
}

// A context whose Done is closed has an error; else contexts derived from it panic when they
// look, which they do in goroutines of their own.
func TestAReleasedDeadlineHasAnError(t *testing.T) {
	d := WithDeadline(context.Background(), time.Now().Add(time.Hour))
	child, cancel := context.WithCancel(d)
	defer cancel()
	d.Release()
	<-d.Done()
	require.ErrorIs(t, d.Err(), context.Canceled)
	<-child.Done()
	require.ErrorIs(t, child.Err(), context.Canceled)
}

func BenchmarkDeadline(b *testing.B) {
	b.ReportAllocs()
	ctx := context.Background()
	for b.Loop() {
		d := WithDeadline(ctx, time.Now().Add(time.Second))
		if d.Err() != nil {
			b.Fatal()
		}
		d.Release()
	}
}
