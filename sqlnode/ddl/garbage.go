package ddl

import (
	"context"
	"time"

	"github.com/cairndb/cairn/kvnode/kvclient/txn"
	"github.com/cairndb/cairn/sqlnode/catalog"
)

// janitor removes data of dropped things and takes back changes of dead nodes, until ctx ends.
func (e *Executor) janitor(ctx context.Context) {
	tick := time.NewTicker(e.opts.CleanInterval)
	defer tick.Stop()
	for {
		if err := e.adopt(ctx); err != nil && ctx.Err() == nil {
			e.opts.Logger.Warn("cannot take back schema changes of dead nodes", "error", err)
		}
		if err := e.collect(ctx); err != nil && ctx.Err() == nil {
			e.opts.Logger.Warn("cannot remove data of dropped tables", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-e.clean:
		}
	}
}

// wakeCleaner starts the removal soon.
func (e *Executor) wakeCleaner() {
	select {
	case e.clean <- struct{}{}:
	default:
	}
}

// collect removes the data of every recorded range that no transaction can refer to any more. Several nodes may do so
// at the same time: a range that is recorded is never used again.
func (e *Executor) collect(ctx context.Context) error {
	if e.opts.Destroy == nil {
		return nil
	}
	recorded, err := e.cat.Garbage(ctx)
	if err != nil {
		return err
	}
	var ids []int64
	var ranges []txn.KeyRange
	for _, g := range recorded {
		drained, err := e.cat.Drained(ctx, g.AfterDrain)
		if err != nil {
			return err
		}
		if drained {
			ids, ranges = append(ids, g.ID), append(ranges, txn.KeyRange{Start: g.Start, End: g.End})
		}
	}
	if len(ranges) == 0 {
		return nil
	}
	if err := e.opts.Destroy(ctx, ranges); err != nil {
		return err
	}
	e.opts.Logger.Info("data of dropped tables and indexes is removed", "ranges", len(ranges))
	for _, id := range ids {
		if err := e.cat.ForgetGarbage(ctx, id); err != nil {
			return err
		}
	}
	return nil
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
