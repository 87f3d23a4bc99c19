package txncmd

import (
	"bytes"
	"context"

	"github.com/cairndb/cairn/kvnode/mvcc"
	"github.com/cairndb/cairn/proto/kvpb"
)

// maxTTL bounds the life of a lock without further heart beats, in milliseconds
// since its transaction began: one day.
const maxTTL = 24 * 3600 * 1000

// TxnHeartBeat prolongs the life of a transaction through its primary lock. The
// TTL never shrinks.
//
// Flow control does not hold it up: a transaction must not die of being busy. And from
// its arrival on it has the latch of the primary, so that CheckTxnStatus, when it comes
// later, judges by the longer life.
func (e *Executor) TxnHeartBeat(ctx context.Context, req *kvpb.TxnHeartBeatRequest) *kvpb.TxnHeartBeatResponse {
	e.metrics.commands.WithLabelValues("txn_heart_beat").Inc()
	resp := &kvpb.TxnHeartBeatResponse{}
	key := req.Primary
	ke, rerr := e.write(ctx, req.Context, oneKey(key), func(v *view) (*kvpb.KeyError, error) {
		v.urgent = true
		l := v.own(key, req.StartTs)
		if l == nil {
			return &kvpb.KeyError{Kind: &kvpb.KeyError_TxnNotFound{TxnNotFound: &kvpb.TxnNotFound{
				StartTs: req.StartTs, Primary: bytes.Clone(key),
			}}}, nil
		}
		if !bytes.Equal(l.Primary, key) {
			return &kvpb.KeyError{Kind: &kvpb.KeyError_PrimaryMismatch{
				PrimaryMismatch: &kvpb.PrimaryMismatch{Lock: l.Info(key)},
			}}, nil
		}
		v.prolong(key, l, min(req.AdviseTtlMs, maxTTL), resp)
		return nil, nil
	})
	if ke != nil || rerr != nil {
		return &kvpb.TxnHeartBeatResponse{Error: ke, RegionError: rerr}
	}
	return resp
}

func (v *view) prolong(key []byte, l *mvcc.Lock, ttl uint64, resp *kvpb.TxnHeartBeatResponse) {
	resp.LockTtlMs = l.TTL
	if ttl <= l.TTL {
		return
	}
	longer := *l
	longer.TTL = ttl
	v.replaceOwn(key, &longer)
	resp.LockTtlMs = ttl
}
