//go:build race

package store

// crashSeeds is lower where everything takes ten times as long.
const crashSeeds = 50
