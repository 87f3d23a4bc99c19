package concurrency

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// churn inserts, updates and deletes rows of w (id, v, s) until ctx ends.
// allowed are the errors that do not matter.
func churn(c *cluster, id int, allowed ...uint16) func(ctx context.Context) error {
	db, rng := c.nodes[id%len(c.nodes)], rand.New(rand.NewPCG(c.seed, uint64(1000+id)))
	return func(ctx context.Context) error {
		for n := 0; ctx.Err() == nil; n++ {
			key := rng.IntN(200)
			var err error
			switch rng.IntN(4) {
			case 0:
				_, err = db.Exec("REPLACE INTO w (id, v, s) VALUES (?, ?, ?)", key, key*1000+rng.IntN(1000), fmt.Sprint("s", rng.IntN(30)))
			case 1:
				_, err = db.Exec("UPDATE w SET v = ?, s = ? WHERE id = ?", key*1000+rng.IntN(1000), fmt.Sprint("s", rng.IntN(30)), key)
			case 2:
				_, err = db.Exec("DELETE FROM w WHERE id = ?", key)
			case 3:
				err = transact(db, func(tx *sql.Tx) error {
					if _, err := tx.Exec("DELETE FROM w WHERE id = ?", key); err != nil {
						return err
					}
					_, err := tx.Exec("INSERT INTO w (id, v, s) VALUES (?, ?, ?)", key, key*1000+rng.IntN(1000), "t")
					return err
				})
			}
			if err != nil && !slices.Contains(allowed, code(err)) {
				return fmt.Errorf("writer %d: %w", id, err)
			}
		}
		return nil
	}
}

func startChurn(t *testing.T, c *cluster, allowed ...uint16) (stop func()) {
	var stops []func()
	for i := range 6 {
		stops = append(stops, meanwhile(t, churn(c, i, allowed...)))
	}
	return func() {
		for _, s := range stops {
			s()
		}
	}
}

// indexUnderWrites makes and drops indexes while both nodes write, and compares
// each index with its table, in one snapshot, while it is written and after.
func indexUnderWrites(t *testing.T, c *cluster) {
	must(t, c.nodes[0], "CREATE TABLE w (id INT PRIMARY KEY, v INT NOT NULL, s VARCHAR(10))")
	for i := range 200 {
		must(t, c.nodes[0], "INSERT INTO w VALUES (?, ?, 'x')", i, i*1000)
	}
	made := 0
	for c.restart(); made < 2 || !c.over(); made++ {
		stop := startChurn(t, c, 1062, 1213, 1412)
		db := c.nodes[made%len(c.nodes)]
		must(t, db, "CREATE INDEX plain ON w (s, v)")
		must(t, c.nodes[(made+1)%len(c.nodes)], "CREATE UNIQUE INDEX one ON w (v)")
		for i := range 4 {
			for _, err := range []error{
				sameRows(c.nodes[i%len(c.nodes)], "w", "plain", "s, v, id", "s >= ''"),
				sameRows(c.nodes[i%len(c.nodes)], "w", "one", "v, id", "v >= 0"),
			} {
				if err != nil {
					t.Error(err)
				}
			}
		}
		stop()
		for _, node := range c.nodes {
			for _, err := range []error{sameRows(node, "w", "plain", "s, v, id", "s >= ''"), sameRows(node, "w", "one", "v, id", "v >= 0")} {
				if err != nil {
					t.Error(err)
				}
			}
		}
		if t.Failed() {
			return
		}
		must(t, db, "DROP INDEX plain ON w")
		must(t, db, "DROP INDEX one ON w")
	}
	t.Logf("%d times", made)
}

// schemaUnderLoad changes a table in every way while both nodes use it. Writers
// and readers may be told that the schema changed, and nothing else.
func schemaUnderLoad(t *testing.T, c *cluster) {
	must(t, c.nodes[0], "CREATE TABLE w (id INT PRIMARY KEY, v INT NOT NULL, s VARCHAR(10))")
	for i := range 100 {
		must(t, c.nodes[0], "INSERT INTO w VALUES (?, ?, 'x')", i, i*1000)
	}
	gone := []uint16{1213, 1412, 1146} // a conflict, a changed table, a table renamed away
	stopWriters := startChurn(t, c, gone...)
	stopReader := meanwhile(t, func(ctx context.Context) error {
		for i := 0; ctx.Err() == nil; i++ {
			bad, err := number(c.nodes[i%len(c.nodes)], "SELECT COUNT(*) FROM w WHERE v DIV 1000 <> id OR s IS NULL")
			if err != nil && !slices.Contains(gone, code(err)) {
				return err
			}
			if bad != 0 {
				return fmt.Errorf("%d rows nobody wrote", bad)
			}
		}
		return nil
	})
	changes := []string{
		"ALTER TABLE w ADD COLUMN extra INT NOT NULL DEFAULT 5",
		"CREATE INDEX i ON w (s)",
		"ALTER TABLE w DROP COLUMN extra",
		"ALTER TABLE w ADD COLUMN extra VARCHAR(5) DEFAULT 'new'",
		"DROP INDEX i ON w",
		"RENAME TABLE w TO w2",
		"RENAME TABLE w2 TO w",
		"TRUNCATE TABLE w",
		"ALTER TABLE w DROP COLUMN extra",
	}
	done := 0
	for c.restart(); done < len(changes) || !c.over(); done++ {
		db := c.nodes[done%len(c.nodes)]
		change := changes[done%len(changes)]
		if _, err := db.Exec(change); err != nil {
			t.Errorf("%s: %v", change, err)
			break
		}
		if change == changes[0] || change == changes[3] {
			want := map[string]string{changes[0]: "5", changes[3]: "new"}[change]
			if n, err := number(c.nodes[(done+1)%len(c.nodes)], "SELECT COUNT(*) FROM w WHERE extra IS NULL OR extra <> ?", want); err != nil || n != 0 {
				t.Errorf("after %s on the other node: %d rows without the default, %v", change, n, err)
			}
		}
	}
	stopWriters()
	stopReader()
	t.Logf("%d changes", done)
}

// newTableElsewhere makes tables and changes on one node: the other knows them
// when the statement returns.
func newTableElsewhere(t *testing.T, c *cluster) {
	n := 0
	for ; !c.over() || n < 3; n++ {
		a, b := c.nodes[n%len(c.nodes)], c.nodes[(n+1)%len(c.nodes)]
		table := fmt.Sprint("t", n)
		must(t, a, "CREATE TABLE "+table+" (id INT PRIMARY KEY)")
		must(t, b, "INSERT INTO "+table+" VALUES (1)")
		must(t, b, "ALTER TABLE "+table+" ADD COLUMN c INT DEFAULT 3")
		if got, err := number(a, "SELECT c FROM "+table+" WHERE id = 1"); err != nil || got != 3 {
			t.Errorf("column made on the other node: %d, %v", got, err)
		}
		must(t, a, "DROP TABLE "+table)
		if _, err := b.Exec("INSERT INTO " + table + " VALUES (2)"); code(err) != 1146 {
			t.Errorf("a table dropped on the other node: %v", err)
		}
		if t.Failed() {
			return
		}
	}
	t.Logf("%d tables", n)
}
