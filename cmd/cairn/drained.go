package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/cairndb/cairn/pd/pdclient"
	"github.com/cairndb/cairn/proto/kvpb"
)

// drainedFile marks a data directory whose store was drained: nothing in it is
// needed any more.
const drainedFile = "DRAINED"

// drainedEvery is how often a store asks whether it was drained.
const drainedEvery = 2 * time.Second

// errDrained ends a process whose store was drained; it is no failure.
var errDrained = errors.New("the store of this node was drained: everything it held is elsewhere")

// checkDrained refuses a directory whose store was drained.
func (c *config) checkDrained() error {
	if _, err := os.Stat(c.sub(drainedFile)); err == nil {
		return fmt.Errorf("%w. Delete %s; with an empty directory the node joins as a new store", errDrained, c.DataDir)
	}
	return nil
}

// awaitDrained returns errDrained once the placement driver says that the store
// is a tombstone, and marks the directory. It returns nil when ctx ends.
func awaitDrained(ctx context.Context, c *config, pdc pdclient.Client, store uint64) error {
	tick := time.NewTicker(drainedEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		asked, cancel := context.WithTimeout(ctx, drainedEvery)
		s, err := pdc.GetStore(asked, store)
		cancel()
		if err != nil || s.GetState() != kvpb.StoreState_STORE_STATE_TOMBSTONE {
			continue
		}
		if err := os.WriteFile(c.sub(drainedFile), []byte(errDrained.Error()+"\n"), 0o640); err != nil {
			return err
		}
		return errDrained
	}
}
