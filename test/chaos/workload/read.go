package workload

import (
	"context"
	"database/sql"
	"fmt"
)

// snapshot begins a transaction that only reads: what is looked at together is
// looked at at one moment. Operations that are unknown may still happen.
func snapshot(ctx context.Context, db *sql.DB) (*sql.Tx, error) {
	tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead})
	if err != nil {
		return nil, fmt.Errorf("begin a snapshot: %w", err)
	}
	return tx, nil
}

// readPairs reads all rows of two numbers.
func readPairs(ctx context.Context, db *sql.Tx, each func(a, b int64), text string) error {
	rows, err := db.QueryContext(ctx, text)
	if err != nil {
		return fmt.Errorf("%s: %w", text, err)
	}
	defer rows.Close()
	for rows.Next() {
		var a, b int64
		if err := rows.Scan(&a, &b); err != nil {
			return fmt.Errorf("%s: %w", text, err)
		}
		each(a, b)
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("%s: %w", text, err)
	}
	return nil
}
