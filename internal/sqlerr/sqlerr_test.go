package sqlerr

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTableIsSortedAndWellFormed(t *testing.T) {
	var last uint16
	for _, m := range slices.Concat(messagesBase, messagesMore, messagesCluster) {
		require.Greater(t, m.code, last, "numbers ascend")
		last = m.code
		require.Len(t, m.state, 5, "%d", m.code)
		require.NotEmpty(t, m.text, "%d", m.code)
		require.NotContains(t, m.text, "%v", "%d", m.code)
		got, ok := lookup(m.code)
		require.True(t, ok)
		require.Equal(t, m, got)
	}
}

func TestTextsClientsParse(t *testing.T) {
	for _, c := range []struct {
		err  *Error
		want string
	}{
		{New(ErrDupEntry, "1", "t.PRIMARY"), "ERROR 1062 (23000): Duplicate entry '1' for key 't.PRIMARY'"},
		{New(ErrNoSuchTable, "test", "t"), "ERROR 1146 (42S02): Table 'test.t' doesn't exist"},
		{New(ErrBadField, "x", "field list"), "ERROR 1054 (42S22): Unknown column 'x' in 'field list'"},
		{New(ErrBadNull, "a"), "ERROR 1048 (23000): Column 'a' cannot be null"},
		{New(ErrBadDB, "nope"), "ERROR 1049 (42000): Unknown database 'nope'"},
		{New(ErrLockDeadlock), "ERROR 1213 (40001): Deadlock found when trying to get lock; try restarting transaction"},
		{New(ErrLockWaitTimeout), "ERROR 1205 (HY000): Lock wait timeout exceeded; try restarting transaction"},
		{New(ErrDataTooLong, "a", 1), "ERROR 1406 (22001): Data too long for column 'a' at row 1"},
		{New(ErrDataTruncated, "a", 1), "ERROR 1265 (01000): Data truncated for column 'a' at row 1"},
		{New(ErrDataOutOfRange, "BIGINT", "(1 + 2)"), "ERROR 1690 (22003): BIGINT value is out of range in '(1 + 2)'"},
		{New(ErrCheckConstraintViolated, "c"), "ERROR 3819 (HY000): Check constraint 'c' is violated."},
		{New(ErrTruncatedWrongValue, "DOUBLE", "abc"), "ERROR 1292 (22007): Truncated incorrect DOUBLE value: 'abc'"},
		{New(ErrNoDB), "ERROR 1046 (3D000): No database selected"},
		{New(ErrNoDefaultForField, "a"), "ERROR 1364 (HY000): Field 'a' doesn't have a default value"},
		{New(ErrUnknownStmtHandler, 4, "stmt", "EXECUTE"), "ERROR 1243 (HY000): Unknown prepared statement handler (stmt) given to EXECUTE"},
		{New(60000), "ERROR 60000 (HY000): Unknown error 60000"},
		{Newf(ErrUnknown, "100% sure"), "ERROR 1105 (HY000): 100% sure"},
	} {
		require.Equal(t, c.want, c.err.Error())
	}
}

func TestAsFindsErrorInChain(t *testing.T) {
	err := fmt.Errorf("insert: %w", New(ErrDupEntry, "1", "k"))
	e, ok := As(err)
	require.True(t, ok)
	require.EqualValues(t, ErrDupEntry, e.Code)
	require.EqualValues(t, ErrDupEntry, Code(err))
	require.True(t, errors.Is(err, &Error{Code: ErrDupEntry}))
	require.Zero(t, Code(errors.New("x")))
	require.EqualValues(t, ErrUnknown, From(errors.New("x")).Code)
	require.Nil(t, From(nil))
	require.True(t, strings.HasPrefix(e.Warning(Note).Msg, "Duplicate"))
	require.Equal(t, "Note", Note.String())
}
