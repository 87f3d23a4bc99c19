package chunk

import (
	"testing"

	"github.com/cairndb/cairn/internal/types"
)

// A NULL early in a column must not make reading rows of later words go astray.
func TestRowsAfterTheWordOfTheLastNull(t *testing.T) {
	c := NewColumn(types.NewInt(), 0)
	c.AppendNull()
	for i := range 200 {
		c.AppendInt(int64(i))
	}
	for r := 1; r < c.Len(); r++ {
		if c.IsNull(r) || c.Value(r).Int() != int64(r-1) {
			t.Fatalf("row %d: want %d, got %v %d", r, r-1, c.IsNull(r), c.Value(r).Int())
		}
	}
	c.Truncate(0)
	c.AppendInt(1)
	if c.IsNull(0) || c.HasNull() {
		t.Error("a NULL is left after Truncate")
	}
}
