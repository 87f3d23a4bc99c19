//go:build !race

package store

// crashSeeds is how many crashes one run of the crash test tries.
const crashSeeds = 200
