//go:build race

package kvpb

// poison makes the use of a recycled block show: the tests that look for races look for
// that, too.
const poison = true
