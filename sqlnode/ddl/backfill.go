package ddl

import (
	"context"
	"slices"
	"sync"

	"github.com/cairndb/cairn/internal/keys"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/kvnode/kvclient/txn"
	"github.com/cairndb/cairn/sqlnode/catalog"
	"github.com/cairndb/cairn/sqlnode/table"
)

const (
	// backfillBatch is how many rows one transaction of a backfill reads and indexes.
	backfillBatch = 512
	// backfillWorkers is how many such transactions run at a time, on different parts of the table.
	backfillWorkers = 4
)

// backfill writes the entries of all rows. By now every transaction maintains the index, so a concurrent change of a row
// that was read here writes the same entry (puts it or deletes it, even when it is absent), and of the two transactions
// one conflicts and is run again. So the entry alone decides and the rows need no locks.
func (e *Executor) backfill(ctx context.Context, t *catalog.Table, ix *catalog.Index) error {
	parts, err := e.divide(ctx, t)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for i := range len(parts) - 1 {
		wg.Go(func() {
			if err := e.backfillPart(ctx, t, ix, parts[i], parts[i+1]); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// divide cuts the rows of a table with integer handles into parts of equal handle ranges: part i is [out[i], out[i+1]).
// Other tables are one part.
func (e *Executor) divide(ctx context.Context, t *catalog.Table) (out [][]byte, err error) {
	start, end := keys.RowPrefix(t.ID)
	if t.Handle == catalog.HandleCommon {
		return [][]byte{start, end}, nil
	}
	var bounds []int64
	err = e.opts.KV.View(ctx, func(tx catalog.Tx) error {
		bounds = bounds[:0]
		for _, reverse := range []bool{false, true} {
			err := tx.Scan(ctx, start, end, txn.ScanOptions{Limit: 1, Reverse: reverse, KeyOnly: true}, func(k, _ []byte) error {
				h, err := keys.DecodeIntHandle(k[keys.RowPrefixLen:])
				bounds = append(bounds, h)
				return err
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil || len(bounds) < 2 {
		return [][]byte{start, end}, err
	}
	out = append(out, start)
	step := uint64(bounds[1]-bounds[0]) / backfillWorkers // the difference is right as unsigned even when it overflows
	if step >= backfillBatch {
		for i := uint64(1); i < backfillWorkers; i++ {
			out = append(out, keys.AppendIntRow(nil, t.ID, bounds[0]+int64(i*step)))
		}
	}
	return append(out, end), nil
}

// backfillPart indexes the rows of [start, end).
func (e *Executor) backfillPart(ctx context.Context, t *catalog.Table, ix *catalog.Index, start, end []byte) error {
	b := backfiller{t: t, ix: ix, ib: table.NewIndexBuilder(t, ix), rr: table.NewRowReader(t, nil)}
	for start != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var next []byte
		// A batch that lost to the writers of its rows is run again with half the rows: one at last, and then it wins.
		limit := 2 * backfillBatch
		err := e.opts.KV.Update(ctx, func(tx catalog.Tx) (err error) {
			limit = max(limit/2, 1)
			next, err = b.batch(ctx, tx, start, end, limit)
			return err
		})
		if err != nil {
			return err
		}
		start = next
	}
	return nil
}

type backfiller struct {
	t  *catalog.Table
	ix *catalog.Index
	ib *table.IndexBuilder
	rr *table.RowReader

	row []types.Value
}

// batch indexes up to limit rows of [start, end) and returns where to go on; nil at the end.
func (b *backfiller) batch(ctx context.Context, tx catalog.Tx, start, end []byte, limit int) (next []byte, err error) {
	n := 0
	var last []byte
	err = tx.Scan(ctx, start, end, txn.ScanOptions{Limit: limit}, func(k, v []byte) error {
		n++
		if n == limit {
			last = slices.Clone(k)
		}
		return b.add(ctx, tx, k, v)
	})
	if err != nil || last == nil {
		return nil, err
	}
	return keys.Next(last), nil
}

// add writes the entry of one row.
func (b *backfiller) add(ctx context.Context, tx catalog.Tx, rowKey, value []byte) error {
	_, handle, err := keys.DecodeRow(rowKey)
	if err != nil {
		return err
	}
	if b.row, err = b.rr.Decode(b.row[:0], handle, value); err != nil {
		return err
	}
	key, entry, distinct := b.ib.Entry(b.row, handle)
	if distinct {
		other, err := tx.Get(ctx, key)
		if err != nil {
			return err
		}
		if slices.Equal(other, handle) {
			return nil // a writer was here
		}
		if other != nil {
			return &table.DupError{Table: b.t, Index: b.ix, Handle: other, Entry: table.EntryText(b.t, b.ix, b.row)}
		}
	}
	return tx.Set(key, entry)
}
