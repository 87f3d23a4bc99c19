//go:build !unix

package store

import "time"

// processorTime is what the process has used of the processors. This system is not asked:
// regions are not cut for their load, unless --region-split-qps says when.
func processorTime() time.Duration { return 0 }
