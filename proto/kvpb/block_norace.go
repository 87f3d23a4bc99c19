//go:build !race

package kvpb

const poison = false
