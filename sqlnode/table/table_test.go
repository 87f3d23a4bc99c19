package table

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/tidwall/btree"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/keys"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/kvnode/kvclient/txn"
	"github.com/cairndb/cairn/sqlnode/catalog"
	"github.com/cairndb/cairn/sqlnode/catalog/catalogtest"
)

// fakeTxn is a transaction over a map: base is what was committed before, own what the transaction wrote.
type fakeTxn struct {
	base, own *btree.Map[string, []byte] // nil value in own = deleted
	presumed  map[string]bool
}

func newTxn(base *btree.Map[string, []byte]) *fakeTxn {
	return &fakeTxn{base: base, own: btree.NewMap[string, []byte](16), presumed: map[string]bool{}}
}

func (f *fakeTxn) Get(_ context.Context, key []byte) ([]byte, error) {
	if v, ok := f.own.Get(string(key)); ok {
		if v == nil {
			return nil, txn.ErrNotFound
		}
		return v, nil
	}
	if v, ok := f.base.Get(string(key)); ok {
		return v, nil
	}
	return nil, txn.ErrNotFound
}

func (f *fakeTxn) Set(key, value []byte) error {
	f.own.Set(string(key), append([]byte{}, value...))
	return nil
}

func (f *fakeTxn) Insert(key, value []byte) error {
	if _, ok := f.own.Get(string(key)); !ok {
		f.presumed[string(key)] = true
	}
	return f.Set(key, value)
}

func (f *fakeTxn) Delete(key []byte) error {
	f.own.Set(string(key), nil)
	return nil
}

func (f *fakeTxn) SetDependent(key, value []byte, _ bool) error { return f.Set(key, value) }

func (f *fakeTxn) DeleteDependent(key []byte, _ bool) error { return f.Delete(key) }

func (f *fakeTxn) HasWritesIn(start, end []byte) (found bool) {
	f.own.Ascend(string(start), func(k string, _ []byte) bool {
		found = k < string(end)
		return false
	})
	return found
}

// commit applies the writes; a presumed key that exists fails as the store does.
func (f *fakeTxn) commit() error {
	for k := range f.presumed {
		if v, ok := f.base.Get(k); ok && v != nil {
			w, _ := f.own.Get(k)
			return &txn.KeyExistsError{Key: []byte(k), Value: w}
		}
	}
	f.own.Scan(func(k string, v []byte) bool {
		if v == nil {
			f.base.Delete(k)
		} else {
			f.base.Set(k, v)
		}
		return true
	})
	return nil
}

func intCol(id int64, name string, flags uint32) *catalog.Column {
	typ := types.NewInt()
	typ.Flags |= flags
	return &catalog.Column{ID: id, Name: name, Type: typ}
}

func strCol(id int64, name string, coll charset.ID) *catalog.Column {
	return &catalog.Column{ID: id, Name: name, Type: types.NewString(40, coll)}
}

func index(id int64, name string, unique bool, offsets ...int) *catalog.Index {
	ix := &catalog.Index{ID: id, Name: name, Unique: unique, Primary: name == "PRIMARY"}
	for _, o := range offsets {
		ix.Columns = append(ix.Columns, catalog.IndexColumn{Offset: o, Length: -1})
	}
	return ix
}

// makeTable: a int, s text in the default collation, n int null, t timestamp. pk lists the primary key's columns.
func makeTable(pk []int, indexes ...*catalog.Index) *catalog.Table {
	tbl := &catalog.Table{ID: 7, DB: "d", Name: "t", Columns: []*catalog.Column{
		intCol(1, "a", types.FlagNotNull), strCol(2, "s", charset.Default), intCol(3, "n", 0),
		{ID: 4, Name: "ts", Type: types.NewTemporal(types.TypeTimestamp, 0)},
	}}
	if pk != nil {
		tbl.AddIndex(index(1, "PRIMARY", true, pk...))
	}
	for _, ix := range indexes {
		tbl.AddIndex(ix)
	}
	b := catalog.NewBuilder(1)
	b.AddDatabase(&catalog.Database{ID: 1, Name: "d"})
	return b.AddTable(tbl).Build().Table("d", "t")
}

func row(a int64, s string, n any) []types.Value {
	r := []types.Value{types.Int(a), types.String(s), types.Null(), types.TimeVal(types.MakeTime(2024, 5, int(a%27)+1, 10, 0, 0, 0))}
	if v, ok := n.(int); ok {
		r[2] = types.Int(int64(v))
	}
	return r
}

func TestDuplicatesAreFound(t *testing.T) {
	ctx := context.Background()
	tbl := makeTable([]int{0}, index(2, "us", true, 1), index(3, "un", true, 2))
	base := btree.NewMap[string, []byte](16)
	w := NewWriter(tbl, nil)
	tx := newTxn(base)
	require.NoError(t, w.Insert(ctx, tx, row(1, "Hello", nil), 0, CheckAtCommit))
	require.NoError(t, w.Insert(ctx, tx, row(2, "other", nil), 0, CheckAtCommit), "NULLs do not collide")

	err := w.Insert(ctx, tx, row(1, "x", nil), 0, CheckAtCommit)
	require.EqualError(t, err, "ERROR 1062 (23000): Duplicate entry '1' for key 'PRIMARY'")
	tx = newTxn(base)
	require.NoError(t, w.Insert(ctx, tx, row(1, "Hello", nil), 0, CheckAtCommit))
	err = w.Insert(ctx, tx, row(3, "hELLO", nil), 0, CheckAtCommit)
	require.EqualError(t, err, "ERROR 1062 (23000): Duplicate entry 'hELLO' for key 'us'")
	d, ok := AsDup(err)
	require.True(t, ok)
	require.Equal(t, keys.IntHandle(1), d.Handle)
	require.Equal(t, uint16(1062), sqlerr.Code(err))

	tx = newTxn(base)
	require.NoError(t, w.Insert(ctx, tx, row(1, "Hello", 5), 0, CheckAtCommit))
	require.NoError(t, tx.commit())

	// Seen by a read now, or by the commit.
	require.Error(t, w.Insert(ctx, newTxn(base), row(9, "z", 5), 0, CheckNow))
	for _, c := range []struct {
		r    []types.Value
		want string
	}{
		{row(1, "q", nil), "Duplicate entry '1' for key 'PRIMARY'"},
		{row(9, "HELLO", nil), "Duplicate entry 'HELLO' for key 'us'"},
		{row(9, "q", 5), "Duplicate entry '5' for key 'un'"},
	} {
		tx = newTxn(base)
		require.NoError(t, w.Insert(ctx, tx, c.r, 0, CheckAtCommit))
		var exists *txn.KeyExistsError
		require.ErrorAs(t, tx.commit(), &exists)
		b := catalog.NewBuilder(1)
		b.AddDatabase(&catalog.Database{ID: 1, Name: "d"})
		d := Duplicate(ctx, b.AddTable(tbl).Build(), tx, exists, nil)
		require.NotNil(t, d)
		require.Contains(t, d.Error(), c.want)
	}
	conflict, err := w.Conflict(ctx, newTxn(base), row(2, "hello", nil), 0)
	require.NoError(t, err)
	require.Equal(t, "us", conflict.Index.Name)
	require.Equal(t, keys.IntHandle(1), conflict.Handle)
}

func TestNotNullAndFrozen(t *testing.T) {
	tbl := makeTable([]int{0})
	r := row(1, "x", nil)
	r[0] = types.Null()
	err := NewWriter(tbl, nil).Insert(context.Background(), newTxn(btree.NewMap[string, []byte](16)), r, 0, CheckNow)
	require.EqualError(t, err, "ERROR 1048 (23000): Column 'a' cannot be null")
	frozen := *tbl
	frozen.Frozen = true
	err = NewWriter(&frozen, nil).Insert(context.Background(), newTxn(btree.NewMap[string, []byte](16)), row(1, "x", nil), 0, CheckNow)
	require.Equal(t, uint16(1412), sqlerr.Code(err))
}

// TestTwin runs random statements against the writer and a map, and then compares every key of the table with what the
// map says it should be.
func TestTwin(t *testing.T) {
	prefixed := index(4, "pre", false, 1)
	prefixed.Columns[0].Length = 2
	zone, err := time.LoadLocation("America/New_York")
	require.NoError(t, err)
	for name, tbl := range map[string]*catalog.Table{
		"int":    makeTable([]int{0}, index(2, "us", true, 1), index(3, "n", false, 2), prefixed, index(5, "un", true, 2, 3)),
		"common": makeTable([]int{1, 0}, index(2, "us", true, 1), index(3, "n", false, 2, 3), prefixed),
		"rowid":  makeTable(nil, index(2, "ua", true, 0), index(3, "n", false, 2)),
	} {
		t.Run(name, func(t *testing.T) {
			seed := uint64(time.Now().UnixNano())
			t.Logf("seed %d", seed)
			r := rand.New(rand.NewPCG(seed, 1))
			tw := twin{t: t, tbl: tbl, w: NewWriter(tbl, zone), zone: zone, base: btree.NewMap[string, []byte](16), rows: map[string][]types.Value{}}
			for i := range 400 {
				tw.statement(r)
				if i%20 == 0 {
					tw.compare()
				}
			}
			tw.compare()
		})
	}
}

type twin struct {
	t    *testing.T
	tbl  *catalog.Table
	w    *Writer
	zone *time.Location
	base *btree.Map[string, []byte]
	rows map[string][]types.Value // by handle
	last int64
}

func (tw *twin) random(r *rand.Rand) []types.Value {
	var n any
	if r.IntN(3) > 0 {
		n = r.IntN(8)
	}
	letters := "aAbBéÉ"
	s := ""
	for range r.IntN(4) {
		s += string([]rune(letters)[r.IntN(6)])
	}
	return row(int64(r.IntN(20)), s, n)
}

func (tw *twin) statement(r *rand.Rand) {
	ctx := context.Background()
	tx := newTxn(tw.base)
	check := Check(r.IntN(2))
	switch op := r.IntN(5); {
	case op < 2 || len(tw.rows) == 0:
		tw.last++
		v := tw.random(r)
		err := tw.w.Insert(ctx, tx, v, tw.last, check)
		tw.finish(tx, err, "", v, tw.last)
	case op < 4:
		h, old := tw.pick(r)
		v := tw.random(r)
		id := tw.rowID(h)
		err := tw.w.Update(ctx, tx, old, v, id, check)
		tw.finish(tx, err, h, v, id)
	default:
		h, old := tw.pick(r)
		require.NoError(tw.t, tw.w.Delete(ctx, tx, old, tw.rowID(h)))
		require.NoError(tw.t, tx.commit())
		delete(tw.rows, h)
	}
}

func (tw *twin) rowID(h string) int64 {
	if tw.tbl.Handle != catalog.HandleRowID {
		return 0
	}
	id, err := keys.DecodeIntHandle([]byte(h))
	require.NoError(tw.t, err)
	return id
}

func (tw *twin) pick(r *rand.Rand) (string, []types.Value) {
	n := r.IntN(len(tw.rows))
	for h, v := range tw.rows {
		if n == 0 {
			return h, v
		}
		n--
	}
	panic("unreachable")
}

// finish commits and checks that the outcome is what the unique keys of the map demand.
func (tw *twin) finish(tx *fakeTxn, err error, replaced string, v []types.Value, rowID int64) {
	if err == nil {
		err = tx.commit()
	}
	dup := tw.duplicate(replaced, v)
	if dup {
		require.Error(tw.t, err)
		return
	}
	require.NoError(tw.t, err)
	delete(tw.rows, replaced)
	tw.rows[string(AppendHandle(nil, tw.tbl, v, rowID, tw.zone))] = v
}

func (tw *twin) duplicate(except string, v []types.Value) bool {
	for h, other := range tw.rows {
		if h == except {
			continue
		}
		for _, ix := range tw.tbl.AllIndexes() {
			if ix.Unique && tw.same(ix, v, other) {
				return true
			}
		}
	}
	return false
}

func (tw *twin) same(ix *catalog.Index, a, b []types.Value) bool {
	for _, ic := range ix.Columns {
		x, y := a[ic.Offset], b[ic.Offset]
		if x.IsNull() || y.IsNull() || types.Compare(x, y, tw.tbl.Columns[ic.Offset].Type.Collation) != 0 {
			return false
		}
	}
	return true
}

// compare checks rows and entries both ways.
func (tw *twin) compare() {
	want := map[string]bool{}
	rr := NewRowReader(tw.tbl, tw.zone)
	for h, v := range tw.rows {
		key := keys.Row(tw.tbl.ID, []byte(h))
		want[string(key)] = true
		stored, ok := tw.base.Get(string(key))
		require.True(tw.t, ok, "row %x", h)
		got, err := rr.Decode(nil, []byte(h), stored)
		require.NoError(tw.t, err)
		require.Equal(tw.t, fmt.Sprint(text(tw.tbl, v)), fmt.Sprint(text(tw.tbl, got)))
		for i := range tw.w.indexes {
			iw := &tw.w.indexes[i]
			key, _ := tw.w.appendEntryKey(nil, iw, v, []byte(h))
			want[string(key)] = true
			value, ok := tw.base.Get(string(key))
			require.True(tw.t, ok, "entry of %s for row %v", iw.ix.Name, text(tw.tbl, v))
			handle, err := EntryHandle(tw.tbl, iw.ix, key, value)
			require.NoError(tw.t, err)
			require.Equal(tw.t, []byte(h), handle)
		}
	}
	require.Equal(tw.t, len(want), tw.base.Len(), "keys that belong to no row")
}

func text(tbl *catalog.Table, row []types.Value) (out []string) {
	for i, v := range row {
		if v.IsNull() {
			out = append(out, "NULL")
			continue
		}
		out = append(out, types.Text(v, tbl.Columns[i].Type))
	}
	return out
}

func TestIndexStates(t *testing.T) {
	ctx := context.Background()
	del, wr := index(2, "del", false, 2), index(3, "wr", true, 2)
	del.State, wr.State = catalog.StateDeleteOnly, catalog.StateWriteOnly
	tbl := makeTable([]int{0}, del, wr)
	require.Len(t, tbl.Indexes, 1)
	base := btree.NewMap[string, []byte](16)
	w := NewWriter(tbl, nil)
	tx := newTxn(base)
	require.NoError(t, w.Insert(ctx, tx, row(1, "a", 5), 0, CheckAtCommit))
	require.NoError(t, tx.commit())
	require.Equal(t, 2, base.Len(), "row and the entry of the write-only index")

	// A second row with the same value, from before the index: its deletion must not take the first one's entry.
	other := row(2, "b", 5)
	tx = newTxn(base)
	require.NoError(t, w.Delete(ctx, tx, other, 0))
	require.NoError(t, tx.commit())
	require.Equal(t, 2, base.Len())
	tx = newTxn(base)
	require.NoError(t, w.Delete(ctx, tx, row(1, "a", 5), 0))
	require.NoError(t, tx.commit())
	require.Zero(t, base.Len())
}

func TestCutPrefixCountsCharacters(t *testing.T) {
	typ := types.NewString(10, charset.Default)
	require.Equal(t, "éa", string(CutPrefix(types.String("éab"), typ, 2).Bytes()))
	require.Equal(t, "é", string(CutPrefix(types.String("éab"), types.NewString(10, charset.Binary), 2).Bytes()))
}

func TestCovers(t *testing.T) {
	tbl := makeTable([]int{0}, index(2, "s", false, 1), index(3, "n", false, 2, 1))
	n := tbl.Index("n")
	require.True(t, Covers(tbl, n, 2))
	require.True(t, Covers(tbl, n, 0), "the handle")
	require.False(t, Covers(tbl, n, 1), "a sort key cannot be read back")
	require.False(t, Covers(tbl, n, 3))
}

func TestDefaults(t *testing.T) {
	now := time.Date(2024, 5, 1, 10, 20, 30, 123_456_789, time.FixedZone("x", 3600))
	c := &catalog.Column{Name: "ts", Type: types.NewTemporal(types.TypeDatetime, 3), Default: &catalog.Default{Now: true, Fsp: 3}}
	v, err := DefaultValue(c, now)
	require.NoError(t, err)
	require.Equal(t, "2024-05-01 10:20:30.123", types.Text(v, c.Type))
	_, err = DefaultValue(intCol(1, "a", types.FlagNotNull), now)
	require.EqualError(t, err, "ERROR 1364 (HY000): Field 'a' doesn't have a default value")
}

func TestCounters(t *testing.T) {
	ctx := context.Background()
	kv := catalogtest.New()
	tbl := makeTable([]int{0})
	a := NewCounters(kv)
	take := func(c *Counters, n int) int64 {
		t.Helper()
		v, err := c.AutoID(ctx, tbl, n, 1, 1)
		require.NoError(t, err)
		return v
	}
	require.Equal(t, int64(1), take(a, 1))
	require.Equal(t, int64(2), take(a, 3))
	require.Equal(t, int64(5), take(a, 5000))
	require.Equal(t, int64(5005), take(a, 1))
	require.NoError(t, a.Close(ctx))

	b := NewCounters(kv) // a restart continues without a gap
	require.Equal(t, int64(5006), take(b, 1))
	require.NoError(t, b.Rebase(ctx, tbl, 5010))
	require.Equal(t, int64(5011), take(b, 1))
	require.NoError(t, b.Rebase(ctx, tbl, 100))
	require.Equal(t, int64(5012), take(b, 1))
	require.NoError(t, b.Rebase(ctx, tbl, 1_000_000))
	require.Equal(t, int64(1_000_001), take(b, 1))
	next, err := b.Next(ctx, tbl)
	require.NoError(t, err)
	require.Equal(t, int64(1_000_002), next)

	v, err := b.AutoID(ctx, tbl, 2, 10, 3)
	require.NoError(t, err)
	require.Equal(t, int64(1_000_003), v)
	v, err = b.AutoID(ctx, tbl, 1, 10, 3)
	require.NoError(t, err)
	require.Equal(t, int64(1_000_023), v)
}

func TestCountersOfSeveralNodesNeverCollide(t *testing.T) {
	ctx := context.Background()
	kv := catalogtest.New()
	tbl := makeTable([]int{0})
	seen := map[int64]bool{}
	nodes := []*Counters{NewCounters(kv), NewCounters(kv), NewCounters(kv)}
	r := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		c := nodes[r.IntN(3)]
		if r.IntN(1000) == 0 {
			explicit := int64(r.IntN(40_000) + 1)
			require.NoError(t, c.Rebase(ctx, tbl, explicit))
		}
		v, err := c.AutoID(ctx, tbl, 1, 1, 1)
		require.NoError(t, err)
		require.False(t, seen[v], "%d twice", v)
		seen[v] = true
	}
	require.NoError(t, nodes[0].Close(ctx))
}

func TestCounterUsedUp(t *testing.T) {
	ctx := context.Background()
	tbl := makeTable([]int{0})
	c := NewCounters(catalogtest.New())
	require.NoError(t, c.Rebase(ctx, tbl, 1<<63-1))
	_, err := c.AutoID(ctx, tbl, 1, 1, 1)
	require.Equal(t, uint16(1467), sqlerr.Code(err))
}

// nullTxn measures the writer alone.
type nullTxn struct{}

func (nullTxn) Get(context.Context, []byte) ([]byte, error) { return nil, txn.ErrNotFound }
func (nullTxn) Set(_, _ []byte) error                       { return nil }
func (nullTxn) Insert(_, _ []byte) error                    { return nil }
func (nullTxn) Delete([]byte) error                         { return nil }
func (nullTxn) SetDependent(_, _ []byte, _ bool) error      { return nil }
func (nullTxn) DeleteDependent([]byte, bool) error          { return nil }
func (nullTxn) HasWritesIn(_, _ []byte) bool                { return false }

// BenchmarkInsert is one sysbench row: two integers, two strings, one secondary index.
func BenchmarkInsert(b *testing.B) {
	tbl := &catalog.Table{ID: 7, DB: "d", Name: "sbtest1", Columns: []*catalog.Column{
		intCol(1, "id", types.FlagNotNull), intCol(2, "k", types.FlagNotNull), strCol(3, "c", charset.Default), strCol(4, "pad", charset.Default),
	}}
	tbl.AddIndex(index(1, "PRIMARY", true, 0))
	tbl.AddIndex(index(2, "k_1", false, 1))
	bld := catalog.NewBuilder(1)
	bld.AddDatabase(&catalog.Database{Name: "d"})
	bld.AddTable(tbl)
	w := NewWriter(tbl, nil)
	v := []types.Value{types.Int(1), types.Int(2), types.Str(bytes.Repeat([]byte("c"), 120)), types.Str(bytes.Repeat([]byte("p"), 60))}
	b.ReportAllocs()
	for b.Loop() {
		if err := w.Insert(context.Background(), nullTxn{}, v, 0, CheckAtCommit); err != nil {
			b.Fatal(err)
		}
	}
}
