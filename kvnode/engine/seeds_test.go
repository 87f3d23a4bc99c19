//go:build !race

package engine

const (
	crashSeeds = 400
	runSeeds   = 12
)
