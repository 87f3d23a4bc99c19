package mvcc

import (
	"slices"

	"github.com/cairndb/cairn/kvnode/engine"
)

// headBytes is more than a record's bytes besides its keys and value.
const headBytes = 64

// Writer adds records to a batch. The zero value with Batch set is ready; the
// scratch buffer is reused from record to record.
type Writer struct {
	Batch *engine.Batch
	buf   []byte
}

// PutLock writes the lock of key.
func (w *Writer) PutLock(key []byte, l *Lock) {
	w.buf = l.AppendTo(slices.Grow(w.buf[:0], headBytes+len(l.Primary)+len(l.ShortValue)))
	w.Batch.Set(engine.CFLock, key, w.buf)
}

// DeleteLock removes the lock of key.
func (w *Writer) DeleteLock(key []byte) { w.Batch.Delete(engine.CFLock, key) }

// PutWrite writes the record of key at commitTS.
func (w *Writer) PutWrite(key []byte, commitTS uint64, rec *Write) {
	w.buf = rec.AppendTo(slices.Grow(w.buf[:0], headBytes+len(rec.Value)))
	w.Batch.SetVersioned(engine.CFWrite, key, commitTS, w.buf)
}

// DeleteWrite removes the record of key at commitTS.
func (w *Writer) DeleteWrite(key []byte, commitTS uint64) {
	w.Batch.DeleteVersioned(engine.CFWrite, key, commitTS)
}

// PutValue writes a long value of the transaction startTS.
func (w *Writer) PutValue(key []byte, startTS uint64, value []byte) {
	w.Batch.SetVersioned(engine.CFDefault, key, startTS, value)
}

// DeleteValue removes a long value.
func (w *Writer) DeleteValue(key []byte, startTS uint64) {
	w.Batch.DeleteVersioned(engine.CFDefault, key, startTS)
}
