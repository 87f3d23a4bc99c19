package ddl_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/keys"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/kvnode/kvclient/txn"
	"github.com/cairndb/cairn/sqlnode/catalog"
	"github.com/cairndb/cairn/sqlnode/catalog/catalogtest"
	"github.com/cairndb/cairn/sqlnode/ddl"
	"github.com/cairndb/cairn/sqlnode/parse"
	"github.com/cairndb/cairn/sqlnode/table"
)

// node is one SQL node over a shared store.
type node struct {
	t        *testing.T
	kv       catalog.KV
	cat      *catalog.Catalog
	exec     *ddl.Executor
	counters *table.Counters
	notes    []sqlerr.Warning
	part     bool     // of the Context
	splits   [][]byte // borders that were asked for
}

func newNode(t *testing.T, kv catalog.KV, timeout time.Duration) *node {
	t.Helper()
	cat, err := catalog.Open(context.Background(), catalog.Options{KV: kv, PollInterval: 2 * time.Millisecond})
	require.NoError(t, err)
	n := &node{t: t, kv: kv, cat: cat, counters: table.NewCounters(kv)}
	n.exec = ddl.New(ddl.Options{Catalog: cat, KV: kv, Counters: n.counters, DrainTimeout: timeout, CleanInterval: 10 * time.Millisecond,
		Destroy: destroyer(kv),
		Split:   func(_ context.Context, at [][]byte) error { n.splits = append(n.splits, at...); return nil }})
	t.Cleanup(func() {
		require.NoError(t, n.exec.Close())
		require.NoError(t, cat.Close())
	})
	return n
}

// destroyer is DestroyRanges of a store that has it.
func destroyer(kv catalog.KV) func(context.Context, []txn.KeyRange) error {
	return kv.(interface {
		DestroyRanges(ctx context.Context, ranges []txn.KeyRange) error
	}).DestroyRanges
}

func (n *node) run(sql string) error {
	n.t.Helper()
	stmt, err := parse.New().ParseOne(sql, 0, 0)
	if err != nil {
		return err
	}
	n.notes = nil
	_, err = n.exec.Execute(context.Background(), &ddl.Context{DB: "d", User: "root", Host: "%", Strict: true, Part: n.part,
		Warn: func(w sqlerr.Warning) { n.notes = append(n.notes, w) }}, stmt)
	return err
}

func (n *node) must(sql string) {
	n.t.Helper()
	require.NoError(n.t, n.run(sql), sql)
}

func (n *node) table(name string) *catalog.Table { return n.cat.Snapshot().Table("d", name) }

// txAdapter makes a catalog.Tx what table.Writer needs.
type txAdapter struct{ catalog.Tx }

func (a txAdapter) Get(ctx context.Context, key []byte) ([]byte, error) {
	v, err := a.Tx.Get(ctx, key)
	if err == nil && v == nil {
		return nil, txn.ErrNotFound
	}
	return v, err
}
func (a txAdapter) Insert(key, value []byte) error               { return a.Set(key, value) }
func (a txAdapter) SetDependent(key, value []byte, _ bool) error { return a.Set(key, value) }
func (a txAdapter) DeleteDependent(key []byte, _ bool) error     { return a.Delete(key) }
func (a txAdapter) HasWritesIn(_, _ []byte) bool                 { return true }

// insert writes a row with the newest schema, as a session would.
func (n *node) insert(name string, row ...types.Value) error {
	snap, release := n.cat.Pin()
	defer release()
	w := table.NewWriter(snap.Table("d", name), nil)
	return n.kv.Update(context.Background(), func(tx catalog.Tx) error {
		return w.Insert(context.Background(), txAdapter{tx}, row, 0, table.CheckNow)
	})
}

// count counts the keys of a range.
func (n *node) count(start, end []byte) (c int) {
	require.NoError(n.t, n.kv.View(context.Background(), func(tx catalog.Tx) error {
		return tx.Scan(context.Background(), start, end, txn.ScanOptions{}, func(_, _ []byte) error { c++; return nil })
	}))
	return c
}

// A table gets a region of its own when the statement that makes or empties it wants so.
func TestTablesArePartedOnRequest(t *testing.T) {
	n := newNode(t, catalogtest.New(), time.Minute)
	n.must("create database d")
	n.must("create table a (id int)")
	require.Empty(t, n.splits)
	n.part = true
	n.must("create table b (id int)")
	n.must("create table c like b")
	n.must("truncate table a")
	var want [][]byte
	for _, name := range []string{"b", "c", "a"} {
		start, _ := keys.TablePrefix(n.table(name).ID)
		want = append(want, start)
	}
	require.Equal(t, want, n.splits)
	n.part = false
	n.must("truncate table b")
	require.Len(t, n.splits, 3)
}

func TestErrors(t *testing.T) {
	n := newNode(t, catalogtest.New(), time.Minute)
	n.must("create database d")
	n.must("create table t (a int primary key, b varchar(10), key b (b))")
	for _, c := range []struct {
		sql  string
		code uint16
		msg  string
	}{
		{"create database d", 1007, "Can't create database 'd'; database exists"},
		{"drop database x", 1008, "Can't drop database 'x'; database doesn't exist"},
		{"drop database information_schema", 1044, ""},
		{"create table x.t (a int)", 1049, "Unknown database 'x'"},
		{"create table t (a int)", 1050, "Table 't' already exists"},
		{"drop table t, nope", 1051, "Unknown table 'd.nope'"},
		{"create table u (a int, A int)", 1060, "Duplicate column name 'A'"},
		{"create table u (a int, key k(a), key K(a))", 1061, "Duplicate key name 'K'"},
		{"create table u (a int default 'x')", 1067, "Invalid default value for 'a'"},
		{"create table u (a int not null default null)", 1067, "Invalid default value for 'a'"},
		{"create table u (a datetime default current_timestamp(3))", 1067, "Invalid default value for 'a'"},
		{"create table u (a int primary key, b int primary key)", 1068, "Multiple primary key defined"},
		{"create table u (a varchar(2000), key(a))", 1071, "Specified key was too long; max key length is 3072 bytes"},
		{"create table u (a int, key(b))", 1072, "Key column 'b' doesn't exist in table"},
		{"create table u (a varchar(70000))", 1074, "Column length too big for column 'a' (max = 16383); use BLOB or TEXT instead"},
		{"create table u (a int auto_increment)", 1075, "Incorrect table definition; there can be only one auto column and it must be defined as a key"},
		{"create table u (a varchar(5), key(a(6)))", 1089, ""},
		{"alter table t drop index nope", 1091, ""},
		{"create table u (a text default 'x')", 1101, "BLOB, TEXT, GEOMETRY or JSON column 'a' can't have a default value"},
		{"create table `u ` (a int)", 1103, "Incorrect table name 'u '"},
		{"create table u (a int) charset nope", 1115, "Unknown character set: 'nope'"},
		{"create table u (a varchar(16000), b varchar(16000))", 1118, ""},
		{"truncate table nope", 1146, "Table 'd.nope' doesn't exist"},
		{"create table u (`a ` int)", 1166, "Incorrect column name 'a '"},
		{"create table u (a text, key(a))", 1170, "BLOB/TEXT column 'a' used in key specification without a key length"},
		{"create table u (a int null primary key)", 1171, ""},
		{"create table u (a int, foreign key (a) references t(a))", 1235, ""},
		{"create table u (a int check (a > 1))", 1235, ""},
		{"create table u (a int, b int as (a+1))", 1235, ""},
		{"create temporary table u (a int)", 1235, ""},
		{"create table u (a int) partition by hash(a) partitions 4", 1235, ""},
		{"create table u (a int, key ((a+1)))", 1235, ""},
		{"create view v as select 1", 1235, ""},
		{"alter table t modify b int", 1235, ""},
		{"alter table t modify b varchar(5)", 1235, ""},
		{"alter table t modify b varchar(20) not null", 1235, ""},
		{"alter table t modify nope int", 1054, ""},
		{"alter table t change b a int", 1060, ""},
		{"alter table t modify a bigint unsigned", 1235, ""},
		{"alter table t drop primary key", 1235, ""},
		{"create table u (a int) collate nope", 1273, "Unknown collation: 'nope'"},
		{"create table u (a int) engine=nope", 1286, "Unknown storage engine 'nope'"},
		{"create table u (a int on update current_timestamp)", 1294, ""},
		{"create table u (a decimal(70,2))", 1426, ""},
		{"alter table t drop column a", 1235, ""},
		{"alter table t add column b int", 1060, ""},
	} {
		err := n.run(c.sql)
		e, ok := sqlerr.As(err)
		require.True(t, ok, "%s: %v", c.sql, err)
		require.Equal(t, c.code, e.Code, "%s: %s", c.sql, e.Msg)
		if c.msg != "" {
			require.Equal(t, c.msg, e.Msg)
		}
	}
	require.Nil(t, n.table("u"))
}

func TestCreateTable(t *testing.T) {
	n := newNode(t, catalogtest.New(), time.Minute)
	n.must("create database d collate utf8mb4_bin")
	n.must(`create table t (id bigint auto_increment, a varchar(20) character set latin1 not null default 'x' comment 'c',
		b int unique, c timestamp(3) null default current_timestamp(3) on update current_timestamp(3), d decimal(10,2) default -1.5,
		e enum('x','y') default 'y', key (a(3), b), primary key (id), f bit(4) default b'101', g text, unique u (a))
		engine=InnoDB auto_increment=100 comment='hello'`)
	tbl := n.table("t")
	require.Empty(t, n.splits, "tables share regions")
	require.Equal(t, "utf8mb4_bin", collation(tbl.Collation))
	require.Equal(t, catalog.HandleInt, tbl.Handle)
	require.Equal(t, "id", tbl.AutoInc.Name)
	var names []string
	for _, ix := range tbl.Indexes {
		names = append(names, ix.Name)
	}
	require.Equal(t, "PRIMARY u b a", strings.Join(names, " "))
	require.Equal(t, "latin1_swedish_ci", collation(tbl.Column("a").Type.Collation))
	require.Equal(t, "-1.50", types.Text(tbl.Column("d").Default.Value, tbl.Column("d").Type))
	require.Equal(t, uint64(2), tbl.Column("e").Default.Value.Uint())
	require.Equal(t, uint64(5), tbl.Column("f").Default.Value.Uint())
	require.True(t, tbl.Column("c").Default.Now)
	require.True(t, tbl.Column("c").OnUpdateNow)
	next, err := n.counters.Next(context.Background(), tbl)
	require.NoError(t, err)
	require.Equal(t, int64(100), next)

	n.must("create table if not exists t (a int)")
	require.Len(t, n.notes, 1)
	n.must("create table l like t")
	require.Len(t, n.table("l").Columns, 8)
	require.NotEqual(t, tbl.ID, n.table("l").ID)
	n.must("rename table t to x, l to t, x to l")
	require.Equal(t, tbl.ID, n.table("l").ID)
	n.must("drop table if exists t, l, nope")
	require.Len(t, n.notes, 1)
	require.Empty(t, n.cat.Snapshot().Tables("d"))
	n.must("drop database d")
	require.Nil(t, n.cat.Snapshot().Database("d"))
}

func TestDropDeletesData(t *testing.T) {
	n := newNode(t, catalogtest.New(), time.Minute)
	n.must("create database d")
	n.must("create table t (a int primary key)")
	for i := range 3000 {
		require.NoError(t, n.insert("t", types.Int(int64(i))))
	}
	start, end := keys.TablePrefix(n.table("t").ID)
	_, release := n.cat.Pin()
	n.must("truncate table t")
	require.Equal(t, 3000, n.count(start, end), "an open transaction may still read it")
	release()
	require.Eventually(t, func() bool { return n.count(start, end) == 0 }, 5*time.Second, time.Millisecond)
	require.Eventually(t, func() bool {
		g, err := n.cat.Garbage(context.Background())
		return err == nil && len(g) == 0
	}, 5*time.Second, time.Millisecond)
}

func TestUniqueIndexOnDuplicates(t *testing.T) {
	n := newNode(t, catalogtest.New(), time.Minute)
	n.must("create database d")
	n.must("create table t (a int primary key, b int)")
	for i := range 1000 {
		require.NoError(t, n.insert("t", types.Int(int64(i)), types.Int(int64(i%999))))
	}
	err := n.run("create unique index ub on t (b)")
	require.EqualError(t, err, "ERROR 1062 (23000): Duplicate entry '0' for key 'ub'")
	tbl := n.table("t")
	require.Empty(t, tbl.WriteIndexes)
	require.Empty(t, tbl.Owner)
	start, end := keys.IndexPrefix(tbl.ID, tbl.MaxIndexID)
	require.Eventually(t, func() bool { return n.count(start, end) == 0 }, 5*time.Second, time.Millisecond)
	n.must("create index ib on t (b)")
	start, end = keys.IndexPrefix(tbl.ID, n.table("t").Index("ib").ID)
	require.Equal(t, 1000, n.count(start, end))
	n.must("drop index ib on t")
	require.Nil(t, n.table("t").Index("ib"))
	require.Eventually(t, func() bool { return n.count(start, end) == 0 }, 5*time.Second, time.Millisecond)
}

// TestIndexUnderWrites builds an index while two nodes write and delete, and checks every entry afterwards.
func TestIndexUnderWrites(t *testing.T) {
	kv := catalogtest.New()
	nodes := []*node{newNode(t, kv, time.Minute), newNode(t, kv, time.Minute)}
	nodes[0].must("create database d")
	nodes[0].must("create table t (a int primary key, b int)")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for w, n := range nodes {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				a := int64(i*2+w) % 3000
				if err := n.upsert(a, int64(i)); err != nil {
					t.Error(err)
					return
				}
			}
		}()
	}
	for i := range 3 {
		nodes[i%2].must(fmt.Sprintf("create index i%d on t (b)", i))
	}
	close(stop)
	wg.Wait()
	tbl := nodes[0].table("t")
	require.Len(t, tbl.WriteIndexes, 3)
	rows, _ := keys.RowPrefix(tbl.ID)
	total := nodes[0].count(rows, keys.PrefixEnd(rows))
	for _, ix := range tbl.WriteIndexes {
		start, end := keys.IndexPrefix(tbl.ID, ix.ID)
		require.Equal(t, total, nodes[0].count(start, end), ix.Name)
		nodes[0].checkEntries(tbl, ix)
	}
}

// upsert inserts, updates or deletes the row a.
func (n *node) upsert(a, b int64) error {
	ctx := context.Background()
	snap, release := n.cat.Pin()
	defer release()
	tbl := snap.Table("d", "t")
	w, rr := table.NewWriter(tbl, nil), table.NewRowReader(tbl, nil)
	return n.kv.Update(ctx, func(tx catalog.Tx) error {
		row := []types.Value{types.Int(a), types.Int(b)}
		old, err := tx.Get(ctx, keys.Row(tbl.ID, keys.IntHandle(a)))
		switch {
		case err != nil:
			return err
		case old == nil:
			return w.Insert(ctx, txAdapter{tx}, row, 0, table.CheckNow)
		}
		was, err := rr.Decode(nil, keys.IntHandle(a), old)
		if err != nil {
			return err
		}
		if b%3 == 0 {
			return w.Delete(ctx, txAdapter{tx}, was, 0)
		}
		return w.Update(ctx, txAdapter{tx}, was, row, 0, table.CheckNow)
	})
}

// checkEntries makes sure that every row has its entry.
func (n *node) checkEntries(tbl *catalog.Table, ix *catalog.Index) {
	ctx := context.Background()
	ib, rr := table.NewIndexBuilder(tbl, ix), table.NewRowReader(tbl, nil)
	start, end := keys.RowPrefix(tbl.ID)
	require.NoError(n.t, n.kv.View(ctx, func(tx catalog.Tx) error {
		return tx.Scan(ctx, start, end, txn.ScanOptions{}, func(k, v []byte) error {
			_, handle, err := keys.DecodeRow(k)
			require.NoError(n.t, err)
			row, err := rr.Decode(nil, handle, v)
			require.NoError(n.t, err)
			key, _, _ := ib.Entry(row, handle)
			got, err := tx.Get(ctx, key)
			require.NotNil(n.t, got, "row %v has no entry", row[0].Int())
			return err
		})
	}))
}

func TestAddAndDropColumn(t *testing.T) {
	n := newNode(t, catalogtest.New(), time.Minute)
	n.must("create database d")
	n.must("create table t (a int primary key, b int, key (b))")
	require.NoError(t, n.insert("t", types.Int(1), types.Int(2)))
	n.must("alter table t add column s varchar(5) not null default 'z' first, add column n int")
	tbl := n.table("t")
	require.False(t, tbl.Frozen)
	require.Equal(t, "s", tbl.Columns[0].Name)
	require.Equal(t, 2, tbl.Index("b").Columns[0].Offset)
	read := func() []types.Value {
		tbl := n.table("t")
		var row []types.Value
		require.NoError(t, n.kv.View(context.Background(), func(tx catalog.Tx) error {
			v, err := tx.Get(context.Background(), keys.Row(tbl.ID, keys.IntHandle(1)))
			require.NoError(t, err)
			row, err = table.NewRowReader(tbl, nil).Decode(nil, keys.IntHandle(1), v)
			return err
		}))
		return row
	}
	row := read()
	require.Equal(t, "z", string(row[0].Bytes()))
	require.Equal(t, int64(2), row[2].Int())
	require.True(t, row[3].IsNull())
	n.must("alter table t drop column s")
	row = read()
	require.Len(t, row, 3)
	require.Equal(t, int64(2), row[1].Int())
	n.must("alter table t rename column b to c, rename index b to cc, alter column n set default 5, comment 'x', auto_increment = 7, disable keys")
	require.NotNil(t, n.table("t").Column("c"))
	require.NotNil(t, n.table("t").Index("cc"))
	require.Equal(t, int64(5), n.table("t").Column("n").Default.Value.Int())
}

func TestModifyColumn(t *testing.T) {
	n := newNode(t, catalogtest.New(), time.Minute)
	n.must("create database d")
	n.must("create table t (a int primary key, b varchar(10) default 'x', e enum('p','q'), u tinyint unsigned, d decimal(5,2), key (b))")
	require.NoError(t, n.insert("t", types.Int(1), types.String("v"), types.Uint(2), types.Uint(200), types.Null()))
	n.must("alter table t modify a bigint, change b bb varchar(30) default 'y' comment 'c' after a, modify e enum('p','q','r'), modify u int unsigned, modify d decimal(9,2) default 1")
	tbl := n.table("t")
	require.Equal(t, catalog.HandleInt, tbl.Handle)
	require.Equal(t, byte(types.TypeLonglong), tbl.Column("a").Type.Tp)
	require.Equal(t, "y", string(tbl.Column("BB").Default.Value.Bytes()))
	require.Equal(t, int32(30), tbl.Column("bb").Type.Flen)
	require.Equal(t, 1, tbl.Index("b").Columns[0].Offset)
	require.Len(t, tbl.Column("e").Type.Elems, 3)
	require.NoError(t, n.kv.View(context.Background(), func(tx catalog.Tx) error {
		v, err := tx.Get(context.Background(), keys.Row(tbl.ID, keys.IntHandle(1)))
		require.NoError(t, err)
		row, err := table.NewRowReader(tbl, nil).Decode(nil, keys.IntHandle(1), v)
		require.NoError(t, err)
		require.Equal(t, uint64(200), row[3].Uint())
		require.Equal(t, uint64(2), row[2].Uint())
		return nil
	}))
	n.checkEntries(tbl, tbl.Index("b"))
}

func TestAddColumnWithKeyAndNow(t *testing.T) {
	n := newNode(t, catalogtest.New(), time.Minute)
	n.must("create database d")
	n.must("create table t (a int primary key)")
	require.NoError(t, n.insert("t", types.Int(1)))
	n.must("alter table t add column c datetime not null default current_timestamp, add column u int unique, add column (x int, key kx (x, u))")
	tbl := n.table("t")
	require.NotNil(t, tbl.Index("u"))
	require.NotNil(t, tbl.Index("kx"))
	require.Equal(t, types.KindTime, tbl.Column("c").OriginDefault.Kind())
	require.Equal(t, uint16(1235), sqlerr.Code(n.run("alter table t drop column u")))
	require.Nil(t, n.table("t").Index("u"), "its own index goes first")
	n.must("drop index kx on t")
	n.must("alter table t drop column u, drop column x")
	require.Len(t, n.table("t").Columns, 2)
}

func TestAWaitingChangeIsTakenBack(t *testing.T) {
	n := newNode(t, catalogtest.New(), 20*time.Millisecond)
	n.must("create database d")
	n.must("create table t (a int primary key, b int)")
	_, release := n.cat.Pin()
	for _, sql := range []string{"create index i on t (b)", "alter table t add column c int"} {
		require.Equal(t, uint16(1205), sqlerr.Code(n.run(sql)), sql)
		require.Empty(t, n.table("t").Owner)
		require.False(t, n.table("t").Frozen)
		require.Empty(t, n.table("t").WriteIndexes)
	}
	release()
	n.must("create index i on t (b)")
	_, release = n.cat.Pin()
	require.Equal(t, uint16(1205), sqlerr.Code(n.run("drop index i on t")))
	require.NotNil(t, n.table("t").Index("i"))
	release()
}

func TestChangesOfDeadNodesAreTakenBack(t *testing.T) {
	kv := catalogtest.New()
	n := newNode(t, kv, time.Minute)
	n.must("create database d")
	n.must("create table t (a int primary key, b int)")
	_, err := n.cat.Apply(context.Background(), func(ch *catalog.Change) error {
		edit := ch.Snapshot.Table("d", "t").Edit()
		edit.Owner, edit.Frozen, edit.MaxIndexID = "gone", true, 2
		edit.AddIndex(&catalog.Index{ID: 2, Name: "half", State: catalog.StateWriteOnly, Columns: []catalog.IndexColumn{{Offset: 1, Length: -1}}})
		return ch.PutTable(edit)
	})
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		tbl := n.table("t")
		return tbl.Owner == "" && !tbl.Frozen && len(tbl.WriteIndexes) == 0
	}, 5*time.Second, time.Millisecond)
}

func collation(id charset.ID) string { return charset.Get(id).Name }
