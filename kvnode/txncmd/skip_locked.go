package txncmd

import (
	"context"

	"github.com/cairndb/cairn/kvnode/mvcc"
	"github.com/cairndb/cairn/proto/kvpb"
)

// lockFree executes a request that skips what is locked, key by key: what becomes of one says nothing about the others.
//
// Keys are looked at without their latches first. What is locked then, or being committed, is skipped, and of what looks
// free no more is latched at a time than is still wanted. So those who look for the first free one of many rows, as the workers of a
// queue do, do not hold up the commits of those who have the others, nor wait for them.
func (e *Executor) lockFree(ctx context.Context, k *locker) (*kvpb.KeyError, *kvpb.RegionError) {
	rg, rerr := e.regions.Region(k.req.Context)
	if rerr != nil {
		return nil, rerr
	}
	if ke, rerr := checkKeys(rg.Meta(), keyListOf(k.req.Keys)); ke != nil || rerr != nil {
		return ke, rerr
	}
	if rerr := rg.ReadReady(ctx); rerr != nil {
		return nil, rerr
	}
	found, err := k.look(rg)
	if err != nil {
		return e.internal("look for locks", err), nil
	}
	if k.req.Shared {
		defer e.waits.joined(k.req.Keys)
	}
	k.results = make([]*kvpb.KeyLockResult, len(k.req.Keys))
	for next := 0; next < len(k.req.Keys); {
		next = k.choose(next, found, e.pending)
		if len(k.at) == 0 {
			continue
		}
		if ke, rerr := e.write(ctx, k.req.Context, keyList{len(k.at), func(i int) []byte { return k.req.Keys[k.at[i]] }}, k.evalFree); ke != nil || rerr != nil {
			return ke, rerr
		}
	}
	return nil, rg.CheckLease()
}

// look finds the locks of all keys, the primary, and how many keys are wanted, besides those that an earlier attempt at
// the request has locked.
func (k *locker) look(rg Region) ([]*mvcc.Lock, error) {
	k.wanted = len(k.req.Keys)
	if n := int(k.req.MaxLocks); n > 0 {
		k.wanted = n
	}
	found := make([]*mvcc.Lock, len(k.req.Keys))
	for i, key := range k.req.Keys {
		if found[i] = rg.MemLocks().Get(key); found[i] == nil {
			var err error
			if found[i], err = rg.Locks().Get(key); err != nil {
				return nil, err
			}
		}
		if own := found[i].Of(k.req.StartTs); own != nil {
			k.wanted = max(0, k.wanted-1)
			if len(k.primary) == 0 {
				k.primary = own.Primary
			}
		}
	}
	return found, nil
}

// choose answers for the keys from next on that are locked or not wanted any more, and notes in k.at those to be locked. It
// returns where to go on.
func (k *locker) choose(next int, found []*mvcc.Lock, pending *pendingTable) int {
	k.at = k.at[:0]
	room := k.wanted
	for ; next < len(found) && (room > 0 || k.wanted == 0); next++ {
		key, cur := k.req.Keys[next], found[next]
		own := cur.Of(k.req.StartTs)
		switch {
		case own != nil:
			k.at = append(k.at, next)
		case k.wanted == 0:
			k.results[next] = &kvpb.KeyLockResult{Status: kvpb.KeyLockStatus_KEY_LOCK_STATUS_NOT_WANTED}
		case cur != nil && !(k.req.Shared && cur.Type == mvcc.LockShared):
			k.results[next] = skippedKey(lockedError(key, cur))
		case pending.has(key):
			k.results[next] = skippedKey(nil)
		default:
			k.at = append(k.at, next)
			room--
		}
	}
	return next
}

// evalFree locks those of the keys at k.at that are free indeed.
func (k *locker) evalFree(v *view) (*kvpb.KeyError, error) {
	k.durable = false
	old := v.e.tooOld(v.rg, k.req.StartTs)
	for _, i := range k.at {
		if old != nil {
			k.results[i] = failedKey(old)
			continue
		}
		r, err := k.lockKey(v, i, k.req.Keys[i])
		if err != nil {
			return nil, err
		}
		k.results[i] = r
	}
	v.early = !k.durable
	return nil, nil
}
