package txncmd

import (
	"bytes"
	"context"
	"math/rand/v2"

	"github.com/cairndb/cairn/kvnode/engine"
	"github.com/cairndb/cairn/kvnode/mvcc"
	"github.com/cairndb/cairn/proto/kvpb"
)

// Get reads one key. Besides the lookup itself it costs an atomic load each for
// the pending table and the lock index.
func (e *Executor) Get(ctx context.Context, req *kvpb.GetRequest) *kvpb.GetResponse {
	e.metrics.get.Inc()
	resp := &kvpb.GetResponse{}
	resp.RegionError = e.get(ctx, req, resp)
	return resp
}

func (e *Executor) get(ctx context.Context, req *kvpb.GetRequest, resp *kvpb.GetResponse) *kvpb.RegionError {
	rg, rerr := e.regions.Reader(req.Context, req.ReadTs)
	if rerr != nil {
		return rerr
	}
	if rerr := inRegion(rg.Meta(), req.Key); rerr != nil {
		return rerr
	}
	if resp.Error = e.admitTS(req.ReadTs); resp.Error != nil {
		return nil
	}
	var through *mvcc.Lock
	var newest mvcc.Newest
	var atHand bool
	var token engine.NewestToken
	rd, rerr, err := e.openRead(ctx, rg, func() (stop bool, err error) {
		through, atHand = nil, false
		if err := e.waitPending(ctx, req.Key, req.ReadTs); err != nil {
			return false, err
		}
		l, err := rg.Locks().Get(req.Key)
		if err != nil {
			return false, err
		}
		ke, committed := e.readKeyLock(req.Context, l, req.Key, req.ReadTs)
		if committed {
			through = l
		}
		resp.Error = ke
		if ke == nil && !committed {
			newest, atHand, token, err = mvcc.NewestAt(rg.Engine(), req.Key, req.ReadTs)
		}
		return ke != nil || atHand, err
	})
	if rerr != nil || resp.Error != nil {
		return rerr
	}
	if err == nil {
		if resp.Error = e.tooOld(rg, req.ReadTs); resp.Error == nil {
			if atHand {
				resp.Value, resp.CommitTs = newest.Write.Value, newest.CommitTS
			} else {
				err = getInto(&rd, rg.Engine(), token, req, through, resp)
			}
		}
		if e := rd.Close(); err == nil {
			err = e
		}
	}
	if err != nil {
		resp.Error = e.internal("get", err)
		return nil
	}
	rg.CountRead(req.Context.GetFromStore(), req.Key, 1, len(req.Key)+len(resp.Value))
	return nil
}

func getInto(rd *mvcc.Reader, db *engine.DB, token engine.NewestToken, req *kvpb.GetRequest, through *mvcc.Lock, resp *kvpb.GetResponse) error {
	var value []byte
	var found bool
	var err error
	if through != nil {
		value, found, err = lockValue(through, req.Key, rd)
	} else {
		value, resp.CommitTs, found, err = rd.GetNewest(db, token, req.Key, req.ReadTs)
	}
	if err != nil {
		return err
	}
	resp.NotFound = !found
	if found {
		resp.Value = append(make([]byte, 0, len(value)), value...)
	}
	return nil
}

func (e *Executor) waitPending(ctx context.Context, key []byte, readTS uint64) error {
	waited, err := e.pending.waitKey(ctx, key, readTS)
	if waited {
		e.metrics.pendWait.Inc()
	}
	return err
}

// openRead runs the read protocol: ready, locks, iterator, lease; again from the
// start if the lease ran out. locks looks for what blocks the read; if it says
// stop, because of that or as it has read what is wanted, no reader is opened.
func (e *Executor) openRead(ctx context.Context, rg Region, locks func() (stop bool, err error)) (mvcc.Reader, *kvpb.RegionError, error) {
	for try := 1; ; try++ {
		if rerr := rg.ReadReady(ctx); rerr != nil {
			return mvcc.Reader{}, rerr, nil
		}
		stop, err := locks()
		switch {
		case err != nil && ctx.Err() != nil:
			return mvcc.Reader{}, expired(err), nil
		case err != nil:
			return mvcc.Reader{}, nil, err
		}
		var rd mvcc.Reader
		if !stop {
			if rd, err = mvcc.OpenReader(rg.Engine()); err != nil {
				return mvcc.Reader{}, nil, err
			}
		}
		rerr := rg.CheckLease()
		if rerr == nil {
			return rd, nil, nil
		}
		if err := rd.Close(); err != nil {
			return mvcc.Reader{}, nil, err
		}
		if try == leaseTries {
			return mvcc.Reader{}, rerr, nil
		}
	}
}

// BatchGet reads several keys in one view.
func (e *Executor) BatchGet(ctx context.Context, req *kvpb.BatchGetRequest) *kvpb.BatchGetResponse {
	e.metrics.batchGet.Inc()
	resp := &kvpb.BatchGetResponse{}
	resp.RegionError = e.batchGet(ctx, req, resp)
	return resp
}

func (e *Executor) batchGet(ctx context.Context, req *kvpb.BatchGetRequest, resp *kvpb.BatchGetResponse) *kvpb.RegionError {
	rg, rerr := e.regions.Reader(req.Context, req.ReadTs)
	if rerr != nil {
		return rerr
	}
	for _, k := range req.Keys {
		if rerr := inRegion(rg.Meta(), k); rerr != nil {
			return rerr
		}
	}
	if ke := e.admitTS(req.ReadTs); ke != nil {
		resp.Errors = []*kvpb.KeyError{ke}
		return nil
	}
	var state map[int]*mvcc.Lock // by position: nil = locked, else read through
	rd, rerr, err := e.openRead(ctx, rg, func() (stop bool, err error) {
		resp.Errors, state = nil, nil
		for i, k := range req.Keys {
			if err := e.waitPending(ctx, k, req.ReadTs); err != nil {
				return false, err
			}
			l, err := rg.Locks().Get(k)
			if err != nil {
				return false, err
			}
			if l == nil {
				continue
			}
			ke, committed := e.readKeyLock(req.Context, l, k, req.ReadTs)
			if ke != nil {
				resp.Errors = append(resp.Errors, ke)
				l = nil
			}
			if ke != nil || committed {
				if state == nil {
					state = make(map[int]*mvcc.Lock)
				}
				state[i] = l
			}
		}
		return false, nil
	})
	if rerr != nil {
		return rerr
	}
	if err == nil {
		if ke := e.tooOld(rg, req.ReadTs); ke != nil {
			resp.Errors = []*kvpb.KeyError{ke}
		} else {
			resp.Pairs, err = batchGetPairs(&rd, req, state)
		}
		if e := rd.Close(); err == nil {
			err = e
		}
	}
	if err != nil {
		resp.Errors = []*kvpb.KeyError{e.internal("batch get", err)}
		return nil
	}
	if n := len(req.Keys); n > 0 {
		rg.CountRead(req.Context.GetFromStore(), req.Keys[rand.IntN(n)], n, len(resp.Pairs.GetData()))
	}
	return nil
}

func batchGetPairs(rd *mvcc.Reader, req *kvpb.BatchGetRequest, state map[int]*mvcc.Lock) (*kvpb.KvBlock, error) {
	block := &kvpb.KvBlock{Offsets: make([]uint32, 0, 2*len(req.Keys)+1)}
	for i, k := range req.Keys {
		var value []byte
		var found bool
		var err error
		if l, special := state[i]; !special {
			value, _, found, err = rd.Get(k, req.ReadTs)
		} else if l != nil {
			value, found, err = lockValue(l, k, rd)
		}
		if err != nil {
			return nil, err
		}
		if !found {
			continue
		}
		if len(block.Offsets) == 0 {
			block.Offsets = append(block.Offsets, 0)
			block.Data = make([]byte, 0, (len(k)+len(value)+8)*(len(req.Keys)-i))
		}
		block.Data = append(block.Data, k...)
		block.Offsets = append(block.Offsets, uint32(len(block.Data)))
		block.Data = append(block.Data, value...)
		block.Offsets = append(block.Offsets, uint32(len(block.Data)))
	}
	return block, nil
}

// successor is the smallest key above key.
func successor(key []byte) []byte {
	return append(bytes.Clone(key), 0)
}
