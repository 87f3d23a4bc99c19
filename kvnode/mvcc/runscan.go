package mvcc

import (
	"bytes"
	"fmt"

	"github.com/cairndb/cairn/kvnode/engine"
	"github.com/cairndb/cairn/proto/kvpb"
)

// maxLookups is how many keys of a run a scan looks up one by one, if they are not more than a
// quarter of them anyway, before it walks the rest of the run with its iterator.
const maxLookups = 8

// runScan fills a block from the engine's runs (see engine.DB.ReadRun), and from an iterator
// where there are none, which it makes runs of.
type runScan struct {
	s         *Scanner
	block     *kvpb.KvBlock
	limit     int
	byteLimit int

	full     bool // a limit is reached
	n        int  // pairs so far
	from, at []byte
	build    *engine.RunBuilder // nil before there is an iterator
}

// fillRuns is Fill of a scan that may use runs.
func (s *Scanner) fillRuns(block *kvpb.KvBlock, limit, byteLimit int) (more bool, err error) {
	f := runScan{s: s, block: block, limit: limit, byteLimit: byteLimit}
	f.from = append(make([]byte, 0, 2*len(s.o.Lower)), s.o.Lower...)
	for !f.full && s.err == nil && bytes.Compare(f.from, s.o.Upper) < 0 {
		if known, usable := f.run(); !usable {
			f.iterate(!known)
		}
	}
	f.build.Close()
	return f.full && s.err == nil, s.err
}

// run delivers what is known from f.from on, and moves that to where nothing is known any more. If usable
// is false what lies between f.from and f.at is for the iterator: known says whether a
// run has it.
func (f *runScan) run() (known, usable bool) {
	s := f.s
	given := 0
	take := func(key, record []byte, ts uint64, kind engine.RecordKind) bool {
		if ts > s.o.TS || kind == engine.RecordOther {
			return false // another version may be the one to read
		}
		given++
		if kind == engine.RecordDelete {
			return true
		}
		w, err := ParseWrite(record)
		if err != nil {
			s.fail(fmt.Errorf("write of key %x at %d: %w", key, ts, err))
			return false
		}
		s.skey = append(s.skey[:0], key...)
		f.deliver(w.Value)
		return !f.full
	}
	for lookups := 1; ; lookups++ {
		switch how := s.db.ReadRun(f.from, s.o.Upper, &f.at, take); {
		case f.full || s.err != nil:
			return true, true
		case how == engine.RunNone:
			return lookups > 1, false
		case how == engine.RunPassed:
			f.from, f.at = f.at, f.from
			return true, true
		}
		if lookups > max(maxLookups, given/4) {
			f.from, f.at = f.at, f.from
			s.db.ReadRun(f.from, s.o.Upper, &f.at, nil)
			return true, false
		}
		if f.lookUp(f.at); f.full || s.err != nil {
			return true, true
		}
		f.from = append(append(f.from[:0], f.at...), 0)
	}
}

// lookUp delivers the value of key, if it has one.
func (f *runScan) lookUp(key []byte) {
	s := f.s
	if !f.open() {
		return
	}
	if !s.it.SeekVersion(key, s.o.TS) || !bytes.Equal(s.it.Key(), key) {
		s.fail(s.it.Err())
		return
	}
	s.skey = append(s.skey[:0], key...)
	if visible, _ := s.visibleForward(); visible {
		f.deliver(s.svalue)
	}
}

// iterate delivers what lies between f.from and f.at, keeps the newest records if build is set,
// and moves f.from there.
func (f *runScan) iterate(build bool) {
	s := f.s
	if !f.open() {
		return
	}
	var b *engine.RunBuilder
	if build {
		b = f.build
		b.Begin(f.from)
	}
	for ok := s.it.SeekGE(f.from); ok && bytes.Compare(s.it.Key(), f.at) < 0; {
		s.skey = append(s.skey[:0], s.it.Key()...)
		if b != nil {
			rec, err := s.it.Value()
			if err != nil {
				s.fail(err)
				return
			}
			b.Add(s.skey, s.it.TS(), rec)
		}
		visible, onKey := s.visibleForward()
		if s.err != nil {
			return
		}
		if visible {
			if f.deliver(s.svalue); f.full {
				b.End(append(s.skey[:len(s.skey):len(s.skey)], 0))
				return
			}
		}
		if onKey {
			ok = s.leaveKey()
		} else {
			ok = s.it.Valid()
		}
	}
	if s.fail(s.it.Err()); s.err != nil {
		return
	}
	b.End(f.at)
	f.from, f.at = f.at, f.from
}

// deliver puts the pair of s.skey in the block.
func (f *runScan) deliver(value []byte) {
	f.s.key, f.s.value = f.s.skey, value
	f.n++
	f.full = f.s.put(f.block, f.n, f.limit, f.byteLimit)
}

// open makes sure that there is an iterator, which is younger than the builder.
func (f *runScan) open() bool {
	if f.s.it == nil {
		f.build = f.s.db.NewRunBuilder()
	}
	return f.s.open()
}
