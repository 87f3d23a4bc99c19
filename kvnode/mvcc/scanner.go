package mvcc

import (
	"bytes"
	"fmt"

	"github.com/cairndb/cairn/kvnode/engine"
	"github.com/cairndb/cairn/proto/kvpb"
)

const (
	// measureKeys is after how many keys a scanner measures how many entries, removed ones
	// included, it steps over per key. From jumpSteps on it skips the rest of the keys
	// instead, for jumpKeys of them, and then measures again.
	measureKeys = 16
	jumpSteps   = 8
	jumpKeys    = 256
)

// maxSteps is how many versions of a key a scanner walks past before it seeks.
const maxSteps = 16

// ScanOptions of OpenScanner.
type ScanOptions struct {
	// Lower and Upper bound the keys to [Lower, Upper); an empty Upper is the end
	// of the key space.
	Lower, Upper []byte
	// TS is the read timestamp.
	TS uint64
	// Reverse delivers descending keys.
	Reverse bool
	// KeyOnly saves the loading of long values; Value is undefined.
	KeyOnly bool
	// Runs lets Fill take records from the engine's memory, as they are when it meets them, and keep
	// them there. Then what the caller does after it has opened a view (see the package comment)
	// it does after Fill.
	Runs bool
	// Overlay lists keys whose value differs from what is stored, in scan order: a
	// reader puts the locks here that it knows to be committed. Kept by the scanner.
	Overlay []OverlayEntry
}

// OverlayEntry is the value of one key, or its absence.
type OverlayEntry struct {
	Key     []byte
	Value   []byte
	Deleted bool
}

// Scanner walks the pairs of a range as they are visible at a timestamp, in one
// view of the engine: that of the moment it was opened, or, with ScanOptions.Runs, any moments
// until Fill returned. It is for one goroutine.
//
// A key with one version costs one step of the iterator in either direction.
type Scanner struct {
	o  ScanOptions
	db *engine.DB
	it *engine.Iter // CFWrite; nil until needed, if the scan may use runs
	d  *engine.Iter // CFDefault, nil until needed

	started bool
	onEntry bool // the iterator stands on a record not looked at yet
	// stored is the next stored pair in scan order, found but not delivered yet.
	stored         bool
	key, skey      []byte // skey: key of the stored pair
	value, svalue  []byte
	scratch        []byte // reverse: the value while the iterator goes on
	startTS        uint64 // reverse: of a long value
	long           bool
	err            error
	storedFinished bool

	left  int // keys left since steps was measured, or, while jumping, since then
	steps int
	jump  bool
}

// OpenScanner opens a view. Close it.
func OpenScanner(db *engine.DB, o ScanOptions) (*Scanner, error) {
	// What is committed while the scan is under way is not seen at a timestamp, but at MaxTS some of it would be.
	o.Runs = o.Runs && !o.Reverse && o.TS != MaxTS && len(o.Upper) > 0
	s := &Scanner{o: o, db: db}
	if !o.Runs && !s.open() {
		return nil, s.err
	}
	return s, nil
}

// open makes sure that there is an iterator.
func (s *Scanner) open() bool {
	if s.it == nil && s.err == nil {
		it, err := s.db.NewIter(engine.IterOptions{CF: engine.CFWrite, Lower: s.o.Lower, Upper: s.o.Upper})
		if err != nil {
			s.fail(fmt.Errorf("mvcc: open scanner: %w", err))
			return false
		}
		s.it = it
	}
	return s.err == nil
}

// SetOverlay replaces ScanOptions.Overlay; before the first Next.
func (s *Scanner) SetOverlay(o []OverlayEntry) { s.o.Overlay = o }

// Close ends the view.
func (s *Scanner) Close() error {
	var err error
	if s.d != nil {
		err = s.d.Close()
		s.d = nil
	}
	if s.it != nil {
		if e := s.it.Close(); err == nil {
			err = e
		}
		s.it = nil
	}
	return err
}

// Key returns the current key, valid until Next.
func (s *Scanner) Key() []byte { return s.key }

// Value returns the current value, valid until Next.
func (s *Scanner) Value() []byte { return s.value }

// Err returns what stopped the scan; nil at the end of the range.
func (s *Scanner) Err() error { return s.err }

// Next moves to the next pair and reports whether there is one.
func (s *Scanner) Next() bool {
	for s.err == nil {
		if !s.stored && !s.storedFinished {
			s.stored = s.nextStored()
			s.storedFinished = !s.stored
			if s.err != nil {
				return false
			}
		}
		if len(s.o.Overlay) == 0 {
			s.key, s.value = s.skey, s.svalue
			ok := s.stored
			s.stored = false
			return ok
		}
		if s.nextOverlaid() {
			return true
		}
	}
	return false
}

// nextOverlaid delivers the smaller (reverse: greater) of the stored pair and the
// first overlay entry, or drops one of them and returns false.
func (s *Scanner) nextOverlaid() bool {
	top := s.o.Overlay[0]
	c := -1
	if s.stored {
		c = bytes.Compare(top.Key, s.skey)
		if s.o.Reverse {
			c = -c
		}
	}
	if c > 0 {
		s.key, s.value = s.skey, s.svalue
		s.stored = false
		return true
	}
	if c == 0 {
		s.stored = false
	}
	s.o.Overlay = s.o.Overlay[1:]
	s.key, s.value = top.Key, top.Value
	return !top.Deleted
}

func (s *Scanner) nextStored() bool {
	if !s.open() {
		return false
	}
	if s.o.Reverse {
		return s.prevKey()
	}
	return s.nextKey()
}

// nextKey finds the next visible pair going forward.
func (s *Scanner) nextKey() bool {
	var ok bool
	switch {
	case !s.started:
		s.started = true
		ok = s.it.First()
	default:
		ok = s.leaveKey()
	}
	for ok {
		s.skey = append(s.skey[:0], s.it.Key()...)
		visible, onKey := s.visibleForward()
		if visible || s.err != nil {
			return visible
		}
		if !onKey {
			ok = s.it.Valid()
			continue
		}
		ok = s.leaveKey()
	}
	s.fail(s.it.Err())
	return false
}

// leaveKey moves from a record of s.skey to the newest record of the next key. A
// step is some twenty times cheaper than a seek, most of all in a memtable, so a
// few versions are walked over before the iterator is asked to skip the rest. But of rows
// that are updated often many versions have been collected and are in the way still,
// each with its tombstone, unseen: see measure.
func (s *Scanner) leaveKey() bool {
	if s.left++; s.left >= measureKeys {
		s.measure()
	}
	if s.jump {
		return s.it.NextKey()
	}
	for range maxSteps {
		if !s.it.Next() {
			return false
		}
		if !bytes.Equal(s.it.Key(), s.skey) {
			return true
		}
	}
	return s.it.NextKey()
}

func (s *Scanner) measure() {
	if s.jump && s.left < jumpKeys {
		return
	}
	steps := s.it.Steps()
	s.jump = !s.jump && steps-s.steps >= s.left*jumpSteps
	s.left, s.steps = 0, steps
}

// visibleForward looks at the records of s.skey from the newest on. onKey tells
// whether the iterator still stands on that key.
func (s *Scanner) visibleForward() (visible, onKey bool) {
	for steps := 0; s.it.TS() > s.o.TS; steps++ {
		var ok bool
		if steps < maxSteps {
			ok = s.it.Next()
		} else {
			ok = s.it.SeekVersion(s.skey, s.o.TS)
		}
		if !ok || !bytes.Equal(s.it.Key(), s.skey) {
			return false, false
		}
	}
	for {
		w, ok := s.record()
		if !ok || !w.FenceValid(s.o.TS) || w.Type == WriteDelete {
			return false, true
		}
		if w.Type == WritePut {
			s.svalue = w.Value
			if !w.HasValue {
				s.load(w.StartTS)
			}
			return s.err == nil, true
		}
		if !s.it.Next() || !bytes.Equal(s.it.Key(), s.skey) {
			return false, false
		}
	}
}

// prevKey finds the next visible pair going backward. It walks the records of a
// key from the oldest on, and remembers what the value is so far.
func (s *Scanner) prevKey() bool {
	if !s.started {
		s.started = true
		s.onEntry = s.it.Last()
	}
	for s.onEntry && s.err == nil {
		s.skey = append(s.skey[:0], s.it.Key()...)
		visible := s.visibleBackward()
		if s.err != nil {
			return false
		}
		if visible {
			s.svalue = s.scratch
			if s.long {
				s.load(s.startTS)
			}
			return s.err == nil
		}
	}
	s.fail(s.it.Err())
	return false
}

// visibleBackward leaves the iterator on the oldest record of the preceding key.
func (s *Scanner) visibleBackward() (visible bool) {
	for steps := 0; ; steps++ {
		if s.it.TS() > s.o.TS {
			s.onEntry = s.it.SeekLT(s.skey)
			return visible
		}
		if steps == maxSteps {
			return s.visibleBySeek()
		}
		w, ok := s.record()
		if !ok {
			return false
		}
		switch {
		case !w.FenceValid(s.o.TS) || w.Type == WriteDelete:
			visible = false
		case w.Type == WritePut:
			visible = true
			s.hold(w)
		}
		if s.onEntry = s.it.Prev(); !s.onEntry || !bytes.Equal(s.it.Key(), s.skey) {
			return visible
		}
	}
}

func (s *Scanner) visibleBySeek() (visible bool) {
	if s.it.SeekVersion(s.skey, s.o.TS) && bytes.Equal(s.it.Key(), s.skey) {
		visible, _ = s.visibleForward()
		if visible {
			s.scratch = append(s.scratch[:0], s.svalue...)
			s.long = false
		}
	}
	s.onEntry = s.it.SeekLT(s.skey)
	return visible
}

// hold remembers the value of a Put while the iterator moves on.
func (s *Scanner) hold(w Write) {
	s.scratch = append(s.scratch[:0], w.Value...)
	s.startTS, s.long = w.StartTS, !w.HasValue
}

func (s *Scanner) record() (w Write, ok bool) {
	v, err := s.it.Value()
	if err == nil {
		w, err = ParseWrite(v)
	}
	if err != nil {
		s.fail(fmt.Errorf("write of key %x at %d: %w", s.it.Key(), s.it.TS(), err))
		return Write{}, false
	}
	return w, true
}

// load sets svalue to the long value of skey.
func (s *Scanner) load(startTS uint64) {
	if s.o.KeyOnly {
		s.svalue = nil
		return
	}
	v, err := s.LongValue(s.skey, startTS)
	if err != nil {
		s.fail(err)
		return
	}
	s.svalue = v
}

// LongValue returns the value of key written by the transaction startTS, from
// the scanner's view. Valid until the next call or Next.
func (s *Scanner) LongValue(key []byte, startTS uint64) ([]byte, error) {
	if !s.open() {
		return nil, s.err
	}
	if s.d == nil {
		d, err := s.it.Clone(engine.CFDefault)
		if err != nil {
			return nil, fmt.Errorf("mvcc: read value: %w", err)
		}
		s.d = d
	}
	return longValue(s.d, key, startTS)
}

func (s *Scanner) fail(err error) {
	if s.err == nil {
		s.err = err
	}
}

// Fill appends pairs to block until limit pairs (0 = no limit) or byteLimit bytes
// are there, at least one, and reports whether it stopped at a limit; the last
// key delivered then is Key. The block's slices grow once or twice a page.
func (s *Scanner) Fill(block *kvpb.KvBlock, limit, byteLimit int) (more bool, err error) {
	if s.o.Runs && len(s.o.Overlay) == 0 {
		return s.fillRuns(block, limit, byteLimit)
	}
	for n := 1; s.Next(); n++ {
		if s.put(block, n, limit, byteLimit) {
			return true, nil
		}
	}
	return false, s.err
}

// put appends the current pair, the nth, and reports whether a limit is reached.
func (s *Scanner) put(block *kvpb.KvBlock, n, limit, byteLimit int) (full bool) {
	if len(block.Offsets) == 0 {
		hint := 256
		if limit > 0 {
			hint = min(limit, 4096)
		}
		if cap(block.Offsets) == 0 {
			block.Offsets = make([]uint32, 0, 2*hint+1)
			block.Data = make([]byte, 0, min(hint*(len(s.key)+len(s.value)+16), byteLimit+len(s.key)+len(s.value)))
		}
		block.Offsets = append(block.Offsets, 0)
	}
	block.Data = append(block.Data, s.key...)
	block.Offsets = append(block.Offsets, uint32(len(block.Data)))
	if !s.o.KeyOnly {
		block.Data = append(block.Data, s.value...)
	}
	block.Offsets = append(block.Offsets, uint32(len(block.Data)))
	return n == limit || len(block.Data) >= byteLimit
}
