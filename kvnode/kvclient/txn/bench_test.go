package txn

import (
	"context"
	"fmt"
	"math"
	"testing"
)

// The client's own share: everything below it is the in-memory KV tier.

func BenchmarkSnapshotGet(b *testing.B) {
	s, _, _ := newTestStore(b)
	commitPairs(b, s, "a=1")
	sn := s.Snapshot(math.MaxUint64)
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := sn.Get(ctx, []byte("a")); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAutocommitUpdate(b *testing.B) {
	s, _, _ := newTestStore(b)
	ctx := context.Background()
	value := make([]byte, 100)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		tx, err := s.Begin(ctx, TxnOptions{Autocommit: true})
		if err != nil {
			b.Fatal(err)
		}
		if err := tx.Set(fmt.Appendf(nil, "k%05d", i%10000), value); err != nil {
			b.Fatal(err)
		}
		if _, err := tx.Commit(ctx); err != nil {
			b.Fatal(err)
		}
	}
}
