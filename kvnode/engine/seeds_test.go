//go:build !race

package engine

const crashSeeds = 400
