//go:build !cgo

package memory

// OffHeap says that the storage engine has its block cache and memtables outside of Go's heap.
const OffHeap = false
