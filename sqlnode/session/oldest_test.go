package session_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// What a session may still read holds the safe point back, and nothing else does.
func TestSessionsTellHowFarBackTheyRead(t *testing.T) {
	e := newEngine(t)
	c := connect(t, e, 1)
	before := oldTable(t, e, c)
	oldest := func() (uint64, string) { return e.OldestRead(now(t, e)) }
	nobody := func() {
		t.Helper()
		ts, who := oldest()
		require.Zero(t, ts, who)
	}
	nobody()

	began := now(t, e)
	c.do("BEGIN")
	c.do("SELECT * FROM t")
	ts, who := oldest()
	require.LessOrEqual(t, ts, began)
	require.Greater(t, ts, began-uint64(time.Minute.Milliseconds())<<18)
	require.Equal(t, "a transaction of connection 1", who)
	c.do("COMMIT")
	nobody()

	c.do(fmt.Sprintf("START TRANSACTION READ ONLY AS OF TIMESTAMP %d", before))
	ts, who = oldest()
	require.LessOrEqual(t, ts, before)
	require.Contains(t, who, "transaction")
	c.do("ROLLBACK")
	nobody()

	c.do(fmt.Sprintf("SET cairn_snapshot = %d", before))
	ts, who = oldest()
	require.Equal(t, before, ts)
	require.Contains(t, who, "cairn_snapshot")
	c.do("SET cairn_snapshot = ''")
	nobody()
	c.do(fmt.Sprintf("SELECT * FROM t AS OF TIMESTAMP %d", before))
	nobody()
}

func TestTheLifeTimeOfVersionsIsAVariable(t *testing.T) {
	e := newEngine(t)
	c := connect(t, e, 1)
	require.Equal(t, "[@@cairn_gc_life_time|@@tidb_gc_life_time]\n10m0s|10m0s\n", c.do("SELECT @@cairn_gc_life_time, @@tidb_gc_life_time"))
	require.NotContains(t, c.do("SET GLOBAL tidb_gc_life_time = '90m'"), "error")
	require.Equal(t, "[@@cairn_gc_life_time]\n1h30m0s\n", c.do("SELECT @@cairn_gc_life_time"))
	require.Contains(t, c.do("SET GLOBAL cairn_gc_life_time = 'soon'"), "error 1231")
	require.Contains(t, c.do("SET cairn_gc_life_time = '1h'"), "error 1229")
	require.NotContains(t, c.do("SET GLOBAL cairn_gc_life_time = '1s'"), "error")
	require.Equal(t, "[@@cairn_gc_life_time]\n10s\n", c.do("SELECT @@cairn_gc_life_time"), "clipped")
}
