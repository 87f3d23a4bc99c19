package catalog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/cairndb/cairn/internal/keys"
	"github.com/cairndb/cairn/kvnode/kvclient/txn"
)

// Change is one schema change being made: what it reads is the newest schema, what it writes becomes one version.
type Change struct {
	// Snapshot is the schema the change starts from.
	Snapshot *Snapshot
	// Version is the version the change will be published as.
	Version int64
	// Now is the time of the change, from PD's clock.
	Now time.Time

	ctx   context.Context
	tx    Tx
	dirty bool
}

// errStale tells Apply that the local schema is behind the stored one.
var errStale = errors.New("catalog: local schema is behind")

// Apply runs fn and publishes its writes as the next schema version, which this node has loaded on return; the other
// nodes have not (see WaitLoaded). fn may run several times and must not have other effects. A fn that writes nothing
// publishes nothing. Its errors are passed on unchanged.
func (c *Catalog) Apply(ctx context.Context, fn func(*Change) error) (version int64, err error) {
	c.applying.Lock()
	defer c.applying.Unlock()
	for range maxConflicts {
		version, err = c.applyOnce(ctx, fn)
		if !errors.Is(err, errStale) {
			return version, err
		}
		if err := c.reloadLocked(ctx); err != nil {
			return 0, err
		}
	}
	return 0, fmt.Errorf("catalog: schema change: %w", err)
}

func (c *Catalog) applyOnce(ctx context.Context, fn func(*Change) error) (int64, error) {
	snap := c.Snapshot()
	ch := &Change{}
	err := c.opts.KV.Update(ctx, func(tx Tx) error {
		stored, err := readInt(ctx, tx, versionName)
		if err != nil {
			return err
		}
		if stored != snap.Version {
			return errStale
		}
		*ch = Change{Snapshot: snap, Version: snap.Version + 1, ctx: ctx, tx: tx, Now: time.UnixMilli(physicalMillis(tx.TS()))}
		if err := fn(ch); err != nil || !ch.dirty {
			return err
		}
		return tx.Set(keys.Meta(versionName), formatInt(ch.Version))
	})
	if err != nil {
		return 0, err
	}
	if !ch.dirty {
		return snap.Version, nil
	}
	return ch.Version, c.reloadLocked(ctx)
}

// AllocID returns a number never used before for a database or table.
func (ch *Change) AllocID() (int64, error) {
	id, err := readInt(ch.ctx, ch.tx, nextIDName)
	if err != nil {
		return 0, err
	}
	ch.dirty = true
	return id + 1, ch.tx.Set(keys.Meta(nextIDName), formatInt(id+1))
}

// PutDatabase stores a new or changed database.
func (ch *Change) PutDatabase(db *Database) error {
	ch.dirty = true
	return ch.tx.Set(keys.Meta(dbName(db.ID)), encodeDatabase(db))
}

// DropDatabase removes a database and all its tables, leaving their data for the background deletion.
func (ch *Change) DropDatabase(db *Database) error {
	ch.dirty = true
	for _, t := range ch.Snapshot.Tables(db.Name) {
		if err := ch.DropTable(t); err != nil {
			return err
		}
	}
	return ch.tx.Delete(keys.Meta(dbName(db.ID)))
}

// PutTable stores a new or changed table (see Table.Edit) and gives it the change's epoch.
func (ch *Change) PutTable(t *Table) error {
	ch.dirty = true
	t.Epoch = uint64(ch.Version)
	return ch.tx.Set(keys.Meta(tableName(t.ID)), encodeTable(t))
}

// DropTable removes a table and records its key range for deletion.
func (ch *Change) DropTable(t *Table) error {
	ch.dirty = true
	if err := ch.tx.Delete(keys.Meta(tableName(t.ID))); err != nil {
		return err
	}
	for _, prefix := range []string{autoIDPrefix, rowIDPrefix} {
		if err := ch.tx.Delete(keys.Meta(prefix + strconv.FormatInt(t.ID, 10))); err != nil {
			return err
		}
	}
	start, end := keys.TablePrefix(t.ID)
	return ch.DeleteRange(start, end)
}

// Counter keys of tables; package table keeps them, DropTable removes them.
const (
	autoIDPrefix = "auto/"
	rowIDPrefix  = "rowid/"
)

// AutoIDKey is the metadata key of a table's AUTO_INCREMENT counter, RowIDKey that of its hidden row ids.
func AutoIDKey(tableID int64) []byte { return keys.Meta(autoIDPrefix + strconv.FormatInt(tableID, 10)) }

// RowIDKey is the metadata key of the counter of hidden row ids.
func RowIDKey(tableID int64) []byte { return keys.Meta(rowIDPrefix + strconv.FormatInt(tableID, 10)) }

// Set writes another metadata key in the same transaction, such as a counter of AutoIDKey.
func (ch *Change) Set(key, value []byte) error {
	ch.dirty = true
	return ch.tx.Set(key, value)
}

// GarbageRange is a key range nobody refers to any more; its data may be deleted once every transaction that knew it
// has ended.
type GarbageRange struct {
	ID         int64  `json:"-"`
	Start      []byte `json:"start"`
	End        []byte `json:"end"`
	AfterDrain int64  `json:"after_drain"` // schema version that must be drained before
}

// DeleteRange records the keys [start, end) for deletion in the background.
func (ch *Change) DeleteRange(start, end []byte) error {
	id, err := ch.AllocID()
	if err != nil {
		return err
	}
	return ch.tx.Set(keys.Meta(rangeName(id)), mustJSON(GarbageRange{Start: start, End: end, AfterDrain: ch.Version}))
}

// Garbage lists the recorded ranges.
func (c *Catalog) Garbage(ctx context.Context) (out []GarbageRange, err error) {
	start, end := keys.MetaPrefix(rangePrefix)
	err = c.opts.KV.View(ctx, func(tx Tx) error {
		return tx.Scan(ctx, start, end, txn.ScanOptions{}, func(k, v []byte) error {
			var g GarbageRange
			if err := json.Unmarshal(v, &g); err != nil {
				return fmt.Errorf("catalog: garbage range: %w", err)
			}
			name, err := keys.DecodeMeta(k)
			if err != nil {
				return err
			}
			if g.ID, err = strconv.ParseInt(strings.TrimPrefix(name, rangePrefix), 10, 64); err != nil {
				return err
			}
			out = append(out, g)
			return nil
		})
	})
	return out, err
}

// ForgetGarbage removes the record of a range whose data is deleted.
func (c *Catalog) ForgetGarbage(ctx context.Context, id int64) error {
	return c.opts.KV.Update(ctx, func(tx Tx) error { return tx.Delete(keys.Meta(rangeName(id))) })
}
