package txncmd

import (
	"bytes"
	"context"
	"encoding/binary"
	"time"

	"github.com/cairndb/cairn/internal/keys"
	"github.com/cairndb/cairn/kvnode/mvcc"
	"github.com/cairndb/cairn/proto/kvpb"
)

// rawTS is the version of every raw pair: there is only the present one.
const rawTS = 1

// expiryLen is the length of what stands before a raw value: when it expires, in milliseconds
// since 1970, big endian; 0 = never.
const expiryLen = 8

// Raw executes a request about raw pairs. It is linearizable: reads see every write
// that was answered before, and compare-and-swap, put and delete of one key come one after
// the other. A pair expires by the clock of the region's leader; it is not seen from then
// on, and removed when its key is written or SweepRaw comes by.
func (e *Executor) Raw(ctx context.Context, req *kvpb.RawRequest) *kvpb.RawResponse {
	e.metrics.commands.WithLabelValues("raw").Inc()
	resp := &kvpb.RawResponse{}
	if why := invalidRaw(req); why != "" {
		resp.Error = why
		return resp
	}
	now := time.Now()
	switch op := req.GetOp().(type) {
	case *kvpb.RawRequest_Get:
		e.rawGet(ctx, req, op.Get, now, resp)
	case *kvpb.RawRequest_Scan:
		e.rawScan(ctx, req, op.Scan, now, resp)
	case *kvpb.RawRequest_Put:
		pairs := op.Put.GetPairs()
		e.rawWrite(ctx, req, keyList{len(pairs), func(i int) []byte { return pairs[i].GetKey() }}, resp, func(v *view) error {
			for _, p := range pairs {
				v.putRaw(p, now)
			}
			return nil
		})
	case *kvpb.RawRequest_Delete:
		list := op.Delete.GetKeys()
		e.rawWrite(ctx, req, keyListOf(list), resp, func(v *view) error {
			for _, k := range list {
				v.w.DeleteWrite(k, rawTS)
			}
			return nil
		})
	case *kvpb.RawRequest_Cas:
		e.rawCAS(ctx, req, op.Cas, now, resp)
	default:
		resp.Error = "unknown raw operation"
	}
	return resp
}

// invalidRaw says what is wrong with the keys of a request, "" if nothing is.
func invalidRaw(req *kvpb.RawRequest) string {
	var list [][]byte
	switch op := req.GetOp().(type) {
	case *kvpb.RawRequest_Get:
		list = [][]byte{op.Get}
	case *kvpb.RawRequest_Scan:
		if !keys.IsRaw(op.Scan.GetStartKey()) || len(op.Scan.GetEndKey()) == 0 || bytes.Compare(op.Scan.GetEndKey(), keys.RawEnd()) > 0 {
			return "a raw scan needs a start and an end among the raw keys"
		}
	case *kvpb.RawRequest_Put:
		for _, p := range op.Put.GetPairs() {
			list = append(list, p.GetKey())
		}
	case *kvpb.RawRequest_Delete:
		list = op.Delete.GetKeys()
	case *kvpb.RawRequest_Cas:
		list = [][]byte{op.Cas.GetPair().GetKey()}
	}
	for _, k := range list {
		if !keys.IsRaw(k) {
			return "not a raw key"
		}
	}
	return ""
}

func (e *Executor) rawGet(ctx context.Context, req *kvpb.RawRequest, key []byte, now time.Time, resp *kvpb.RawResponse) {
	rg, rerr := e.regions.Region(req.Context)
	if rerr == nil {
		rerr = inRegion(rg.Meta(), key)
	}
	if rerr != nil {
		resp.RegionError = rerr
		return
	}
	rd, rerr, err := e.openRead(ctx, rg, func() (stop bool, err error) { return false, nil })
	if rerr != nil {
		resp.RegionError = rerr
		return
	}
	if err == nil {
		resp.Value, resp.TtlMs, resp.Found, err = readRaw(&rd, key, now)
		if cerr := rd.Close(); err == nil {
			err = cerr
		}
	}
	if err != nil {
		resp.Error = e.internal("raw get", err).GetAbort()
		return
	}
	rg.CountRead(req.Context.GetFromStore(), key, 1, len(key)+len(resp.Value))
}

// readRaw returns a copy of the value of key, unless it has expired.
func readRaw(rd *mvcc.Reader, key []byte, now time.Time) (value []byte, ttl uint64, found bool, err error) {
	rec, _, found, err := rd.Get(key, rawTS)
	if err != nil || !found {
		return nil, 0, false, err
	}
	value, ttl, found = parseRaw(rec, now)
	return bytes.Clone(value), ttl, found, nil
}

// parseRaw splits what is stored into the value and the time it has left, 0 = for ever.
// ok is false when it has expired.
func parseRaw(rec []byte, now time.Time) (value []byte, ttl uint64, ok bool) {
	if len(rec) < expiryLen {
		return nil, 0, false
	}
	expiry, ms := binary.BigEndian.Uint64(rec), uint64(now.UnixMilli())
	if expiry == 0 {
		return rec[expiryLen:], 0, true
	}
	if expiry <= ms {
		return nil, 0, false
	}
	return rec[expiryLen:], expiry - ms, true
}

func (v *view) putRaw(p *kvpb.RawPair, now time.Time) {
	rec := make([]byte, expiryLen, expiryLen+len(p.GetValue()))
	if p.GetTtlMs() != 0 {
		binary.BigEndian.PutUint64(rec, uint64(now.UnixMilli())+p.GetTtlMs())
	}
	v.w.PutWrite(p.GetKey(), rawTS, &mvcc.Write{
		Type: mvcc.WritePut, StartTS: rawTS, HasValue: true, Value: append(rec, p.GetValue()...),
	})
}

func (e *Executor) rawWrite(ctx context.Context, req *kvpb.RawRequest, list keyList, resp *kvpb.RawResponse, eval func(v *view) error) {
	ke, rerr := e.write(ctx, req.Context, list, func(v *view) (*kvpb.KeyError, error) { return nil, eval(v) })
	resp.RegionError, resp.Error = rerr, ke.GetAbort()
}

func (e *Executor) rawCAS(ctx context.Context, req *kvpb.RawRequest, op *kvpb.RawCompareAndSwap, now time.Time, resp *kvpb.RawResponse) {
	key := op.GetPair().GetKey()
	e.rawWrite(ctx, req, oneKey(key), resp, func(v *view) (err error) {
		if resp.Value, _, resp.Found, err = readRaw(&v.rd, key, now); err != nil {
			return err
		}
		resp.Swapped = resp.Found != op.GetExpectAbsent() && (!resp.Found || bytes.Equal(resp.Value, op.GetExpect()))
		switch {
		case !resp.Swapped:
		case op.GetDelete():
			v.w.DeleteWrite(key, rawTS)
		default:
			v.putRaw(op.GetPair(), now)
		}
		return nil
	})
	if resp.RegionError != nil || resp.Error != "" {
		resp.Swapped = false
	}
}

func (e *Executor) rawScan(ctx context.Context, req *kvpb.RawRequest, op *kvpb.RawScan, now time.Time, resp *kvpb.RawResponse) {
	rg, rerr := e.regions.Region(req.Context)
	if rerr != nil {
		resp.RegionError = rerr
		return
	}
	lo, hi, rerr := clampRange(rg.Meta(), op.GetStartKey(), op.GetEndKey())
	if rerr != nil {
		resp.RegionError = rerr
		return
	}
	if bytes.Compare(lo, hi) >= 0 {
		return
	}
	sc, rerr, err := e.openRawScan(ctx, rg, lo, hi)
	if rerr != nil {
		resp.RegionError = rerr
		return
	}
	if err == nil {
		err = fillRaw(sc, op, now, resp)
		if cerr := sc.Close(); err == nil {
			err = cerr
		}
	}
	if err != nil {
		resp.Error = e.internal("raw scan", err).GetAbort()
		return
	}
	rg.CountRead(req.Context.GetFromStore(), lo, len(resp.Pairs.GetOffsets())/2, len(resp.Pairs.GetData()))
}

// openRawScan is openReader for a range.
func (e *Executor) openRawScan(ctx context.Context, rg Region, lo, hi []byte) (*mvcc.Scanner, *kvpb.RegionError, error) {
	for try := 1; ; try++ {
		if rerr := rg.ReadReady(ctx); rerr != nil {
			return nil, rerr, nil
		}
		sc, err := mvcc.OpenScanner(rg.Engine(), mvcc.ScanOptions{Lower: lo, Upper: hi, TS: rawTS})
		if err != nil {
			return nil, nil, err
		}
		rerr := rg.CheckLease()
		if rerr == nil {
			return sc, nil, nil
		}
		if err := sc.Close(); err != nil {
			return nil, nil, err
		}
		if try == leaseTries {
			return nil, rerr, nil
		}
	}
}

// fillRaw takes a page. What has expired counts for the limits of the work, not of the answer.
func fillRaw(sc *mvcc.Scanner, op *kvpb.RawScan, now time.Time, resp *kvpb.RawResponse) error {
	byteLimit := int(min(op.GetByteLimit(), maxByteLimit))
	if byteLimit == 0 {
		byteLimit = defaultByteLimit
	}
	b := &kvpb.KvBlock{}
	resp.Pairs = b
	n, passed := 0, 0
	for sc.Next() {
		value, _, ok := parseRaw(sc.Value(), now)
		if ok {
			if n == 0 {
				b.Offsets = append(b.Offsets, 0)
			}
			b.Data = append(b.Data, sc.Key()...)
			b.Offsets = append(b.Offsets, uint32(len(b.Data)))
			if !op.GetKeyOnly() {
				b.Data = append(b.Data, value...)
			}
			b.Offsets = append(b.Offsets, uint32(len(b.Data)))
			n++
		} else {
			passed += len(sc.Key()) + len(sc.Value())
		}
		if op.GetLimit() != 0 && n == int(op.GetLimit()) || len(b.Data)+passed >= byteLimit {
			resp.More, resp.ResumeKey = true, successor(sc.Key())
			return nil
		}
	}
	return sc.Err()
}
