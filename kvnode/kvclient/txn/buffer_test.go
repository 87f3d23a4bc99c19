package txn

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/proto/kvpb"
)

// TestReadYourWritesTwin compares a transaction with a map, over committed data,
// some of it on its way to the KV tier, with nested savepoints and scans in both directions over several regions.
func TestReadYourWritesTwin(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	s, kv, _ := newTestStore(t)
	for round := range 20 {
		if round%5 == 4 {
			kv.st.Split(siKey(rnd.IntN(40)))
		}
		twinRound(t, s, rnd)
	}
}

// state is the twin: values by key, and what the transaction did.
type state struct {
	values map[string]string
	wrote  map[string]bool
}

func (m state) clone() state { return state{maps.Clone(m.values), maps.Clone(m.wrote)} }

func twinRound(t *testing.T, s *Store, rnd *rand.Rand) {
	ctx := t.Context()
	pipelined := rnd.IntN(2) == 0
	tx, err := s.Begin(ctx, TxnOptions{Pipelined: pipelined})
	require.NoError(t, err)
	m := state{map[string]string{}, map[string]bool{}}
	sc := tx.Scan(ctx, nil, nil, ScanOptions{})
	for _, kv := range drain(t, sc) {
		m.values[kv[0]] = kv[1]
	}
	var points []Savepoint
	var marks []state
	for range 60 {
		k := string(siKey(rnd.IntN(40)))
		switch rnd.IntN(9) {
		case 0, 1, 2:
			v := fmt.Sprint(rnd.IntN(1000))
			require.NoError(t, tx.Set([]byte(k), []byte(v)))
			m.values[k], m.wrote[k] = v, true
		case 3:
			require.NoError(t, tx.Delete([]byte(k)))
			delete(m.values, k)
			m.wrote[k] = true
		case 4:
			points, marks = append(points, tx.Savepoint()), append(marks, m.clone())
		case 5:
			if n := len(points); n > 0 {
				tx.RollbackTo(points[n-1])
				m = marks[n-1].clone()
			}
		case 6:
			if n := len(points); n > 0 {
				tx.Release(points[n-1])
				points, marks = points[:n-1], marks[:n-1]
			}
		case 7:
			v, err := tx.Get(ctx, []byte(k))
			want, ok := m.values[k]
			if !ok {
				require.ErrorIs(t, err, ErrNotFound)
			} else {
				require.NoError(t, err)
				require.Equal(t, want, string(v))
			}
		case 8:
			compareScan(t, tx, m, rnd)
		}
		require.True(t, pipelined || len(m.wrote) == tx.Len())
	}
	size := 0
	for k := range m.wrote {
		size += len(k) + len(m.values[k])
	}
	require.True(t, pipelined || size == tx.Size())
	_, err = tx.Commit(ctx)
	require.NoError(t, err)
	got := drain(t, begin(t, s).Scan(ctx, nil, nil, ScanOptions{}))
	require.Equal(t, m.sorted("", ""), got)
}

func (m state) sorted(lo, hi string) [][2]string {
	var list [][2]string
	for _, k := range slices.Sorted(maps.Keys(m.values)) {
		if k >= lo && (hi == "" || k < hi) {
			list = append(list, [2]string{k, m.values[k]})
		}
	}
	return list
}

func compareScan(t *testing.T, tx *Txn, m state, rnd *rand.Rand) {
	t.Helper()
	lo, hi := string(siKey(rnd.IntN(40))), string(siKey(rnd.IntN(40)))
	if rnd.IntN(4) == 0 {
		hi = ""
	}
	o := ScanOptions{Reverse: rnd.IntN(2) == 0, Limit: rnd.IntN(3) * rnd.IntN(10)}
	want := m.sorted(lo, hi)
	if o.Reverse {
		slices.Reverse(want)
	}
	if o.Limit > 0 {
		want = want[:min(len(want), o.Limit)]
	}
	got := drain(t, tx.Scan(context.Background(), []byte(lo), []byte(hi), o))
	require.Equal(t, len(want), len(got), "scan [%s,%s) %+v: want %v, got %v", lo, hi, o, want, got)
	for i := range want {
		require.Equal(t, want[i], got[i])
	}
}

func drain(t testing.TB, sc *Scanner) [][2]string {
	t.Helper()
	var list [][2]string
	for {
		b, err := sc.NextBlock(context.Background())
		if errors.Is(err, io.EOF) {
			return list
		}
		require.NoError(t, err)
		for i := range b.Len() {
			list = append(list, [2]string{string(b.Key(i)), string(b.Value(i))})
		}
	}
}

// A scan shows the writes made before it was opened and none made after.
func TestScanDoesNotSeeLaterWrites(t *testing.T) {
	s, _, _ := newTestStore(t)
	tx := begin(t, s)
	require.NoError(t, tx.Set([]byte("a"), []byte("1")))
	sc := tx.Scan(t.Context(), nil, nil, ScanOptions{})
	require.NoError(t, tx.Set([]byte("a"), []byte("2")))
	require.NoError(t, tx.Set([]byte("b"), []byte("2")))
	require.Equal(t, [][2]string{{"a", "1"}}, drain(t, sc))
}

func TestHasWritesIn(t *testing.T) {
	s, _, _ := newTestStore(t)
	tx := begin(t, s)
	require.False(t, tx.Dirty())
	tx.LockKey([]byte("c"))
	require.True(t, tx.Dirty())
	require.False(t, tx.HasWritesIn(nil, nil), "a lock is no write")
	require.NoError(t, tx.Delete([]byte("b")))
	require.True(t, tx.HasWritesIn([]byte("b"), []byte("c")))
	require.False(t, tx.HasWritesIn([]byte("a"), []byte("b")))
}

func TestSavepointRestoresInsertFlag(t *testing.T) {
	s, _, _ := newTestStore(t)
	commitPairs(t, s, "a=0")
	tx := begin(t, s)
	sp := tx.Savepoint()
	require.NoError(t, tx.Insert([]byte("a"), []byte("1")))
	tx.RollbackTo(sp)
	tx.Release(sp)
	require.False(t, tx.Dirty())
	require.NoError(t, tx.Set([]byte("a"), []byte("2")))
	_, err := tx.Commit(t.Context())
	require.NoError(t, err, "the undone insert must not be checked")
}

func FuzzBlock(f *testing.F) {
	f.Add([]byte("k1v1"), uint32(0), uint32(2), uint32(4))
	f.Fuzz(func(t *testing.T, data []byte, a, b, c uint32) {
		block, ok := blockOf(&kvpb.KvBlock{Data: data, Offsets: []uint32{a, b, c}})
		if !ok {
			return
		}
		for i := range block.Len() {
			_, _ = block.Key(i), block.Value(i)
		}
	})
}
