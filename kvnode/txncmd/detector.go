package txncmd

import "github.com/cairndb/cairn/proto/kvpb"

// Detector finds deadlocks among transactions that wait for locks anywhere in the
// cluster. Safe for concurrent use.
type Detector interface {
	// Wait announces that the transaction waiter waits for holder on key until the
	// returned stop is called. found receives at most one error, now or later, if that
	// closes a cycle. Of a waiter with spare another one in the cycle is told, if there is one without. info says who
	// waits, for people. Wait must not block; it may keep the slices. One transaction may wait in several places, and for several holders on
	// one key.
	Wait(waiter, holder uint64, key []byte, info []byte, spare bool) (found <-chan *kvpb.Deadlock, stop func())
}
