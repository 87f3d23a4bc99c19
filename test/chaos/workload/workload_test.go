package workload

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/cairndb/cairn/test/isolation"
	"github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/require"
)

func TestWhatAnErrorSaysOfAStatement(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want outcome
	}{
		{nil, succeeded},
		{fmt.Errorf("%w: refused", errNotConnected), failed},
		{driver.ErrBadConn, failed},
		{&mysql.MySQLError{Number: 9005}, failed},
		{&mysql.MySQLError{Number: 1213}, failed},
		{&mysql.MySQLError{Number: undetermined}, unknown},
		{mysql.ErrInvalidConn, unknown},
		{io.ErrUnexpectedEOF, unknown},
		{context.DeadlineExceeded, unknown},
	} {
		require.Equal(t, tc.want, outcomeOf(tc.err), "%v", tc.err)
	}
	require.True(t, Retryable(kindOf(&mysql.MySQLError{Number: 1213})))
	require.True(t, Retryable(kindOf(mysql.ErrInvalidConn)))
	require.False(t, Retryable(kindOf(&mysql.MySQLError{Number: 1105})))
	require.False(t, Retryable(kindOf(context.DeadlineExceeded)))
	require.Equal(t, KindNotConnected, kindOf(fmt.Errorf("%w: %w", errNotConnected, errors.New("refused"))))
}

func TestRowsThatAreLostOrThereTwiceAreFound(t *testing.T) {
	e := func(n int64) entry { return entry{1, n} }
	want := map[entry]outcome{e(1): succeeded, e(2): failed, e(3): unknown, e(4): unknown}
	require.Empty(t, compare("t", want, map[entry]int{e(1): 1, e(3): 1}))
	for text, got := range map[string]map[entry]int{
		"t: acknowledged and lost: 1, such as [row 1 of client 1]":    {},
		"t: there more than once: 1, such as [row 1 of client 1]":     {e(1): 2},
		"t: refused and there: 1, such as [row 2 of client 1]":        {e(1): 1, e(2): 1},
		"t: never inserted and there: 1, such as [row 9 of client 1]": {e(1): 1, e(9): 1},
	} {
		require.Equal(t, []string{text}, compare("t", want, got))
	}
	require.Len(t, difference("t", map[entry]int{e(1): 1}, map[entry]int{e(2): 1}), 1)
	require.Empty(t, difference("t", map[entry]int{e(1): 1}, map[entry]int{e(1): 1}))
}

// op is an operation on register 1 from one second to another; until 0 it has no answer.
func op(kind actKind, from, to int64, out answer, call, until int64) porcupine.Operation {
	o := porcupine.Operation{Input: act{id: 1, kind: kind, from: from, to: to}, Output: out, Call: call, Return: until}
	if until == 0 {
		o.Return = math.MaxInt64
	}
	return o
}

func TestHistoriesOfRegisters(t *testing.T) {
	known := func(v int64) answer { return answer{known: true, v: v} }
	set := func(ok bool) answer { return answer{known: true, ok: ok} }
	for name, tc := range map[string]struct {
		h    []porcupine.Operation
		want bool
	}{
		"a read sees the last write":         {[]porcupine.Operation{op(actWrite, 0, 5, known(0), 1, 2), op(actRead, 0, 0, known(5), 3, 4)}, true},
		"a stale read":                       {[]porcupine.Operation{op(actWrite, 0, 5, known(0), 1, 2), op(actRead, 0, 0, known(0), 3, 4)}, false},
		"a read back in time":                {[]porcupine.Operation{op(actWrite, 0, 5, known(0), 1, 9), op(actRead, 0, 0, known(5), 2, 3), op(actRead, 0, 0, known(0), 4, 5)}, false},
		"a lost write":                       {[]porcupine.Operation{op(actWrite, 0, 5, known(0), 1, 2), op(actSet, 0, 6, set(true), 3, 4)}, false},
		"a set that failed for no reason":    {[]porcupine.Operation{op(actSet, 0, 6, set(false), 3, 4)}, false},
		"a write without answer comes late":  {[]porcupine.Operation{op(actWrite, 0, 5, answer{}, 1, 0), op(actRead, 0, 0, known(0), 3, 4), op(actRead, 0, 0, known(5), 5, 6)}, true},
		"a write without answer never comes": {[]porcupine.Operation{op(actWrite, 0, 5, answer{}, 1, 0), op(actRead, 0, 0, known(0), 3, 4)}, true},
		"it does not come and go":            {[]porcupine.Operation{op(actWrite, 0, 5, answer{}, 1, 0), op(actRead, 0, 0, known(5), 3, 4), op(actRead, 0, 0, known(0), 5, 6)}, false},
		"a set without answer":               {[]porcupine.Operation{op(actSet, 0, 6, answer{}, 1, 0), op(actRead, 0, 0, known(6), 3, 4)}, true},
	} {
		require.Equal(t, tc.want, porcupine.CheckOperations(register, tc.h), name)
		r := registers{history: tc.h}
		wrong, err := r.check(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, tc.want, len(wrong) == 0, name)
	}
}

func TestGapsAreMeasuredFromSuccessToSuccess(t *testing.T) {
	l := &Load{beats: newBeats(2)}
	at := func(d time.Duration) time.Time { return l.beats.began.Add(d) }
	l.beats.began = l.beats.began.Add(-10 * time.Second)
	for i := range l.beats.last {
		l.beats.last[i] = at(0)
	}
	l.beats.anyLast = at(0)
	l.beats.success(0, at(1*time.Second))
	l.beats.success(1, at(1500*time.Millisecond))
	l.Mark()
	l.beats.success(0, at(4*time.Second))
	l.beats.success(1, at(9*time.Second))
	g := l.Gaps()
	require.Equal(t, 7500*time.Millisecond, g.Clients[1])
	require.Equal(t, 5*time.Second, g.Any)
	require.GreaterOrEqual(t, g.Clients[0], 6*time.Second, "the open one counts")
	require.Equal(t, 2, l.Successes(at(2*time.Second), at(10*time.Second)))
	require.Equal(t, 1, l.Successes(at(0), at(1500*time.Millisecond)))
}

func TestListsAreReadAsTheyAreWritten(t *testing.T) {
	got, err := parseList(",3,14,15")
	require.NoError(t, err)
	require.Equal(t, []isolation.Version{3, 14, 15}, got)
	got, err = parseList("")
	require.NoError(t, err)
	require.Empty(t, got)
	_, err = parseList(",3,x")
	require.Error(t, err)
}

// A serializable transaction that has written nothing shows its snapshot; what it has read is not asked for at
// a commit. One that has written something shows its commit.
func TestWhichMomentsTransactionsShow(t *testing.T) {
	serializable := listModes[slices.IndexFunc(listModes, func(m listMode) bool { return m.name == "serializable" })]
	read := isolation.ListOp{Key: "1", At: isolation.AtCommit}
	only := &isolation.ListTxn{Ops: []isolation.ListOp{read}, Commit: isolation.Span{From: 1, To: 2}}
	var l lists
	l.settle(serializable, only)
	require.Equal(t, isolation.AtStart, only.Ops[0].At)
	require.Zero(t, only.Commit)
	both := &isolation.ListTxn{Ops: []isolation.ListOp{read, {Key: "1", Append: 1, At: isolation.AtCommit}}, Commit: isolation.Span{From: 1, To: 2}}
	l.settle(serializable, both)
	require.Equal(t, isolation.AtCommit, both.Ops[0].At)
	require.NotZero(t, both.Commit)
}

func TestCountersThatLoseUpdatesAreFound(t *testing.T) {
	counted := func(unknown int, values ...int64) *counters {
		k := &counters{known: map[int64]map[int64]string{7: {}}, unknown: map[int64]int{7: unknown}}
		for _, v := range values {
			k.note(made{7: v}, fmt.Sprintf("the client of %d", v))
		}
		return k
	}
	for name, tc := range map[string]struct {
		k    *counters
		last int64
		want []string
	}{
		"each once":             {counted(0, 1, 2, 3), 3, nil},
		"one unknown was there": {counted(1, 1, 3), 3, nil},
		"it was not":            {counted(1, 1, 2), 2, nil},
		"two made the same": {counted(1, 1, 2, 2), 3, []string{
			"counters: lost update: counter 7 was made 2 by the client of 2 and by the client of 2"}},
		"more than were counted": {counted(0, 1, 2), 3, []string{"counters: counter 7 is 3; it was counted up 2 times, and 0 times perhaps"}},
		"one is gone": {counted(0, 1, 2), 1, []string{"counters: counter 7 is 1; it was counted up 2 times, and 0 times perhaps",
			"counters: counter 7 is 1 in the end, and was made 2 by the client of 2"}},
	} {
		tc.k.compare(map[int64]int64{7: tc.last})
		require.Equal(t, tc.want, tc.k.wrong, name)
	}
}
