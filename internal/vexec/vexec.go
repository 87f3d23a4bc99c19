// Package vexec holds the query operators that SQL nodes and KV nodes both run: filter, project, limit, top-N, hash
// aggregate, distinct. They pull batches of rows from each other.
//
// An operator is used by one goroutine: Open once, Next until it leaves the batch without rows, Close once, also after an
// error and after a failed Open. An operator owns its input and opens and closes it. Open may be called again after Close:
// the operator then starts over.
//
// Expressions are evaluated in the expr.Env the operator was built with; its sticky error ends the operator at the batch
// in which it occurred. Memory that grows with the input is charged to the statement's Tracker.
package vexec

import (
	"context"

	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/types"
)

// Operator produces rows.
type Operator interface {
	// Open prepares the operator and its inputs. It does not have to produce rows yet.
	Open(ctx context.Context) error
	// Next replaces the contents of b, whose columns have the types of Types, by the next rows. No rows means the end; Next
	// is not called again after it. The rows stay valid until the next call with the same b. b may come back with a
	// selection vector; the caller counts and visits rows through it.
	Next(ctx context.Context, b *chunk.Batch) error
	// Close releases what the operator holds. It must not be called while Next runs.
	Close() error
	// Types are the types of the columns the operator produces.
	Types() []types.Type
}
