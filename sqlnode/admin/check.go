package admin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/cairndb/cairn/internal/keys"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/kvnode/kvclient/txn"
	"github.com/cairndb/cairn/sqlnode/catalog"
	"github.com/cairndb/cairn/sqlnode/table"
)

// Check compares the rows of a table with the entries of its indexes, at one moment:
// every row has its entry, every entry its row, and both say the same.
//
//  1. The rows are read once. For each index, the entries they ask for are counted and
//     summed up, as 128-bit hashes of key and value.
//  2. Each index is read once; count and sum must be the same. Two different sets of
//     entries have the same sum by an accident nobody will see.
//  3. Only for an index that differs, rows and entries are looked up in each other,
//     a block at a time, to name the first that is wrong.
//
// Memory is that of a block, however large the table.
type Check struct {
	Table   *catalog.Table
	Indexes []*catalog.Index // public ones; PRIMARY is the rows themselves
	Reader  *txn.Snapshot
	Loc     *time.Location // of values in messages; nil = UTC
}

// Run returns nil, or 8223 for the first difference found.
func (c *Check) Run(ctx context.Context) error {
	var list []*indexCheck
	for _, ix := range c.Indexes {
		if !ix.Primary {
			list = append(list, &indexCheck{Check: c, ix: ix, build: table.NewIndexBuilder(c.Table, ix)})
		}
	}
	err := c.rows(ctx, func(handle []byte, row []types.Value) error {
		for _, x := range list {
			key, value, _ := x.build.Entry(row, handle)
			x.wanted.add(key, value)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, x := range list {
		if err := x.run(ctx); err != nil {
			return err
		}
	}
	return nil
}

// rows calls f for every row, in UTC. The arguments are valid during the call.
func (c *Check) rows(ctx context.Context, f func(handle []byte, row []types.Value) error) error {
	start, end := keys.RowPrefix(c.Table.ID)
	rr := table.NewRowReader(c.Table, nil)
	var row []types.Value
	var again []byte
	return c.scan(ctx, start, end, func(key, value []byte) error {
		handle := key[keys.RowPrefixLen:]
		var err error
		if row, err = rr.Decode(row[:0], handle, value); err != nil {
			return c.wrong("PRIMARY", handle, "", err.Error())
		}
		if c.Table.Handle == catalog.HandleCommon {
			if again = table.AppendHandle(again[:0], c.Table, row, 0, nil); !bytes.Equal(handle, again) {
				return c.wrong("PRIMARY", handle, "", table.EntryText(c.Table, c.Table.PK, row))
			}
		}
		return f(handle, row)
	})
}

func (c *Check) scan(ctx context.Context, start, end []byte, f func(key, value []byte) error) error {
	sc := c.Reader.Scan(ctx, start, end, txn.ScanOptions{})
	for {
		b, err := sc.NextBlock(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for i := range b.Len() {
			if err := f(b.Key(i), b.Value(i)); err != nil {
				return err
			}
		}
	}
}

// wrong is error 8223, in TiDB's words.
func (c *Check) wrong(index string, handle []byte, entry, record string) error {
	return sqlerr.New(sqlerr.ErrDataInconsistent, c.Table.Name, index, handleText(handle), quoted(entry), quoted(record))
}

func quoted(s string) string { return fmt.Sprintf("%q", s) }

func handleText(handle []byte) string {
	if n, err := keys.DecodeIntHandle(handle); err == nil {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%x", handle)
}

// total is a sum of entries that does not depend on their order.
type total struct{ n, hi, lo uint64 }

func (s *total) add(key, value []byte) {
	var d xxhash.Digest
	var carry uint64
	d.ResetWithSeed(1)
	_, _ = d.Write(key) // never fails
	_, _ = d.Write(value)
	lo := d.Sum64()
	d.ResetWithSeed(2)
	_, _ = d.Write(value)
	_, _ = d.Write(key)
	s.lo, carry = bits.Add64(s.lo, lo, 0)
	s.hi, _ = bits.Add64(s.hi, d.Sum64(), carry)
	s.n++
}

// indexCheck is the check of one index.
type indexCheck struct {
	*Check
	ix     *catalog.Index
	build  *table.IndexBuilder
	wanted total // what the rows ask for
}

func (x *indexCheck) run(ctx context.Context) error {
	var found total
	start, end := keys.IndexPrefix(x.Table.ID, x.ix.ID)
	if err := x.scan(ctx, start, end, func(k, v []byte) error { found.add(k, v); return nil }); err != nil {
		return err
	}
	if found == x.wanted {
		return nil
	}
	if err := x.rowsWithoutEntry(ctx); err != nil {
		return err
	}
	if err := x.entriesWithoutRow(ctx); err != nil {
		return err
	}
	return x.wrong(x.ix.Name, nil, fmt.Sprintf("%d entries", found.n), fmt.Sprintf("%d rows", x.wanted.n))
}

// blockSize is how many rows or entries are looked up at once.
const blockSize = 256

// block gathers lookups and does them together.
type block struct {
	x    *indexCheck
	keys [][]byte
	// check judges what was found under keys[i]; nil = nothing.
	check func(i int, value []byte) error
	reset func()
}

func (b *block) add(ctx context.Context, key []byte) error {
	b.keys = append(b.keys, key)
	if len(b.keys) < blockSize {
		return nil
	}
	return b.flush(ctx)
}

func (b *block) flush(ctx context.Context) error {
	if len(b.keys) == 0 {
		return nil
	}
	values, err := b.x.Reader.BatchGet(ctx, b.keys)
	if err != nil {
		return err
	}
	for i, v := range values {
		if err := b.check(i, v); err != nil {
			return err
		}
	}
	b.keys = b.keys[:0]
	b.reset()
	return nil
}

// rowsWithoutEntry looks the entry of every row up.
func (x *indexCheck) rowsWithoutEntry(ctx context.Context) error {
	type expected struct {
		handle, value []byte
		text          string
	}
	var rows []expected
	b := block{x: x, reset: func() { rows = rows[:0] }}
	b.check = func(i int, value []byte) error {
		r := rows[i]
		switch {
		case value == nil:
			return x.wrong(x.ix.Name, r.handle, "", x.record(r.handle, r.text))
		case !bytes.Equal(value, r.value):
			return x.wrong(x.ix.Name, r.handle, x.record(value, r.text), x.record(r.handle, r.text))
		}
		return nil
	}
	err := x.rows(ctx, func(handle []byte, row []types.Value) error {
		key, value, _ := x.build.Entry(row, handle)
		rows = append(rows, expected{bytes.Clone(handle), bytes.Clone(value), table.EntryText(x.Table, x.ix, row)})
		return b.add(ctx, bytes.Clone(key))
	})
	if err != nil {
		return err
	}
	return b.flush(ctx)
}

// entriesWithoutRow looks the row of every entry up, and what entry it asks for.
func (x *indexCheck) entriesWithoutRow(ctx context.Context) error {
	type entry struct{ key, handle []byte }
	var entries []entry
	rr := table.NewRowReader(x.Table, nil)
	var row []types.Value
	b := block{x: x, reset: func() { entries = entries[:0] }}
	b.check = func(i int, value []byte) (err error) {
		e := entries[i]
		columns := fmt.Sprintf("%x", e.key[keys.IndexPrefixLen:])
		if value == nil {
			return x.wrong(x.ix.Name, e.handle, x.record(e.handle, columns), "")
		}
		if row, err = rr.Decode(row[:0], e.handle, value); err != nil {
			return x.wrong("PRIMARY", e.handle, "", err.Error())
		}
		if key, _, _ := x.build.Entry(row, e.handle); !bytes.Equal(key, e.key) {
			return x.wrong(x.ix.Name, e.handle, x.record(e.handle, columns), x.record(e.handle, table.EntryText(x.Table, x.ix, row)))
		}
		return nil
	}
	start, end := keys.IndexPrefix(x.Table.ID, x.ix.ID)
	err := x.scan(ctx, start, end, func(key, value []byte) error {
		handle, err := table.EntryHandle(x.Table, x.ix, key, value)
		if err != nil {
			return x.wrong(x.ix.Name, nil, fmt.Sprintf("%x", key[keys.IndexPrefixLen:]), "")
		}
		entries = append(entries, entry{bytes.Clone(key), bytes.Clone(handle)})
		return b.add(ctx, keys.Row(x.Table.ID, handle))
	})
	if err != nil {
		return err
	}
	return b.flush(ctx)
}

func (x *indexCheck) record(handle []byte, values string) string {
	return fmt.Sprintf("handle: %s, values: [%s]", handleText(handle), values)
}
