package workload

import (
	"context"
	"fmt"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anishathalye/porcupine"
)

var registerSchema = []string{"CREATE TABLE chaos.registers (id BIGINT NOT NULL PRIMARY KEY, v BIGINT NOT NULL)"}

const (
	slots    = 8       // registers in use at a time
	slotStep = 1 << 20 // between their keys: they lie in different regions
)

// registers are rows read, written, and compared and set, each by statements of
// one row in autocommit. After a while new rows take the place of the old: checking
// a long history takes long.
type registers struct {
	current atomic.Pointer[[slots]int64]
	values  fresh

	mu         sync.Mutex
	generation int64
	history    []porcupine.Operation
	unknown    int
	failed     int
	wrong      []string
}

// act is what was asked of a register.
type act struct {
	id   int64
	kind actKind
	from int64 // compare and set
	to   int64
}

type actKind int

const (
	actRead actKind = iota
	actWrite
	actSet // compare and set
)

// answer is what came. Of an act without an answer nothing is known.
type answer struct {
	known bool
	ok    bool // compare and set
	v     int64
}

// register is the model of one row.
var register = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byID := map[int64][]porcupine.Operation{}
		for _, op := range history {
			id := op.Input.(act).id
			byID[id] = append(byID[id], op)
		}
		var all [][]porcupine.Operation
		for _, h := range byID {
			all = append(all, h)
		}
		return all
	},
	Init: func() any { return int64(0) },
	Step: func(state, input, output any) (bool, any) {
		s, in, out := state.(int64), input.(act), output.(answer)
		switch in.kind {
		case actRead:
			return out.v == s, s
		case actWrite:
			return true, in.to
		}
		if out.known && out.ok != (s == in.from) {
			return false, s
		}
		if s == in.from {
			return true, in.to
		}
		return true, s
	},
	DescribeOperation: func(input, output any) string {
		in, out := input.(act), output.(answer)
		switch {
		case in.kind == actRead:
			return fmt.Sprintf("read: %d", out.v)
		case in.kind == actWrite && out.known:
			return fmt.Sprintf("write %d", in.to)
		case in.kind == actWrite:
			return fmt.Sprintf("write %d: ?", in.to)
		case out.known:
			return fmt.Sprintf("set %d to %d: %t", in.from, in.to, out.ok)
		}
		return fmt.Sprintf("set %d to %d: ?", in.from, in.to)
	},
}

// NewRegisters lets the clients go on with new rows.
func (l *Load) NewRegisters(ctx context.Context) error {
	r := &l.registers
	for {
		r.mu.Lock()
		r.generation++
		g := r.generation
		r.mu.Unlock()
		var ids [slots]int64
		var rows []string
		for i := range ids {
			ids[i] = int64(i)*slotStep + g
			rows = append(rows, fmt.Sprintf("(%d, 0)", ids[i]))
		}
		_, err := l.control.ExecContext(ctx, "INSERT INTO chaos.registers VALUES "+strings.Join(rows, ", "))
		if err == nil {
			r.current.Store(&ids)
			return nil
		}
		// These rows may come yet, and nobody uses them.
		if sleep(ctx, retryPause); ctx.Err() != nil {
			return fmt.Errorf("new registers: %w", err)
		}
	}
}

// once does one thing to one register.
func (r *registers) once(ctx context.Context, c *client) error {
	in := act{id: r.current.Load()[c.rng.IntN(slots)]}
	var out answer
	// A set is of any use only for a value that may be there: it is read before.
	var seen []porcupine.Operation
	choice := c.rng.IntN(10)
	began := c.load.since()
	if choice < 6 {
		v, err := r.read(ctx, c, in.id)
		if err != nil {
			return err // a read without an answer says nothing
		}
		seen = append(seen, porcupine.Operation{ClientId: c.id, Input: in, Call: began, Output: answer{known: true, v: v}, Return: c.load.since()})
		if choice >= 3 {
			in.kind, in.from = actSet, v
		}
	} else {
		in.kind = actWrite
	}
	if in.kind == actRead {
		r.note(seen...)
		return nil
	}
	in.to = r.values.next()
	began = c.load.since()
	var changed int64
	var err error
	if in.kind == actSet {
		changed, err = c.conn.exec(ctx, "UPDATE chaos.registers SET v = ? WHERE id = ? AND v = ?", in.to, in.id, in.from)
	} else {
		changed, err = c.conn.exec(ctx, "UPDATE chaos.registers SET v = ? WHERE id = ?", in.to, in.id)
		if err == nil && changed != 1 {
			r.fault(fmt.Sprintf("a write of register %d changed %d rows", in.id, changed))
		}
	}
	op := porcupine.Operation{ClientId: c.id, Input: in, Call: began, Return: c.load.since()}
	switch outcomeOf(err) {
	case succeeded:
		out = answer{known: true, ok: changed == 1}
	case unknown:
		op.Return = math.MaxInt64
	case failed: // it is left out: the others must not have seen it
		r.note(seen...)
		r.mu.Lock()
		r.failed++
		r.mu.Unlock()
		return err
	}
	op.Output = out
	r.note(append(seen, op)...)
	return err
}

func (r *registers) read(ctx context.Context, c *client, id int64) (v int64, err error) {
	n := 0
	err = c.conn.query(ctx, func(_, b int64) { v = b; n++ }, "SELECT id, v FROM chaos.registers WHERE id = ?", id)
	if err == nil && n != 1 {
		r.fault(fmt.Sprintf("register %d was read as %d rows", id, n))
	}
	return v, err
}

func (r *registers) fault(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.wrong) < shown {
		r.wrong = append(r.wrong, text)
	}
}

func (r *registers) note(ops ...porcupine.Operation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, op := range ops {
		if op.Return == math.MaxInt64 {
			r.unknown++
		}
	}
	r.history = append(r.history, ops...)
}

func (r *registers) count(c *Counts) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c.Registers += len(r.history) - r.unknown
	c.Unknown += r.unknown
	c.Failed += r.failed
}

// checkWithin bounds the search for an order of a history.
const checkWithin = 2 * time.Minute

func (r *registers) check(context.Context, *Load) ([]string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	wrong := r.wrong
	switch porcupine.CheckOperationsTimeout(register, r.history, checkWithin) {
	case porcupine.Illegal:
		wrong = append(wrong, firstIllegal(r.history)...)
	case porcupine.Unknown:
		return wrong, fmt.Errorf("the history of %d register operations was not checked within %v", len(r.history), checkWithin)
	}
	return wrong, nil
}

// firstIllegal describes the registers whose history has no order.
func firstIllegal(history []porcupine.Operation) (wrong []string) {
	for _, h := range register.Partition(history) {
		if porcupine.CheckOperationsTimeout(register, h, checkWithin) != porcupine.Illegal {
			continue
		}
		wrong = append(wrong, fmt.Sprintf("register %d is not linearizable over %d operations; it goes wrong at:\n%s",
			h[0].Input.(act).id, len(h), describe(h)))
		if len(wrong) == shown {
			break
		}
	}
	return wrong
}
