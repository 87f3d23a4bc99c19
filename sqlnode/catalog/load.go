package catalog

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/cairndb/cairn/internal/keys"
	"github.com/cairndb/cairn/kvnode/kvclient/txn"
)

// record remembers the bytes a table was decoded from, so that a reload decodes only what changed.
type record struct {
	raw   []byte
	db    string
	table *Table
}

// load reads the whole schema as of the transaction and builds a snapshot of it. prev saves decoding; it may be nil.
func load(ctx context.Context, tx Tx, prev map[int64]record, virtual []*Table) (*Snapshot, map[int64]record, error) {
	version, err := readInt(ctx, tx, versionName)
	if err != nil {
		return nil, nil, err
	}
	b := NewBuilder(version)
	dbs := map[int64]string{}
	start, end := keys.MetaPrefix(dbPrefix)
	err = tx.Scan(ctx, start, end, txn.ScanOptions{}, func(_, v []byte) error {
		db, err := decodeDatabase(v)
		if err != nil {
			return err
		}
		dbs[db.ID] = db.Name
		b.AddDatabase(db)
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	next := make(map[int64]record, len(prev))
	start, end = keys.MetaPrefix(tablePrefix)
	err = tx.Scan(ctx, start, end, txn.ScanOptions{}, func(k, v []byte) error {
		return loadTable(k, v, dbs, prev, next)
	})
	if err != nil {
		return nil, nil, err
	}
	for _, r := range next {
		b.AddTable(r.table)
	}
	for _, t := range virtual {
		b.AddTable(t)
	}
	return b.Build(), next, nil
}

func loadTable(key, value []byte, dbs map[int64]string, prev, next map[int64]record) error {
	name, err := keys.DecodeMeta(key)
	if err != nil {
		return err
	}
	id, err := strconv.ParseInt(strings.TrimPrefix(name, tablePrefix), 10, 64)
	if err != nil {
		return fmt.Errorf("catalog: table key %q: %w", name, err)
	}
	if old, ok := prev[id]; ok && bytes.Equal(old.raw, value) && dbs[old.table.DBID] == old.db {
		next[id] = old
		return nil
	}
	raw := bytes.Clone(value)
	t, err := decodeTable(raw, "")
	if err != nil {
		return err
	}
	db, ok := dbs[t.DBID]
	if !ok {
		return fmt.Errorf("catalog: table %s (%d) belongs to no database", t.Name, t.ID)
	}
	t.DB = db
	next[id] = record{raw: raw, db: db, table: t}
	return nil
}

// readInt reads a decimal number; 0 when absent.
func readInt(ctx context.Context, tx Tx, name string) (int64, error) {
	v, err := tx.Get(ctx, keys.Meta(name))
	if err != nil {
		return 0, err
	}
	return parseInt(name, v)
}

func parseInt(name string, v []byte) (int64, error) {
	if v == nil {
		return 0, nil
	}
	n, err := strconv.ParseInt(string(v), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("catalog: %s: %w", name, err)
	}
	return n, nil
}

func formatInt(n int64) []byte { return strconv.AppendInt(nil, n, 10) }
