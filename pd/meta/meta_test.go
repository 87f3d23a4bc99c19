package meta

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func testOptions(t testing.TB) Options {
	return Options{Dir: filepath.Join(t.TempDir(), "pd"), Lease: 300 * time.Millisecond, noSync: true}
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
	require.Eventually(t, func() bool { _, ok, _ := s.Leader(); return ok }, 5*time.Second, time.Millisecond)
	leader, _, changed := s.Leader()
	require.Equal(t, s.Self(), leader.Member)
	require.Equal(t, []Member{s.Self()}, s.Members())

	term.Resign()
	<-term.Done()
	<-changed
	last, ok, _ := s.Leader()
	require.False(t, ok)
	require.Equal(t, leader.Term, last.Term)
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
	term.stop() // the record stays, as after a crash
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

// See snapshotEvery: a member that has written more than etcd cuts off must not have to read
// its log from the beginning.
func TestARestartBeginsAtASnapshot(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
	opts := testOptions(t)
	s := open(t, opts)
	term := campaign(t, s)
	for i := range 2 * snapshotEvery {
		require.NoError(t, term.Write(context.Background(), Op{Key: fmt.Sprint("k", i), Value: []byte("v")}))
	}
	term.Resign()
	require.NoError(t, s.Close())
	made, err := filepath.Glob(filepath.Join(opts.Dir, "member", "snap", "*.snap"))
	require.NoError(t, err)
	require.NotEmpty(t, made)
	s = open(t, opts)
	campaign(t, s).Resign()
	v, _, err := s.Get(context.Background(), "k7")
	require.NoError(t, err)
	require.Equal(t, "v", string(v))
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
