package sqlnode

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/cairndb/cairn/internal/keys"
	"github.com/cairndb/cairn/kvnode/kvclient/txn"
)

// globalsStorage keeps SET GLOBAL values in one metadata key
// (docs/formats/meta.md).
type globalsStorage struct{ store *txn.Store }

const globalsKey = "global_variables"

// LoadGlobals implements sysvar.Storage.
func (g globalsStorage) LoadGlobals(ctx context.Context) (map[string]string, error) {
	return readGlobals(ctx, g.store.Snapshot(math.MaxUint64))
}

type getter interface {
	Get(ctx context.Context, key []byte) ([]byte, error)
}

func readGlobals(ctx context.Context, r getter) (map[string]string, error) {
	raw, err := r.Get(ctx, keys.AppendMeta(nil, globalsKey))
	if errors.Is(err, txn.ErrNotFound) {
		return map[string]string{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("load global variables: %w", err)
	}
	values := map[string]string{}
	if err := json.Unmarshal(raw, &values); err != nil {
		return nil, fmt.Errorf("stored global variables: %w", err)
	}
	return values, nil
}

// SaveGlobal implements sysvar.Storage.
func (g globalsStorage) SaveGlobal(ctx context.Context, name, value string) error {
	for {
		err := g.trySave(ctx, name, value)
		var conflict *txn.WriteConflictError
		if !errors.As(err, &conflict) || ctx.Err() != nil {
			return err
		}
	}
}

func (g globalsStorage) trySave(ctx context.Context, name, value string) error {
	t, err := g.store.Begin(ctx, txn.TxnOptions{})
	if err != nil {
		return err
	}
	defer t.Rollback()
	values, err := readGlobals(ctx, t)
	if err != nil {
		return err
	}
	values[name] = value
	raw, err := json.Marshal(values)
	if err != nil {
		return err
	}
	if err := t.Set(keys.AppendMeta(nil, globalsKey), raw); err != nil {
		return err
	}
	_, err = t.Commit(ctx)
	return err
}

// followEvery is how often values set on other SQL nodes are looked for.
const followEvery = time.Second

// followGlobals keeps the global variables what the last SET GLOBAL of any SQL
// node made them.
func (s *Server) followGlobals() {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		select {
		case <-s.life.Done():
			return
		case <-tick.C:
		}
		if err := s.engine.Globals.Reload(s.life); err != nil && s.life.Err() == nil {
			s.log.Debug("cannot read global variables; the ones known stay in force", "err", err)
		}
	}
}
