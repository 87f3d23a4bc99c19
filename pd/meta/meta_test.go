package meta

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func testOptions(t testing.TB) Options {
	return Options{Dir: filepath.Join(t.TempDir(), "pd"), Tick: 10 * time.Millisecond, Election: 100 * time.Millisecond, Lease: time.Second, noSync: true}
}

func open(t testing.TB, opts Options) *Store {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	s, err := Open(ctx, opts)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func campaign(t testing.TB, s *Store) *Term {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	term, err := s.Campaign(ctx)
	require.NoError(t, err)
	return term
}

func TestLeaderWritesAndAFormerLeaderCannot(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
	ctx := context.Background()
	opts := testOptions(t)
	opts.Address = "127.0.0.1:7000"
	s := open(t, opts)
	term := campaign(t, s)
	require.True(t, term.ValidAt(time.Now()))
	require.NoError(t, term.Write(ctx, Op{Key: "a", Value: []byte("1")}, Op{Key: "b", Value: []byte("2")}))
	v, found, err := s.Get(ctx, "a")
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, "1", string(v))
	leader, ok, err := s.Leader(ctx)
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, s.Self(), leader)
	members, err := s.Members(ctx)
	require.NoError(t, err)
	require.Equal(t, []Member{s.Self()}, members)

	term.Resign()
	<-term.Done()
	require.ErrorIs(t, term.Write(ctx, Op{Key: "a", Value: []byte("3")}), ErrNotLeader)
	second := campaign(t, s)
	defer second.Resign()
	// Even one that does not know yet: the write itself is conditional.
	term.expires.Store(1 << 62)
	require.ErrorIs(t, term.Write(ctx, Op{Key: "a", Value: []byte("3")}), ErrNotLeader)
	v, _, _ = s.Get(ctx, "a")
	require.Equal(t, "1", string(v))
	require.NoError(t, second.Write(ctx, Op{Key: "a", Delete: true}))
	_, found, _ = s.Get(ctx, "a")
	require.False(t, found)
}

func TestListReadsAllPagesOfOneMoment(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
	ctx := context.Background()
	s := open(t, testOptions(t))
	term := campaign(t, s)
	defer term.Resign()
	const n = pageSize + 250
	for i := 0; i < n; i += MaxOps {
		var ops []Op
		for j := i; j < min(i+MaxOps, n); j++ {
			ops = append(ops, Op{Key: fmt.Sprintf("x/%06d", j), Value: []byte("v")})
		}
		require.NoError(t, term.Write(ctx, ops...))
	}
	require.NoError(t, term.Write(ctx, Op{Key: "y/other", Value: []byte("v")}))
	var names []string
	require.NoError(t, s.List(ctx, "x/", func(name string, _ []byte) error { names = append(names, name); return nil }))
	require.Len(t, names, n)
	require.Equal(t, "000000", names[0])
	require.Equal(t, fmt.Sprintf("%06d", n-1), names[n-1])
}

// A restart finds its own leader key, still leased, and does not wait for it.
func TestRestartLeadsAtOnceAndKeepsData(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
	ctx := context.Background()
	opts := testOptions(t)
	opts.Lease = 30 * time.Second
	s := open(t, opts)
	term := campaign(t, s)
	require.NoError(t, term.Write(ctx, Op{Key: "a", Value: []byte("1")}))
	term.cancel() // the renewal stops, the key stays, as after a crash
	term.wg.Wait()
	require.NoError(t, s.Close())

	began := time.Now()
	s = open(t, opts)
	again := campaign(t, s)
	t.Logf("opened and elected in %v", time.Since(began))
	require.Less(t, time.Since(began), 10*time.Second)
	v, _, err := s.Get(ctx, "a")
	require.NoError(t, err)
	require.Equal(t, "1", string(v))
	again.Resign()
}

func TestForeignOrDamagedDirectoryIsAClearError(t *testing.T) {
	ctx := context.Background()
	foreign := testOptions(t)
	require.NoError(t, os.MkdirAll(foreign.Dir, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(foreign.Dir, "ibdata1"), []byte("x"), 0o600))
	_, err := Open(ctx, foreign)
	var corrupt *CorruptError
	require.ErrorAs(t, err, &corrupt)

	for _, damage := range []struct{ name, file string }{
		{"database", "member/snap/db"},
		{"log", "member/wal/0000000000000000-0000000000000000.wal"},
		{"format", formatFile},
	} {
		t.Run(damage.name, func(t *testing.T) {
			opts := testOptions(t)
			s := open(t, opts)
			campaign(t, s).Resign()
			require.NoError(t, s.Close())
			path := filepath.Join(opts.Dir, damage.file)
			require.NoError(t, os.WriteFile(path, []byte(strings.Repeat("garbage ", 4096)), 0o600))
			_, err := Open(ctx, opts)
			require.ErrorAs(t, err, &corrupt)
			t.Log(err)
			_, err = Open(ctx, opts)
			require.ErrorAs(t, err, &corrupt, "the second attempt says the same")
		})
	}
}

func TestADirectoryIsUsedByOneStoreOnly(t *testing.T) {
	opts := testOptions(t)
	open(t, opts)
	_, err := Open(context.Background(), opts)
	require.ErrorContains(t, err, "in use")
}

// freeURLs returns peer URLs on loopback ports that were free a moment ago.
func freeURLs(t *testing.T, n int) []string {
	var urls []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		urls = append(urls, "http://"+l.Addr().String())
		defer l.Close()
	}
	return urls
}

func TestThreeMembersHandLeadershipOver(t *testing.T) {
	urls := freeURLs(t, 3)
	cluster := map[string]string{"p0": urls[0], "p1": urls[1], "p2": urls[2]}
	stores := make([]*Store, 3)
	var wg sync.WaitGroup
	for i := range stores {
		opts := testOptions(t)
		opts.Name, opts.PeerURL, opts.InitialCluster = fmt.Sprintf("p%d", i), urls[i], cluster
		opts.Tick, opts.Election = 50*time.Millisecond, 500*time.Millisecond
		opts.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			s, err := Open(ctx, opts)
			if err != nil {
				t.Error(err)
				return
			}
			stores[i] = s
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	defer func() {
		for _, s := range stores {
			s.Close()
		}
	}()
	type elected struct {
		i    int
		term *Term
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	won := make(chan elected, 3)
	for i, s := range stores {
		go func() {
			term, err := s.Campaign(ctx)
			if err == nil {
				won <- elected{i, term}
			} else if !errors.Is(err, ErrClosed) && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}()
	}
	first := <-won
	require.NoError(t, first.term.Write(ctx, Op{Key: "a", Value: []byte("1")}))
	go first.term.Resign()
	require.NoError(t, stores[first.i].Close())
	second := <-won
	require.NotEqual(t, first.i, second.i)
	require.False(t, first.term.ValidAt(time.Now()))
	v, found, err := stores[second.i].Get(ctx, "a")
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, "1", string(v))
	require.NoError(t, second.term.Write(ctx, Op{Key: "a", Value: []byte("2")}))
	cancel()
	second.term.Resign()
}

func BenchmarkWrite(b *testing.B) {
	opts := testOptions(b)
	opts.noSync = false
	s := open(b, opts)
	term := campaign(b, s)
	defer term.Resign()
	for b.Loop() {
		if err := term.Write(context.Background(), Op{Key: "tso", Value: []byte("12345678")}); err != nil {
			b.Fatal(err)
		}
	}
}
