package pd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/cairndb/cairn/pd/pdclient"
)

// UnsafeRecover makes the member whose directory this is the only one of its
// cluster, for when a majority of members is lost for good. The member does not
// run. What only the lost members knew is gone. Ids are skipped by far, so that
// none is given twice; timestamps go on with the clock, which must not be behind
// that of the lost members. Should a lost member ever run again, there are two clusters.
func UnsafeRecover(ctx context.Context, dataDir string, logger *slog.Logger) (err error) {
	s, err := New(Options{DataDir: dataDir, unsafeAlone: true, Logger: logger})
	if err != nil {
		return fmt.Errorf("pd: recover %s: %w", dataDir, err)
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	c := pdclient.Direct(s.Handler())
	defer func() { err = errors.Join(err, c.Close()) }()
	if _, err := c.AllocIDs(ctx, skippedIDs); err != nil {
		return fmt.Errorf("pd: recover %s: skip ids: %w", dataDir, err)
	}
	return nil
}

// skippedIDs is more than a cluster takes in the moment before it breaks.
const skippedIDs = 1 << 20
