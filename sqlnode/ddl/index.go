package ddl

import (
	"context"
	"errors"
	"strings"

	"github.com/pingcap/tidb/pkg/parser/ast"

	"github.com/cairndb/cairn/internal/keys"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/sqlnode/catalog"
)

func indexRange(tableID, indexID int64) (start, end []byte) {
	return keys.IndexPrefix(tableID, indexID)
}

func (e *Executor) createIndex(ctx context.Context, c *Context, s *ast.CreateIndexStmt) error {
	con := &ast.Constraint{Tp: ast.ConstraintIndex, Name: s.IndexName, Keys: s.IndexPartSpecifications, Option: s.IndexOption, IfNotExists: s.IfNotExists}
	switch s.KeyType {
	case ast.IndexKeyTypeNone:
	case ast.IndexKeyTypeUnique:
		con.Tp = ast.ConstraintUniq
	default:
		return unsupported("this kind of index")
	}
	return e.addIndex(ctx, c, s.Table, con)
}

// addIndex builds an index online: see the package comment.
func (e *Executor) addIndex(ctx context.Context, c *Context, name *ast.TableName, con *ast.Constraint) error {
	if con.Tp == ast.ConstraintPrimaryKey {
		return unsupported("ADD PRIMARY KEY")
	}
	var job indexJob
	err := e.publishDrained(ctx, func(ch *catalog.Change) error { return job.begin(e, c, ch, name, con) })
	if job.index == 0 {
		return err // nothing was published
	}
	if err == nil {
		err = e.buildIndex(ctx, &job)
	}
	if err != nil {
		// Take back even when ctx is over; the janitor would, but only after this node is gone.
		if backErr := e.takeBackIndex(context.WithoutCancel(ctx), &job); backErr != nil {
			err = errors.Join(err, backErr)
		}
	}
	return err
}

// indexJob is an index being built.
type indexJob struct {
	table, index int64 // ids; index 0 = not begun
}

// begin publishes the index delete-only.
func (j *indexJob) begin(e *Executor, c *Context, ch *catalog.Change, name *ast.TableName, con *ast.Constraint) error {
	j.index = 0
	t, err := existing(c, ch.Snapshot, name)
	if err != nil {
		return err
	}
	if con.IfNotExists && t.Index(con.Name) != nil {
		c.note(sqlerr.New(sqlerr.ErrDupKeyName, con.Name))
		return nil
	}
	if err := unowned(t); err != nil {
		return err
	}
	edit := t.Edit()
	ix, err := defineKey(c, edit, con, nil)
	if err != nil {
		return err
	}
	if len(edit.AllIndexes()) >= maxIndexes {
		return sqlerr.New(sqlerr.ErrTooManyKeys, maxIndexes)
	}
	edit.MaxIndexID++
	ix.ID, ix.State = edit.MaxIndexID, catalog.StateDeleteOnly
	edit.Owner = e.cat.NodeID()
	edit.AddIndex(ix)
	sortIndexes(edit)
	j.table, j.index = t.ID, ix.ID
	return ch.PutTable(edit)
}

// buildIndex takes the index from delete-only to public.
func (e *Executor) buildIndex(ctx context.Context, j *indexJob) error {
	if err := e.publishDrained(ctx, func(ch *catalog.Change) error { return j.setState(ch, catalog.StateWriteOnly) }); err != nil {
		return err
	}
	t := e.cat.Snapshot().TableByID(j.table)
	if t == nil {
		return nil // dropped meanwhile
	}
	if err := e.backfill(ctx, t, t.IndexByID(j.index)); err != nil {
		return err
	}
	return e.publish(ctx, func(ch *catalog.Change) error { return j.setState(ch, catalog.StatePublic) })
}

// setState moves the index on; public also ends the job. A table dropped meanwhile is none of our business.
func (j *indexJob) setState(ch *catalog.Change, state catalog.State) error {
	t := ch.Snapshot.TableByID(j.table)
	if t == nil {
		return nil
	}
	edit := t.Edit()
	for _, ix := range edit.AllIndexes() {
		if ix.ID != j.index {
			continue
		}
		edit.RemoveIndex(ix.ID)
		ix.State = state
		edit.AddIndex(ix)
	}
	sortIndexes(edit)
	if state == catalog.StatePublic {
		edit.Owner = ""
	}
	return ch.PutTable(edit)
}

func (e *Executor) takeBackIndex(ctx context.Context, j *indexJob) error {
	err := e.publish(ctx, func(ch *catalog.Change) error {
		if t := ch.Snapshot.TableByID(j.table); t != nil {
			return takeBack(ch, t)
		}
		return nil
	})
	e.wakeCleaner()
	return err
}

func (e *Executor) dropIndex(ctx context.Context, c *Context, s *ast.DropIndexStmt) error {
	return e.removeIndex(ctx, c, s.Table, s.IndexName, s.IfExists)
}

// removeIndex hides an index from readers first, keeps maintaining it until nobody reads it, and then drops it.
func (e *Executor) removeIndex(ctx context.Context, c *Context, name *ast.TableName, index string, ifExists bool) error {
	if strings.EqualFold(index, primaryName) {
		return unsupported("DROP PRIMARY KEY")
	}
	var job indexJob
	err := e.publishDrained(ctx, func(ch *catalog.Change) error {
		job.index = 0
		t, err := existing(c, ch.Snapshot, name)
		if err != nil {
			return err
		}
		ix := t.Index(index)
		if ix == nil {
			missing := sqlerr.New(sqlerr.ErrCantDropFieldOrKey, index)
			if ifExists {
				c.note(missing)
				return nil
			}
			return missing
		}
		if err := unowned(t); err != nil {
			return err
		}
		if t.AutoInc != nil && !keyedWithout(t, ix) {
			return sqlerr.New(sqlerr.ErrWrongAutoKey)
		}
		job = indexJob{table: t.ID, index: ix.ID}
		edit := t.Edit()
		edit.Owner = e.cat.NodeID()
		return job.hide(ch, edit)
	})
	if job.index == 0 {
		return err
	}
	if err != nil { // readers of the old schema remain: show the index again
		back := e.publish(context.WithoutCancel(ctx), func(ch *catalog.Change) error { return job.setState(ch, catalog.StatePublic) })
		return errors.Join(err, back)
	}
	return e.takeBackIndex(context.WithoutCancel(ctx), &job)
}

// hide makes the index write-only in an edited table.
func (j *indexJob) hide(ch *catalog.Change, edit *catalog.Table) error {
	for _, ix := range edit.AllIndexes() {
		if ix.ID == j.index {
			edit.RemoveIndex(ix.ID)
			ix.State = catalog.StateWriteOnly
			edit.AddIndex(ix)
		}
	}
	sortIndexes(edit)
	return ch.PutTable(edit)
}

// keyedWithout says whether the AUTO_INCREMENT column begins another index than ix.
func keyedWithout(t *catalog.Table, ix *catalog.Index) bool {
	for _, other := range t.AllIndexes() {
		if other.ID != ix.ID && t.Columns[other.Columns[0].Offset] == t.AutoInc {
			return true
		}
	}
	return t.Columns[ix.Columns[0].Offset] != t.AutoInc
}
