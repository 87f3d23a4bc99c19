package session_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Somebody is always on call: everybody looks whether another one is before they leave. That is what write skew
// breaks, and with rows that come and go phantoms do; both kinds of transactions are tried at once.
func TestSerializableKeepsWhatSnapshotsDoNot(t *testing.T) {
	e := newEngine(t)
	root := connect(t, e, 1)
	root.do("CREATE DATABASE d")
	for _, sql := range []string{
		"CREATE TABLE d.duty (team INT, name INT, on_call INT, PRIMARY KEY (team, name))",
		"CREATE TABLE d.present (id INT PRIMARY KEY, team INT, KEY (team))",
		"INSERT INTO d.duty VALUES (1,0,1),(1,1,1),(1,2,1),(1,3,1),(2,0,1),(2,1,1),(2,2,1),(2,3,1)",
		"INSERT INTO d.present VALUES (0,1),(1,1),(2,1),(3,1)",
	} {
		require.Contains(t, root.do(sql), "ok", sql)
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	var wg sync.WaitGroup
	left := make([]int, 4)
	for name := range 4 {
		c := connect(t, e, uint64(10+name))
		c.do("USE d")
		c.do("SET transaction_isolation = 'SERIALIZABLE'")
		if name%2 == 1 {
			c.do("SET cairn_txn_mode = 'optimistic'")
		}
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(name)))
			for range 40 {
				if change(t, c, rng, name) {
					left[name]++
				}
			}
		})
	}
	wg.Wait()
	for name, n := range left {
		require.NotZero(t, n, "%d never came through", name)
	}
}

// change is one transaction, which may fail with 1213. It reports whether it has committed.
func change(t *testing.T, c *client, rng *rand.Rand, name int) bool {
	one := func(sql string) string {
		out := c.do(sql)
		if strings.HasPrefix(out, "error") {
			if !strings.HasPrefix(out, "error 1213") {
				t.Errorf("%s: %s", sql, out)
			}
			c.do("ROLLBACK")
			return ""
		}
		return strings.TrimSpace(out[strings.Index(out, "\n")+1:])
	}
	c.do("BEGIN")
	team := 1 + rng.IntN(2)
	on, put, drop := fmt.Sprintf("SELECT COUNT(*) FROM duty WHERE team = %d AND on_call = 1", team),
		fmt.Sprintf("UPDATE duty SET on_call = 1 WHERE team = %d AND name = %d", team, name),
		fmt.Sprintf("UPDATE duty SET on_call = 0 WHERE team = %d AND name = %d", team, name)
	if rng.IntN(3) == 0 {
		on, put = "SELECT COUNT(*) FROM present WHERE team = 1", fmt.Sprintf("REPLACE INTO present VALUES (%d, 1)", name)
		drop = fmt.Sprintf("DELETE FROM present WHERE id = %d", name)
	}
	switch got := one(on); got {
	case "":
		return false
	case "0":
		t.Errorf("%s: nobody is left", on)
		return false
	case "1":
		if one(put) == "" && !c.InTransaction() {
			return false
		}
	default:
		if one(drop) == "" && !c.InTransaction() {
			return false
		}
	}
	return strings.HasPrefix(c.do("COMMIT"), "ok")
}
