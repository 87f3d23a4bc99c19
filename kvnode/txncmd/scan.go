package txncmd

import (
	"bytes"
	"context"
	"slices"

	"github.com/cairndb/cairn/kvnode/mvcc"
	"github.com/cairndb/cairn/proto/kvpb"
)

// defaultByteLimit is the size of a page when the client names none, maxByteLimit
// the largest one given. Offsets in a block are 32 bits wide.
const (
	defaultByteLimit = 1 << 20
	maxByteLimit     = 64 << 20
)

// Scan reads one page of a range.
func (e *Executor) Scan(ctx context.Context, req *kvpb.ScanRequest) *kvpb.ScanResponse {
	e.metrics.scan.Inc()
	resp := &kvpb.ScanResponse{}
	resp.RegionError = e.scan(ctx, req, resp)
	return resp
}

// page is one Scan in the making.
type page struct {
	req    *kvpb.ScanRequest
	lo, hi []byte
	// stop is the lock that ends the page, nil for none.
	stop    *mvcc.Lock
	stopKey []byte
	through []keyLock // locks of committed owners, in scan order
	// cut is where the page ends at the latest, because there are too many locks to pass
	// over: all locks before it, in scan order, are known. Nil for the end of the range.
	cut []byte
}

// scanLocks bounds the locks that one page passes over or reads through, and scanLockBytes
// the bytes of those it reads through.
const (
	scanLocks     = 4096
	scanLockBytes = 1 << 20
)

type keyLock struct {
	key  []byte
	lock *mvcc.Lock
}

func (e *Executor) scan(ctx context.Context, req *kvpb.ScanRequest, resp *kvpb.ScanResponse) *kvpb.RegionError {
	rg, rerr := e.regions.Reader(req.Context, req.ReadTs)
	if rerr != nil {
		return rerr
	}
	lo, hi, rerr := clampRange(rg.Meta(), req.StartKey, req.EndKey)
	if rerr != nil {
		return rerr
	}
	if resp.Error = e.admitTS(req.ReadTs); resp.Error != nil {
		return nil
	}
	if len(hi) > 0 && bytes.Compare(lo, hi) >= 0 {
		return nil
	}
	p := page{req: req, lo: lo, hi: hi}
	rerr, err := e.readPage(ctx, rg, &p, resp)
	if rerr != nil { // which explains whatever failed
		resp.Reset()
		return rerr
	}
	if err != nil {
		resp.Error = e.internal("scan", err)
	} else if ke := e.tooOld(rg, req.ReadTs); ke != nil {
		resp.Reset()
		resp.Error = ke
	}
	if resp.Error.GetLocked() != nil {
		e.metrics.locked.Inc()
	}
	rg.CountRead(req.Context.GetFromStore(), lo, len(resp.Pairs.GetOffsets())/2, len(resp.Pairs.GetData()))
	return nil
}

// readPage runs the read protocol for a range; see openRead. What is read from memory is read before
// the lease is tested, as a view would be opened, and with it all of the page.
func (e *Executor) readPage(ctx context.Context, rg Region, p *page, resp *kvpb.ScanResponse) (*kvpb.RegionError, error) {
	for try := 1; ; try++ {
		if rerr := rg.ReadReady(ctx); rerr != nil {
			return rerr, nil
		}
		waited, err := e.pending.waitRange(ctx, p.lo, p.hi, p.req.ReadTs)
		if waited {
			e.metrics.pendWait.Inc()
		}
		if err != nil {
			return expired(err), nil
		}
		if err := p.findLocks(rg.Locks()); err != nil {
			return nil, err
		}
		sc, err := mvcc.OpenScanner(rg.Engine(), p.scanOptions())
		if err != nil {
			return nil, err
		}
		err = p.fill(sc, resp)
		if e := sc.Close(); err == nil {
			err = e
		}
		rerr := rg.CheckLease()
		if rerr == nil || try == leaseTries {
			return rerr, err
		}
		resp.Reset()
	}
}

// findLocks looks for the first lock in scan direction that stops the page, and
// the locks before it that are read through. After many it leaves the rest to the next page.
func (p *page) findLocks(x *mvcc.LockIndex) error {
	p.stop, p.stopKey, p.through, p.cut = nil, nil, nil, nil
	n, size := 0, 0
	walk := x.Range
	if p.req.Reverse {
		walk = x.RangeBack
	}
	c := p.req.Context
	return walk(p.lo, p.hi, func(key []byte, l *mvcc.Lock) bool {
		if n++; n > scanLocks || size > scanLockBytes {
			p.cut = key
			if p.req.Reverse {
				p.cut = successor(key)
			}
			return false
		}
		own := writtenBy(l, c.GetOwnLocks())
		if !own && !l.BlocksRead(key, p.req.ReadTs, c.GetResolvedLocks()) {
			return true
		}
		if own || slices.Contains(c.GetCommittedLocks(), l.StartTS) {
			p.through = append(p.through, keyLock{key, l})
			size += len(key) + len(l.ShortValue)
			return true
		}
		p.stop, p.stopKey = l, key
		return false
	})
}

func (p *page) scanOptions() mvcc.ScanOptions {
	o := mvcc.ScanOptions{Lower: p.lo, Upper: p.hi, TS: p.req.ReadTs, Reverse: p.req.Reverse, KeyOnly: p.req.KeyOnly, Runs: true}
	switch end := p.end(); {
	case end == nil:
	case p.req.Reverse:
		o.Lower = end
	default:
		o.Upper = end
	}
	return o
}

// end is where the page ends because of locks, nil if it does not: exclusive, or inclusive
// in a scan backwards.
func (p *page) end() []byte {
	switch {
	case p.cut != nil:
		return p.cut
	case p.stop == nil:
		return nil
	case p.req.Reverse:
		return successor(p.stopKey)
	}
	return p.stopKey
}

func (p *page) fill(sc *mvcc.Scanner, resp *kvpb.ScanResponse) error {
	if err := p.overlay(sc); err != nil {
		return err
	}
	byteLimit := int(min(p.req.ByteLimit, maxByteLimit))
	if byteLimit == 0 {
		byteLimit = defaultByteLimit
	}
	resp.Pairs = kvpb.NewKvBlock()
	more, err := sc.Fill(resp.Pairs, int(p.req.Limit), byteLimit)
	switch {
	case err != nil:
		return err
	case more && p.req.Reverse:
		resp.More, resp.ResumeKey = true, bytes.Clone(sc.Key())
	case more:
		resp.More, resp.ResumeKey = true, successor(sc.Key())
	case p.end() != nil:
		if p.stop != nil {
			resp.Error = lockedError(p.stopKey, p.stop)
		}
		resp.More, resp.ResumeKey = true, bytes.Clone(p.end())
	}
	return nil
}

// overlay gives the scanner the values of committed locks.
func (p *page) overlay(sc *mvcc.Scanner) error {
	if len(p.through) == 0 {
		return nil
	}
	list := make([]mvcc.OverlayEntry, 0, len(p.through))
	for _, kl := range p.through {
		value, found, err := lockValue(kl.lock, kl.key, sc)
		if err != nil {
			return err
		}
		list = append(list, mvcc.OverlayEntry{Key: kl.key, Value: bytes.Clone(value), Deleted: !found})
	}
	sc.SetOverlay(list)
	return nil
}
