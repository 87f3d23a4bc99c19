package engine

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// BenchmarkPressure: it is asked up to 70 times a second.
func BenchmarkPressure(b *testing.B) {
	db := sized(b, "numbers", "both", 64<<20, 500)
	defer func() { require.NoError(b, db.Close()) }()
	for b.Loop() {
		db.Pressure()
	}
}
