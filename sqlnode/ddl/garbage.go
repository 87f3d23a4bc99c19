package ddl

import (
	"context"
	"slices"
	"time"

	"github.com/cairndb/cairn/sqlnode/catalog"
	"github.com/cairndb/cairn/sqlnode/txn"
)

// deleteBatch is how many keys one transaction of the background deletion removes.
const deleteBatch = 1024

// janitor deletes data of dropped things and takes back changes of dead nodes, until ctx ends.
func (e *Executor) janitor(ctx context.Context) {
	tick := time.NewTicker(e.opts.CleanInterval)
	defer tick.Stop()
	for {
		if err := e.adopt(ctx); err != nil && ctx.Err() == nil {
			e.opts.Logger.Warn("cannot take back schema changes of dead nodes", "error", err)
		}
		if err := e.collect(ctx); err != nil && ctx.Err() == nil {
			e.opts.Logger.Warn("cannot delete data of dropped tables", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-e.clean:
		}
	}
}

// wakeCleaner starts the deletion soon.
func (e *Executor) wakeCleaner() {
	select {
	case e.clean <- struct{}{}:
	default:
	}
}

// collect deletes every recorded range that no transaction can refer to any more.
func (e *Executor) collect(ctx context.Context) error {
	ranges, err := e.cat.Garbage(ctx)
	if err != nil {
		return err
	}
	for _, g := range ranges {
		drained, err := e.cat.Drained(ctx, g.AfterDrain)
		if err != nil {
			return err
		}
		if !drained {
			continue
		}
		if err := e.deleteRange(ctx, g.Start, g.End); err != nil {
			return err
		}
		if err := e.cat.ForgetGarbage(ctx, g.ID); err != nil {
			return err
		}
	}
	return nil
}

// deleteRange removes the keys [start, end) in small transactions.
func (e *Executor) deleteRange(ctx context.Context, start, end []byte) error {
	for {
		var last []byte
		err := e.opts.KV.Update(ctx, func(tx catalog.Tx) error {
			var found [][]byte
			err := tx.Scan(ctx, start, end, txn.ScanOptions{Limit: deleteBatch, KeyOnly: true}, func(k, _ []byte) error {
				found = append(found, slices.Clone(k))
				return nil
			})
			if err != nil {
				return err
			}
			last = nil
			if len(found) == deleteBatch {
				last = found[len(found)-1]
			}
			for _, k := range found {
				if err := tx.Delete(k); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil || last == nil {
			return err
		}
		start = append(last, 0)
	}
}

// adopt takes back changes whose node is gone: it thaws tables and removes indexes that never became public.
func (e *Executor) adopt(ctx context.Context) error {
	owners := map[string]bool{}
	e.eachOwned(e.cat.Snapshot(), func(t *catalog.Table) { owners[t.Owner] = true })
	if len(owners) == 0 {
		return nil
	}
	live, err := e.cat.LiveNodes(ctx)
	if err != nil {
		return err
	}
	for _, id := range append(live, e.cat.NodeID()) {
		delete(owners, id)
	}
	if len(owners) == 0 {
		return nil
	}
	_, err = e.cat.Apply(ctx, func(ch *catalog.Change) error {
		var failed error
		e.eachOwned(ch.Snapshot, func(t *catalog.Table) {
			if owners[t.Owner] && failed == nil {
				failed = takeBack(ch, t)
			}
		})
		return failed
	})
	e.wakeCleaner()
	return err
}

func (e *Executor) eachOwned(s *catalog.Snapshot, fn func(*catalog.Table)) {
	for _, db := range s.Databases() {
		for _, t := range s.Tables(db.Name) {
			if t.Owner != "" {
				fn(t)
			}
		}
	}
}

// takeBack undoes an unfinished change of a table.
func takeBack(ch *catalog.Change, t *catalog.Table) error {
	edit := t.Edit()
	edit.Owner, edit.Frozen = "", false
	for _, ix := range t.WriteIndexes {
		if ix.State == catalog.StatePublic {
			continue
		}
		edit.RemoveIndex(ix.ID)
		if err := ch.DeleteRange(indexRange(t.ID, ix.ID)); err != nil {
			return err
		}
	}
	return ch.PutTable(edit)
}
