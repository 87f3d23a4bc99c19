package table

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"sync"
	"time"

	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/sqlnode/catalog"
)

// Sizes of the ranges an allocator takes at once.
const (
	minStep = 1_000
	maxStep = 1 << 20
	// quickRefill is the time below which a range was too small.
	quickRefill = time.Second
)

// Counters gives out AUTO_INCREMENT values and hidden row ids of all tables. A node takes a range of values in a
// transaction of its own, by moving the stored high-water mark, and gives them out one after the other; so values are
// 1, 2, 3, ... as long as one node inserts, several nodes never collide, and a clean Close hands the rest back. Safe
// for concurrent use.
type Counters struct {
	kv catalog.KV

	mu     sync.Mutex // protects the maps
	auto   map[int64]*counter
	rowIDs map[int64]*counter
}

// counter is the range [next, end) this node owns of one key.
type counter struct {
	mu     sync.Mutex // held over the refill's I/O: everybody who needs a value waits for it anyway
	key    []byte
	first  int64 // value to begin with when nothing is stored
	next   int64
	end    int64
	step   int64
	seen   int64 // the stored mark is at least this
	filled time.Time
}

// NewCounters returns an empty set over the metadata store.
func NewCounters(kv catalog.KV) *Counters {
	return &Counters{kv: kv, auto: map[int64]*counter{}, rowIDs: map[int64]*counter{}}
}

func (c *Counters) autoOf(t *catalog.Table) *counter {
	c.mu.Lock()
	defer c.mu.Unlock()
	ct := c.auto[t.ID]
	if ct == nil {
		ct = &counter{key: catalog.AutoIDKey(t.ID), first: max(t.AutoIncOption, 1), step: minStep}
		c.auto[t.ID] = ct
	}
	return ct
}

func (c *Counters) rowIDOf(t *catalog.Table) *counter {
	c.mu.Lock()
	defer c.mu.Unlock()
	ct := c.rowIDs[t.ID]
	if ct == nil {
		ct = &counter{key: catalog.RowIDKey(t.ID), first: 1, step: minStep}
		c.rowIDs[t.ID] = ct
	}
	return ct
}

// AutoID returns the first of n AUTO_INCREMENT values first, first+increment, ... that belong to the caller. They are
// congruent to offset modulo increment (auto_increment_offset, auto_increment_increment; 1 and 1 by default). Error
// 1467 when the values are used up.
func (c *Counters) AutoID(ctx context.Context, t *catalog.Table, n int, increment, offset int64) (first int64, err error) {
	if increment <= 1 {
		return c.autoOf(t).take(ctx, c.kv, int64(n), 1, 1)
	}
	if offset > increment {
		offset = 1 // MySQL ignores an offset greater than the increment
	}
	return c.autoOf(t).take(ctx, c.kv, int64(n), increment, offset)
}

// RowID returns the first of n consecutive hidden row ids.
func (c *Counters) RowID(ctx context.Context, t *catalog.Table, n int) (first int64, err error) {
	return c.rowIDOf(t).take(ctx, c.kv, int64(n), 1, 1)
}

// Rebase makes sure that value, which somebody stored explicitly, is not generated later. Call it with the greatest
// explicit value of a statement.
func (c *Counters) Rebase(ctx context.Context, t *catalog.Table, value int64) error {
	if value <= 0 {
		return nil
	}
	return c.autoOf(t).rebase(ctx, c.kv, value)
}

// Next is the value this node would generate next, for SHOW CREATE TABLE and SHOW TABLE STATUS.
func (c *Counters) Next(ctx context.Context, t *catalog.Table) (int64, error) {
	return c.autoOf(t).peek(ctx, c.kv)
}

// Forget drops what is held of a table that was dropped or whose counter was changed by others.
func (c *Counters) Forget(tableID int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.auto, tableID)
	delete(c.rowIDs, tableID)
}

// Close hands unused values back, where nobody has taken a range since. No call may be running.
func (c *Counters) Close(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var open []*counter
	for _, set := range []map[int64]*counter{c.auto, c.rowIDs} {
		for _, ct := range set {
			if ct.next < ct.end {
				open = append(open, ct)
			}
		}
	}
	if len(open) == 0 {
		return nil
	}
	err := c.kv.Update(ctx, func(tx catalog.Tx) error {
		for _, ct := range open {
			stored, err := ct.stored(ctx, tx)
			if err != nil {
				return err
			}
			if stored != ct.end {
				continue
			}
			if err := tx.Set(ct.key, strconv.AppendInt(nil, ct.next, 10)); err != nil {
				return err
			}
		}
		return nil
	})
	clear(c.auto)
	clear(c.rowIDs)
	return err
}

// errUsedUp is MySQL's ER_AUTOINC_READ_FAILED.
func errUsedUp() error {
	return sqlerr.Newf(1467, "Failed to read auto-increment value from storage engine")
}

// align is the smallest value >= v congruent to offset modulo increment.
func align(v, increment, offset int64) int64 {
	if increment <= 1 || v <= offset {
		return max(v, offset)
	}
	return offset + (v-offset+increment-1)/increment*increment
}

func (ct *counter) take(ctx context.Context, kv catalog.KV, n, increment, offset int64) (int64, error) {
	ct.mu.Lock()
	defer ct.mu.Unlock()
	if n > math.MaxInt64/2/increment {
		return 0, errUsedUp()
	}
	span := n * increment // room for n values whatever the alignment
	if first := align(ct.next, increment, offset); ct.next < ct.end && first+(n-1)*increment < ct.end {
		ct.next = first + (n-1)*increment + 1
		return first, nil
	}
	if err := ct.refill(ctx, kv, span+increment); err != nil {
		return 0, err
	}
	first := align(ct.next, increment, offset)
	ct.next = first + (n-1)*increment + 1
	return first, nil
}

// refill takes at least need more values. If nobody else took values since, the new range continues the old one.
func (ct *counter) refill(ctx context.Context, kv catalog.KV, need int64) error {
	if time.Since(ct.filled) < quickRefill {
		ct.step = min(2*ct.step, maxStep)
	} else {
		ct.step = max(ct.step/2, minStep)
	}
	want := max(ct.step, need)
	var from, to int64
	err := kv.Update(ctx, func(tx catalog.Tx) error {
		stored, err := ct.stored(ctx, tx)
		if err != nil {
			return err
		}
		if stored > math.MaxInt64-want {
			return errUsedUp()
		}
		from, to = stored, stored+want
		return tx.Set(ct.key, strconv.AppendInt(nil, to, 10))
	})
	if err != nil {
		return err
	}
	if from != ct.end || ct.next >= ct.end {
		ct.next = from
	}
	ct.end, ct.filled = to, time.Now()
	return nil
}

// stored reads the high-water mark.
func (ct *counter) stored(ctx context.Context, tx catalog.Tx) (int64, error) {
	v, err := tx.Get(ctx, ct.key)
	if err != nil || v == nil {
		return ct.first, err
	}
	n, err := strconv.ParseInt(string(v), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("table: counter %q: %w", ct.key, err)
	}
	return n, nil
}

func (ct *counter) rebase(ctx context.Context, kv catalog.KV, value int64) error {
	ct.mu.Lock()
	defer ct.mu.Unlock()
	switch {
	case value < ct.next && ct.next <= ct.end && ct.end > 0:
		return nil
	case value < ct.end:
		ct.next = value + 1
		return nil
	case value < ct.seen:
		return nil
	case value >= math.MaxInt64-maxStep:
		return ct.exhaust(ctx, kv)
	}
	moved := false
	var to int64
	err := kv.Update(ctx, func(tx catalog.Tx) error {
		stored, err := ct.stored(ctx, tx)
		if err != nil {
			return err
		}
		if moved = value >= stored; !moved {
			to = stored
			return nil
		}
		to = value + 1 + ct.step // a range of our own follows, so that ascending values cost no transaction each
		return tx.Set(ct.key, strconv.AppendInt(nil, to, 10))
	})
	if err != nil {
		return err
	}
	ct.seen = to
	if moved {
		ct.next, ct.end = value+1, to
	}
	return nil
}

// exhaust stores that no value is left.
func (ct *counter) exhaust(ctx context.Context, kv catalog.KV) error {
	ct.next, ct.end = 0, 0
	return kv.Update(ctx, func(tx catalog.Tx) error {
		return tx.Set(ct.key, strconv.AppendInt(nil, math.MaxInt64, 10))
	})
}

func (ct *counter) peek(ctx context.Context, kv catalog.KV) (next int64, err error) {
	ct.mu.Lock()
	defer ct.mu.Unlock()
	if ct.next < ct.end {
		return ct.next, nil
	}
	err = kv.View(ctx, func(tx catalog.Tx) error {
		next, err = ct.stored(ctx, tx)
		return err
	})
	return next, err
}
