package txncmd

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/cairndb/cairn/internal/keys"
	"github.com/cairndb/cairn/proto/kvpb"
)

// sweepKeys is how many raw pairs one call of SweepRaw looks at.
const sweepKeys = 4096

// SweepRaw removes raw pairs of a region that have expired. It looks at some thousand pairs
// from start on, or from the first one if start is empty, and returns where to go on; nil
// when there are no more.
func (e *Executor) SweepRaw(ctx context.Context, c *kvpb.Context, start []byte) (removed int, next []byte, err error) {
	expired, next, err := e.expiredRaw(ctx, c, start)
	if err != nil || len(expired) == 0 {
		return 0, next, err
	}
	now := time.Now()
	ke, rerr := e.write(ctx, c, keyListOf(expired), func(v *view) (*kvpb.KeyError, error) {
		for _, k := range expired {
			rec, _, found, err := v.rd.Get(k, rawTS)
			if err != nil {
				return nil, err
			}
			if !found {
				continue
			}
			if _, _, ok := parseRaw(rec, now); !ok { // nobody has put another one
				v.w.DeleteWrite(k, rawTS)
				removed++
			}
		}
		return nil, nil
	})
	switch {
	case rerr != nil:
		return 0, nil, errors.New(rerr.GetMessage())
	case ke != nil:
		return 0, nil, errors.New(ke.GetAbort())
	}
	return removed, next, nil
}

func (e *Executor) expiredRaw(ctx context.Context, c *kvpb.Context, start []byte) (expired [][]byte, next []byte, err error) {
	rg, rerr := e.regions.Region(c)
	if rerr != nil {
		return nil, nil, errors.New(rerr.GetMessage())
	}
	lo, hi := keys.AppendRaw(nil, nil), keys.RawEnd()
	for _, from := range [][]byte{start, rg.Meta().GetStartKey()} {
		if bytes.Compare(from, lo) > 0 {
			lo = from
		}
	}
	if end := rg.Meta().GetEndKey(); len(end) > 0 && bytes.Compare(end, hi) < 0 {
		hi = end
	}
	if bytes.Compare(lo, hi) >= 0 {
		return nil, nil, nil
	}
	sc, rerr, err := e.openRawScan(ctx, rg, lo, hi)
	if rerr != nil {
		return nil, nil, errors.New(rerr.GetMessage())
	}
	if err != nil {
		return nil, nil, err
	}
	now := time.Now()
	for n := 0; sc.Next(); {
		if _, _, ok := parseRaw(sc.Value(), now); !ok {
			expired = append(expired, bytes.Clone(sc.Key()))
		}
		if n++; n == sweepKeys {
			next = successor(sc.Key())
			break
		}
	}
	return expired, next, errors.Join(sc.Err(), sc.Close())
}
