package optimizer

import (
	"testing"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/sqlnode/binder/bindtest"
	"github.com/cairndb/cairn/sqlnode/parse"
)

const benchSchema = `CREATE TABLE sbtest1(id INTEGER NOT NULL AUTO_INCREMENT, k INTEGER DEFAULT '0' NOT NULL, c CHAR(120) DEFAULT '' NOT NULL,
 pad CHAR(60) DEFAULT '' NOT NULL, PRIMARY KEY (id), KEY k_1 (k))`

// BenchmarkPlan measures bind and optimise, without parsing: what a text-protocol statement pays each time.
func BenchmarkPlan(b *testing.B) {
	snap, err := bindtest.Snapshot(benchSchema)
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct{ name, sql string }{
		{"PointSelect", "SELECT c FROM sbtest1 WHERE id=5"},
		{"RangeSelect", "SELECT c FROM sbtest1 WHERE id BETWEEN 5 AND 104"},
		{"SumRange", "SELECT SUM(k) FROM sbtest1 WHERE id BETWEEN 5 AND 104"},
		{"OrderRange", "SELECT c FROM sbtest1 WHERE id BETWEEN 5 AND 104 ORDER BY c"},
		{"PointUpdate", "UPDATE sbtest1 SET k=k+1 WHERE id=7"},
		{"PointDelete", "DELETE FROM sbtest1 WHERE id=7"},
		{"Insert", "INSERT INTO sbtest1 (id, k, c, pad) VALUES (1, 2, 'aaaaaaaa', 'bbbbb')"},
	} {
		b.Run(c.name, func(b *testing.B) {
			n, err := parse.New().ParseOne(c.sql, 0, charset.Default)
			if err != nil {
				b.Fatal(err)
			}
			ctx := testContext(snap)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Plan(ctx, n); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("PreparedPoint", func(b *testing.B) {
		n, err := parse.New().ParseOne("SELECT c FROM sbtest1 WHERE id=?", 0, charset.Default)
		if err != nil {
			b.Fatal(err)
		}
		ctx := testContext(snap)
		ctx.ParamTypes = []types.Type{types.NewInt()}
		b.ReportAllocs()
		for b.Loop() {
			if _, err := Plan(ctx, n); err != nil {
				b.Fatal(err)
			}
		}
	})
}
