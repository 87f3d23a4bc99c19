package distscan

import (
	"bytes"
	"context"
	"math/rand"
	"slices"
	"testing"
	"time"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/decimal"
	"github.com/cairndb/cairn/internal/keys"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/kvnode/kvclient/txn"
	"github.com/cairndb/cairn/sqlnode/catalog"
	"github.com/cairndb/cairn/sqlnode/table"
)

// pairs is a transaction that only collects writes.
type pairs map[string][]byte

func (p pairs) Get(context.Context, []byte) ([]byte, error) { return nil, txn.ErrNotFound }

func (p pairs) Set(key, value []byte) error {
	p[string(key)] = bytes.Clone(value)
	return nil
}

func (p pairs) Insert(key, value []byte) error { return p.Set(key, value) }

func (p pairs) Delete(key []byte) error {
	delete(p, string(key))
	return nil
}

func (p pairs) SetDependent(key, value []byte, _ bool) error { return p.Set(key, value) }

func (p pairs) DeleteDependent(key []byte, _ bool) error { return p.Delete(key) }

func (p pairs) HasWritesIn(_, _ []byte) bool { return false }

// sortedRange returns the pairs of [start, end) in key order.
func (p pairs) sortedRange(start, end []byte) (out [][2][]byte) {
	for k, v := range p {
		if k >= string(start) && k < string(end) {
			out = append(out, [2][]byte{[]byte(k), v})
		}
	}
	slices.SortFunc(out, func(a, b [2][]byte) int { return bytes.Compare(a[0], b[0]) })
	return out
}

// testTable has a column of every class, and the primary key asked for: no column, one integer, or two columns.
func testTable(pk ...int) *catalog.Table {
	binary := types.NewString(20, charset.Binary)
	text := types.NewString(20, charset.Default)
	cols := []types.Type{
		types.NewInt(), types.NewUint(), types.NewFloat(), types.NewDecimal(10, 2), text, binary,
		types.NewTemporal(types.TypeDatetime, 3), types.NewTemporal(types.TypeDuration, 0), types.NewTemporal(types.TypeTimestamp, 0),
	}
	t := &catalog.Table{ID: 7, DB: "test", Name: "t"}
	for i, typ := range cols {
		t.Columns = append(t.Columns, &catalog.Column{ID: int64(10 - i), Name: string(rune('a' + i)), Type: typ})
	}
	index := func(id int64, offsets ...int) *catalog.Index {
		ix := &catalog.Index{ID: id, Name: string(rune('p' + id))}
		for _, off := range offsets {
			ix.Columns = append(ix.Columns, catalog.IndexColumn{Offset: off, Length: -1})
		}
		return ix
	}
	if len(pk) > 0 {
		t.PK = index(1, pk...)
		t.PK.Primary, t.PK.Unique = true, true
		t.Indexes = append(t.Indexes, t.PK)
	}
	unique := index(3, 6, 5)
	unique.Unique = true
	t.WriteIndexes = []*catalog.Index{index(2, 1, 3, 8), unique, index(4, 4, 2, 7)}
	t.Indexes = append(t.Indexes, t.WriteIndexes...)
	catalog.NewBuilder(1).AddDatabase(&catalog.Database{Name: "test"}).AddTable(t).Build()
	return t
}

func randomRow(rng *rand.Rand, t *catalog.Table, n int) []types.Value {
	row := []types.Value{
		types.Int(int64(n) - 50), types.Uint(rng.Uint64()), types.Float(rng.NormFloat64()), types.Dec(decimal.New(rng.Int63n(100000)-50000, 2)),
		types.String([]string{"a", "B", "ß", ""}[rng.Intn(4)]), types.Str([]byte{byte(n), byte(n >> 8), byte(rng.Intn(256))}),
		types.TimeVal(types.MakeTime(2024, 1+rng.Intn(12), 1+rng.Intn(28), rng.Intn(24), 0, 0, 1000*rng.Intn(1000))),
		types.Dur(types.Duration(rng.Int63n(1e9) * 1e3)), types.TimeVal(types.MakeTime(2024, 1+rng.Intn(12), 1+rng.Intn(28), 12, 30, 0, 0)),
	}
	for i := 1; i < len(row); i++ {
		if rng.Intn(5) == 0 && (t.PK == nil || !slices.ContainsFunc(t.PK.Columns, func(c catalog.IndexColumn) bool { return c.Offset == i })) {
			row[i] = types.Null()
		}
	}
	return row
}

// TestDecodersReadWhatWasWritten writes random rows and reads them back from their records and, the columns that can be,
// from index entries.
func TestDecodersReadWhatWasWritten(t *testing.T) {
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewSource(seed))
	zone := time.FixedZone("east", 5*3600+1800)
	for _, pk := range [][]int{nil, {0}, {5, 0}} {
		tbl := testTable(pk...)
		store := pairs{}
		w := table.NewWriter(tbl, zone)
		var rows [][]types.Value
		for n := range 120 {
			row := randomRow(rng, tbl, n)
			rows = append(rows, row)
			if err := w.Insert(context.Background(), store, row, int64(n), table.CheckAtCommit); err != nil {
				t.Fatal(err)
			}
		}
		rowID := tbl.Handle == catalog.HandleRowID
		all := rng.Perm(len(tbl.Columns))
		start, end := keys.RowPrefix(tbl.ID)
		compare(t, tbl, rows, all, rowID, store.sortedRange(start, end), NewRowDecoder(tbl, all, rowID, zone))
		for _, ix := range tbl.WriteIndexes {
			var covered []int
			for _, off := range all {
				if table.Covers(tbl, ix, off) {
					covered = append(covered, off)
				}
			}
			start, end := keys.IndexPrefix(tbl.ID, ix.ID)
			compare(t, tbl, rows, covered, rowID, store.sortedRange(start, end), NewEntryDecoder(tbl, ix, covered, rowID, zone))
		}
	}
}

// compare decodes pairs and looks for each row among those written.
func compare(t *testing.T, tbl *catalog.Table, rows [][]types.Value, cols []int, rowID bool, stored [][2][]byte, dec Decoder) {
	t.Helper()
	if len(stored) != len(rows) {
		t.Fatalf("want %d pairs, got %d", len(rows), len(stored))
	}
	var ts []types.Type
	for _, off := range cols {
		ts = append(ts, tbl.Columns[off].Type)
	}
	if rowID {
		ts = append(ts, types.NewInt())
	}
	b := chunk.NewBatch(ts, 0)
	for _, p := range stored {
		if err := dec.AppendTo(p[0], p[1], b); err != nil {
			t.Fatal(err)
		}
	}
	if b.Len() != len(rows) {
		t.Fatalf("want %d rows, got %d", len(rows), b.Len())
	}
	left := slices.Clone(rows)
	for r := range b.Len() {
		i := slices.IndexFunc(left, func(row []types.Value) bool {
			for c, off := range cols {
				if v := b.Cols[c].Value(r); v.IsNull() != row[off].IsNull() || !v.IsNull() && types.Compare(v, row[off], charset.Binary) != 0 {
					return false
				}
			}
			return true
		})
		if i < 0 {
			t.Fatalf("row %d of the decoded rows (columns %v) was never written", r, cols)
		}
		if rowID && b.Cols[len(cols)].Int(r) != int64(slices.IndexFunc(rows, func(row []types.Value) bool { return &row[0] == &left[i][0] })) && len(cols) == len(tbl.Columns) {
			t.Fatalf("row %d has row id %d", r, b.Cols[len(cols)].Int(r))
		}
		left = slices.Delete(left, i, i+1)
	}
}

func TestColumnsAddedLaterHaveTheirOriginDefault(t *testing.T) {
	tbl := testTable(0)
	store := pairs{}
	if err := table.NewWriter(tbl, nil).Insert(context.Background(), store, randomRow(rand.New(rand.NewSource(1)), tbl, 1), 0, table.CheckAtCommit); err != nil {
		t.Fatal(err)
	}
	tbl.Columns = append(tbl.Columns, &catalog.Column{ID: 99, Name: "late", Offset: len(tbl.Columns), Type: types.NewInt(), OriginDefault: types.Int(42)})
	cols := []int{len(tbl.Columns) - 1, 0}
	b := chunk.NewBatch([]types.Type{types.NewInt(), types.NewInt()}, 0)
	start, end := keys.RowPrefix(tbl.ID)
	for _, p := range store.sortedRange(start, end) {
		if err := NewRowDecoder(tbl, cols, false, nil).AppendTo(p[0], p[1], b); err != nil {
			t.Fatal(err)
		}
	}
	if b.Len() != 1 || b.Cols[0].Int(0) != 42 || b.Cols[1].Int(0) != -49 {
		t.Errorf("want 42, -49, got %d, %d", b.Cols[0].Int(0), b.Cols[1].Int(0))
	}
}

func BenchmarkDecodeRow(b *testing.B) {
	tbl := testTable(0)
	store := pairs{}
	if err := table.NewWriter(tbl, nil).Insert(context.Background(), store, randomRow(rand.New(rand.NewSource(1)), tbl, 1), 0, table.CheckAtCommit); err != nil {
		b.Fatal(err)
	}
	all := make([]int, len(tbl.Columns))
	var ts []types.Type
	for i, c := range tbl.Columns {
		all[i], ts = i, append(ts, c.Type)
	}
	dec := NewRowDecoder(tbl, all, false, nil)
	start, end := keys.RowPrefix(tbl.ID)
	pair := store.sortedRange(start, end)[0]
	out := chunk.NewBatch(ts, 0)
	b.ReportAllocs()
	for b.Loop() {
		if out.Full() {
			out.Reset()
		}
		if err := dec.AppendTo(pair[0], pair[1], out); err != nil {
			b.Fatal(err)
		}
	}
}
