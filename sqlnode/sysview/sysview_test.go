package sysview_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/sqlnode/catalog"
	"github.com/cairndb/cairn/sqlnode/catalog/catalogtest"
	"github.com/cairndb/cairn/sqlnode/ddl"
	"github.com/cairndb/cairn/sqlnode/parse"
	"github.com/cairndb/cairn/sqlnode/sysview"
	"github.com/cairndb/cairn/sqlnode/table"
)

// schema runs CREATE statements in database d and returns the result.
func schema(t *testing.T, statements ...string) *catalog.Snapshot {
	t.Helper()
	kv := catalogtest.New()
	cat, err := catalog.Open(context.Background(), catalog.Options{KV: kv, Virtual: sysview.Tables()})
	require.NoError(t, err)
	exec := ddl.New(ddl.Options{Catalog: cat, KV: kv, Counters: table.NewCounters(kv)})
	t.Cleanup(func() {
		require.NoError(t, exec.Close())
		require.NoError(t, cat.Close())
	})
	for _, sql := range append([]string{"create database d"}, statements...) {
		stmt, err := parse.New().ParseOne(sql, 0, 0)
		require.NoError(t, err, sql)
		_, err = exec.Execute(context.Background(), &ddl.Context{DB: "d", Strict: true, Loc: time.UTC}, stmt)
		require.NoError(t, err, sql)
	}
	return cat.Snapshot()
}

// rows makes the rows of a view as text, NULL for NULL.
func rows(t *testing.T, snap *catalog.Snapshot, view string, src sysview.Source) (out []string) {
	t.Helper()
	v := snap.Table("information_schema", view)
	require.NotNil(t, v, view)
	src.Snapshot = snap
	if src.Visible == nil {
		src.Visible = func(string, string) bool { return true }
	}
	require.NoError(t, src.Rows(context.Background(), v, func(row []types.Value) error {
		cells := make([]string, len(row))
		for i, c := range row {
			if cells[i] = types.Text(c, v.Columns[i].Type); c.IsNull() {
				cells[i] = "NULL"
			}
		}
		out = append(out, strings.Join(cells, "|"))
		return nil
	}))
	return out
}

func inD(name string) bool { return name == "d" }

// TestCreateTable compares with what MySQL 8.0.11 writes.
func TestCreateTable(t *testing.T) {
	snap := schema(t,
		"create table t (id bigint unsigned auto_increment, `a``b` varchar(20) not null default 'it''s \\\\' comment 'x\\'y',"+
			" c timestamp(3) default current_timestamp(3) on update current_timestamp(3), d decimal(10,2) default -1.5, e enum('x','it''s') default 'x',"+
			" f bit(4) default b'101', g text, h json, i tinyint(1) zerofill, j double(7,3), k float, l char, m varbinary(3) default 'q', n year,"+
			" o datetime not null, p set('u','v'), q time(2), r date, primary key (id), unique u (d desc, e), key k1 (g(10), `a``b`) comment 'c', key k2 (d) invisible)"+
			" auto_increment=5 comment='it''s' row_format=dynamic",
		"create table s (a varchar(3), b varchar(3) collate utf8mb4_bin, c varchar(3) character set latin1, d varchar(3) collate latin1_bin, e varchar(3) collate utf8mb4_0900_ai_ci,"+
			" f enum('x') collate utf8mb4_bin) collate utf8mb4_general_ci",
		"create table u (a varchar(3)) collate utf8mb4_bin", "create table v (a varchar(3)) charset latin1")
	for name, want := range map[string]string{
		"t": "CREATE TABLE `t` (\n" +
			"  `id` bigint(20) unsigned NOT NULL AUTO_INCREMENT,\n" +
			"  `a``b` varchar(20) NOT NULL DEFAULT 'it''s \\\\' COMMENT 'x''y',\n" +
			"  `c` timestamp(3) NULL DEFAULT CURRENT_TIMESTAMP(3) ON UPDATE CURRENT_TIMESTAMP(3),\n" +
			"  `d` decimal(10,2) DEFAULT '-1.50',\n" +
			"  `e` enum('x','it''s') DEFAULT 'x',\n" +
			"  `f` bit(4) DEFAULT b'101',\n" +
			"  `g` text,\n" +
			"  `h` json DEFAULT NULL,\n" +
			"  `i` tinyint(1) unsigned zerofill DEFAULT NULL,\n" +
			"  `j` double(7,3) DEFAULT NULL,\n" +
			"  `k` float DEFAULT NULL,\n" +
			"  `l` char(1) DEFAULT NULL,\n" +
			"  `m` varbinary(3) DEFAULT 'q',\n" +
			"  `n` year(4) DEFAULT NULL,\n" +
			"  `o` datetime NOT NULL,\n" +
			"  `p` set('u','v') DEFAULT NULL,\n" +
			"  `q` time(2) DEFAULT NULL,\n" +
			"  `r` date DEFAULT NULL,\n" +
			"  PRIMARY KEY (`id`),\n" +
			"  UNIQUE KEY `u` (`d` DESC,`e`),\n" +
			"  KEY `k1` (`g`(10),`a``b`) COMMENT 'c',\n" +
			"  KEY `k2` (`d`) /*!80000 INVISIBLE */\n" +
			") ENGINE=InnoDB AUTO_INCREMENT=5 DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_0900_ai_ci ROW_FORMAT=DYNAMIC COMMENT='it''s'",
		"s": "CREATE TABLE `s` (\n" +
			"  `a` varchar(3) COLLATE utf8mb4_general_ci DEFAULT NULL,\n" +
			"  `b` varchar(3) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin DEFAULT NULL,\n" +
			"  `c` varchar(3) CHARACTER SET latin1 DEFAULT NULL,\n" +
			"  `d` varchar(3) CHARACTER SET latin1 COLLATE latin1_bin DEFAULT NULL,\n" +
			"  `e` varchar(3) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_ai_ci DEFAULT NULL,\n" +
			"  `f` enum('x') CHARACTER SET utf8mb4 COLLATE utf8mb4_bin DEFAULT NULL\n" +
			") ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci",
		"u": "CREATE TABLE `u` (\n  `a` varchar(3) COLLATE utf8mb4_bin DEFAULT NULL\n) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin",
		"v": "CREATE TABLE `v` (\n  `a` varchar(3) DEFAULT NULL\n) ENGINE=InnoDB DEFAULT CHARSET=latin1",
	} {
		next := int64(0)
		if name == "t" {
			next = 5
		}
		require.Equal(t, want, sysview.CreateTable(snap.Table("d", name), next))
	}
}

// TestCreateTableRoundTrip: the text makes the same table again.
func TestCreateTableRoundTrip(t *testing.T) {
	first := sysview.CreateTable(schema(t, "create table t (a int primary key, b varchar(9) collate utf8mb4_bin default 'x', c enum('a','b'), d bit(3) default b'10', "+
		"e timestamp null, f decimal(5,1) not null default 2, g text, unique key (b(3)), key z (c, f)) comment 'z'").Table("d", "t"), 0)
	second := sysview.CreateTable(schema(t, first).Table("d", "t"), 0)
	require.Equal(t, first, second)
}

func TestCreateDatabase(t *testing.T) {
	snap := schema(t, "create database x charset latin1", "create database y collate utf8mb4_bin")
	require.Equal(t, "CREATE DATABASE `d` /*!40100 DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_ai_ci */", sysview.CreateDatabase(snap.Database("d"), false))
	require.Equal(t, "CREATE DATABASE /*!32312 IF NOT EXISTS*/ `x` /*!40100 DEFAULT CHARACTER SET latin1 */", sysview.CreateDatabase(snap.Database("x"), true))
	require.Equal(t, "CREATE DATABASE `y` /*!40100 DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin */", sysview.CreateDatabase(snap.Database("y"), false))
}

func TestColumns(t *testing.T) {
	snap := schema(t, "create table t (a int unsigned auto_increment primary key, b varchar(5) default 'x' comment 'c', c datetime(3) default current_timestamp(3) on update current_timestamp(3), "+
		"d decimal(8,3), e text, f bigint, g binary(2), h bit(5), i enum('p','qq'), j double, k json, unique (f), key (b, f))")
	const privileges = "select,insert,update,references"
	require.Equal(t, []string{
		"def|d|t|a|1|NULL|NO|int|NULL|NULL|10|0|NULL|NULL|NULL|int(10) unsigned|PRI|auto_increment|" + privileges + "|||NULL",
		"def|d|t|b|2|x|YES|varchar|5|20|NULL|NULL|NULL|utf8mb4|utf8mb4_0900_ai_ci|varchar(5)|MUL||" + privileges + "|c||NULL",
		"def|d|t|c|3|CURRENT_TIMESTAMP(3)|YES|datetime|NULL|NULL|NULL|NULL|3|NULL|NULL|datetime(3)||DEFAULT_GENERATED on update CURRENT_TIMESTAMP(3)|" + privileges + "|||NULL",
		"def|d|t|d|4|NULL|YES|decimal|NULL|NULL|8|3|NULL|NULL|NULL|decimal(8,3)|||" + privileges + "|||NULL",
		"def|d|t|e|5|NULL|YES|text|65535|65535|NULL|NULL|NULL|utf8mb4|utf8mb4_0900_ai_ci|text|||" + privileges + "|||NULL",
		"def|d|t|f|6|NULL|YES|bigint|NULL|NULL|19|0|NULL|NULL|NULL|bigint(20)|UNI||" + privileges + "|||NULL",
		"def|d|t|g|7|NULL|YES|binary|2|2|NULL|NULL|NULL|NULL|NULL|binary(2)|||" + privileges + "|||NULL",
		"def|d|t|h|8|NULL|YES|bit|NULL|NULL|5|NULL|NULL|NULL|NULL|bit(5)|||" + privileges + "|||NULL",
		"def|d|t|i|9|NULL|YES|enum|2|8|NULL|NULL|NULL|utf8mb4|utf8mb4_0900_ai_ci|enum('p','qq')|||" + privileges + "|||NULL",
		"def|d|t|j|10|NULL|YES|double|NULL|NULL|22|NULL|NULL|NULL|NULL|double|||" + privileges + "|||NULL",
		"def|d|t|k|11|NULL|YES|json|NULL|NULL|NULL|NULL|NULL|NULL|NULL|json|||" + privileges + "|||NULL",
	}, rows(t, snap, "COLUMNS", sysview.Source{WantDB: inD}))
}

func TestStatisticsAndConstraints(t *testing.T) {
	snap := schema(t, "create table t (a int primary key, b varchar(9), c int not null, unique ub (b(4), c desc), key kc (c) comment 'z' invisible)")
	src := sysview.Source{WantDB: inD}
	require.Equal(t, []string{
		"def|d|t|0|d|PRIMARY|1|a|A|0|NULL|NULL||BTREE|||YES|NULL",
		"def|d|t|0|d|ub|1|b|A|0|4|NULL|YES|BTREE|||YES|NULL",
		"def|d|t|0|d|ub|2|c|D|0|NULL|NULL||BTREE|||YES|NULL",
		"def|d|t|1|d|kc|1|c|A|0|NULL|NULL||BTREE||z|NO|NULL",
	}, rows(t, snap, "STATISTICS", src))
	require.Equal(t, []string{"def|d|PRIMARY|d|t|PRIMARY KEY|YES", "def|d|ub|d|t|UNIQUE|YES"}, rows(t, snap, "TABLE_CONSTRAINTS", src))
	require.Equal(t, []string{
		"def|d|PRIMARY|def|d|t|a|1|NULL|NULL|NULL|NULL", "def|d|ub|def|d|t|b|1|NULL|NULL|NULL|NULL", "def|d|ub|def|d|t|c|2|NULL|NULL|NULL|NULL",
	}, rows(t, snap, "KEY_COLUMN_USAGE", src))
}

func TestEveryViewMakesRowsOfItsWidth(t *testing.T) {
	snap := schema(t, "create table t (a int primary key)")
	src := sysview.Source{
		Processes: []sysview.Process{{ID: 1, User: "u", Host: "h", Command: "Query"}},
		Grants:    []sysview.Grant{{Grantee: "'u'@'%'", Privilege: "SELECT"}, {Grantee: "'u'@'%'", DB: "d", Privilege: "SELECT"}, {Grantee: "'u'@'%'", DB: "d", Table: "t", Privilege: "SELECT"}},
	}
	for _, v := range snap.Tables("information_schema") {
		rows(t, snap, v.Name, src) // Rows panics when a row has another width
	}
	require.Len(t, rows(t, snap, "TABLE_PRIVILEGES", src), 1)
	require.NotEmpty(t, rows(t, snap, "KEYWORDS", src))
	require.NotEmpty(t, rows(t, snap, "COLLATIONS", src))
}

func TestInvisibleTablesAreNotShown(t *testing.T) {
	snap := schema(t, "create table mine (a int)", "create table secret (a int)")
	src := sysview.Source{WantDB: inD, Visible: func(_, table string) bool { return table != "secret" }}
	for _, view := range []string{"TABLES", "COLUMNS", "PARTITIONS"} {
		got := strings.Join(rows(t, snap, view, src), "\n")
		require.Contains(t, got, "mine")
		require.NotContains(t, got, "secret", view)
	}
}
