package kvnode

import "github.com/cairndb/cairn/kvnode/store"

// Recovery is what UnsafeRecover did, or would do; see store.UnsafeRecover.
type Recovery = store.Recovery

// UnsafeRecover lets the regions in the directory of a node that is not running go
// on without stores that are lost for good. Writes may be lost. Without apply it
// only tells what it would do. See store.UnsafeRecover.
func UnsafeRecover(dataDir string, lost []uint64, apply bool) (*Recovery, error) {
	return store.UnsafeRecover(store.RecoverOptions{Dir: dataDir, Lost: lost, Apply: apply})
}
