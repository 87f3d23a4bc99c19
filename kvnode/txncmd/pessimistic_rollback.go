package txncmd

import (
	"context"

	"github.com/cairndb/cairn/proto/kvpb"
)

// PessimisticRollback gives pessimistic locks back. It leaves no record: the
// transaction goes on. Locks taken after for_update_ts belong to a later statement
// and stay, as does everything that is not a pessimistic lock of the transaction.
func (e *Executor) PessimisticRollback(ctx context.Context, req *kvpb.PessimisticRollbackRequest) *kvpb.PessimisticRollbackResponse {
	e.metrics.commands.WithLabelValues("pessimistic_rollback").Inc()
	resp := &kvpb.PessimisticRollbackResponse{}
	ke, rerr := e.write(ctx, req.Context, keyListOf(req.Keys), func(v *view) (*kvpb.KeyError, error) {
		for _, k := range req.Keys {
			if l := v.own(k, req.StartTs); l != nil && l.Pessimistic() && l.ForUpdateTS <= req.ForUpdateTs {
				v.dropLock(k, req.StartTs)
			}
		}
		return nil, nil
	})
	resp.RegionError = rerr
	if ke != nil {
		resp.Errors = []*kvpb.KeyError{ke}
	}
	return resp
}
