//go:build race

package engine

const (
	crashSeeds = 40
	runSeeds   = 2
)
