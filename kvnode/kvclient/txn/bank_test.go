package txn

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	accounts = 12
	deposit  = 100
)

func account(i int) []byte { return fmt.Appendf(nil, "acc%02d", i) }

// TestBank moves money between accounts in several regions while readers sum
// everything up: the sum never changes, under lost answers, splits and elections,
// however the nodes commit, and though some die in the middle of it.
func TestBank(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	s, kv, tso := newTestStore(t)
	tx := begin(t, s)
	for i := range accounts {
		require.NoError(t, tx.Insert(account(i), []byte(strconv.Itoa(deposit))))
	}
	_, err := tx.Commit(t.Context())
	require.NoError(t, err)
	kv.st.Split(account(4))
	kv.faults = rand.New(rand.NewPCG(seed, 0))
	nodes := []*Store{s, nodeOf(t, kv, tso, true), nodeOf(t, kv, tso, false)}
	var wg sync.WaitGroup
	for c := range 4 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, uint64(c+1)))
			for range 60 {
				if rnd.IntN(20) == 0 {
					kv.st.NewTerm()
				}
				node := nodes[rnd.IntN(len(nodes))]
				if rnd.IntN(6) == 0 {
					node = mortalNode(t, kv, tso, rnd)
				}
				transfer(node, rnd)
			}
		})
		wg.Go(func() {
			for i := range 30 {
				if sum, err := total(nodes[i%len(nodes)]); err == nil && sum != accounts*deposit {
					t.Errorf("sum is %d", sum)
				}
			}
		})
	}
	kv.st.Split(account(8))
	wg.Wait()
	kv.mu.Lock()
	kv.faults = nil
	kv.mu.Unlock()
	tso.pass(time.Minute)
	sum, err := total(s)
	require.NoError(t, err)
	require.Equal(t, accounts*deposit, sum)
}

// transfer moves one coin; errors leave everything as it was or are undetermined,
// and either way the sum stays.
func transfer(s *Store, rnd *rand.Rand) {
	ctx := context.Background()
	tx, err := s.Begin(ctx, TxnOptions{})
	if err != nil {
		return
	}
	defer tx.Rollback()
	from, to := rnd.IntN(accounts), rnd.IntN(accounts)
	if from == to {
		return
	}
	for i, delta := range map[int]int{from: -1, to: 1} {
		v, err := tx.Get(ctx, account(i))
		if err != nil {
			return
		}
		n, err := strconv.Atoi(string(v))
		if err != nil || tx.Set(account(i), []byte(strconv.Itoa(n+delta))) != nil {
			return
		}
	}
	_, _ = tx.Commit(ctx)
}

func total(s *Store) (sum int, err error) {
	ctx := context.Background()
	tx, err := s.Begin(ctx, TxnOptions{})
	if err != nil {
		return 0, err
	}
	sc := tx.Scan(ctx, nil, nil, ScanOptions{Reverse: true})
	for {
		b, err := sc.NextBlock(ctx)
		if errors.Is(err, io.EOF) {
			return sum, nil
		}
		if err != nil {
			return 0, err
		}
		for i := range b.Len() {
			n, err := strconv.Atoi(string(b.Value(i)))
			if err != nil {
				return 0, err
			}
			sum += n
		}
	}
}
