package session

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/kvnode/kvclient"
	"github.com/cairndb/cairn/kvnode/kvclient/txn"
)

// A client sees what it may do: run the transaction again (1213, 1205), wait for a
// repair (1021, 9001, 9003, 9005), or find out what became of its commit (8501).
func TestErrorsOfAFailover(t *testing.T) {
	e, err := NewEngine(Options{})
	require.NoError(t, err)
	s := &Session{engine: e}
	killed, cancel := context.WithCancelCause(context.Background())
	cancel(errKilledQuery)
	for _, tc := range []struct {
		err  error
		ctx  context.Context
		code uint16
		text string
	}{
		{err: &txn.WriteConflictError{}, code: sqlerr.ErrLockDeadlock},
		{err: &txn.LockTimeoutError{}, code: sqlerr.ErrLockWaitTimeout},
		{err: &kvclient.TimeoutError{Op: "get", Kind: "no_leader"}, code: 9005, text: "Region is unavailable"},
		{err: &kvclient.TimeoutError{Op: "get", Kind: "rpc"}, code: 9005, text: "Region is unavailable"},
		{err: &kvclient.TimeoutError{Op: "get", Kind: "server_busy"}, code: 9003, text: "KV server is busy"},
		{err: &kvclient.TimeoutError{Op: "prewrite", Kind: "disk_full"}, code: 1021,
			text: "Disk full (KV store); waiting for someone to free some space... (errno: 28 - No space left on device)"},
		{err: fmt.Errorf("%w: %w", kvclient.ErrNoRoute, errors.New("pd is away")), code: 9001, text: "PD server timeout"},
		{err: fmt.Errorf("%w: %w", txn.ErrNoTimestamp, errors.New("pd is away")), code: 9001, text: "PD server timeout"},
		{err: txn.ErrUndetermined, code: 8501},
		{err: fmt.Errorf("%w: %w", txn.ErrUndetermined, &kvclient.TimeoutError{Kind: "rpc"}), code: 8501},
		{err: fmt.Errorf("%w: %w", txn.ErrUndetermined, &txn.LockTimeoutError{}), code: 8501},
		{err: fmt.Errorf("%w: %w", txn.ErrUndetermined, &txn.AbortedError{}), code: 8501},
		{err: fmt.Errorf("%w: %w", txn.ErrUndetermined, context.Canceled), ctx: killed, code: 8501},
		{err: context.Canceled, ctx: killed, code: sqlerr.ErrQueryInterrupted},
	} {
		if tc.ctx == nil {
			tc.ctx = context.Background()
		}
		got := s.sqlError(tc.ctx, tc.err)
		require.Equal(t, tc.code, sqlerr.Code(got), "%v", tc.err)
		require.Equal(t, tc.code == 8501, errors.Is(got, ErrUndetermined), "the connection ends")
		if tc.text != "" {
			require.Equal(t, tc.text, sqlerr.From(got).Msg)
		}
		if tc.code == 8501 {
			require.False(t, retriable(tc.err), "%v must not run again", tc.err)
			require.True(t, fatal(tc.err))
		}
	}
}
