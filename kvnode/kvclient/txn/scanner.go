package txn

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/cairndb/cairn/kvnode/kvclient"
	"github.com/cairndb/cairn/proto/kvpb"
)

// Scanner delivers the pairs of a range block by block, region after region. It
// needs no closing. For one goroutine.
type Scanner struct {
	sn *Snapshot
	o  ScanOptions
	// [low, high) is what was not fetched yet; an empty high is unbounded.
	low, high []byte
	fetched   bool // nothing is left to fetch
	left      int  // pairs still wanted; valid with o.Limit > 0
	// own are writes of the transaction not merged yet, in scan order.
	own []entry
	out Block // merged pairs, reused
	// page is the memory of the block that was delivered last.
	page *kvpb.KvBlock
	// reads remembers what was fetched for a serializable transaction; nil = nothing.
	reads *readSet
	wait  LockWait
	bo    backoff
	err   error // sticky
}

func newScanner(sn *Snapshot, start, end []byte, o ScanOptions) *Scanner {
	return &Scanner{sn: sn, o: o, low: start, high: end, left: o.Limit}
}

// start fixes what is derived from the fields newScanner's caller may add to.
func (sc *Scanner) start() {
	sc.fetched = len(sc.high) > 0 && bytes.Compare(sc.low, sc.high) >= 0
	if sc.o.Reverse {
		slices.Reverse(sc.own)
	}
	sc.bo = sc.sn.s.newBackoff(backoffRegion)
}

// NextBlock returns the next pairs, at least one, or io.EOF at the end. The
// block is valid until the next call.
func (sc *Scanner) NextBlock(ctx context.Context) (Block, error) {
	for sc.err == nil {
		if sc.o.Limit > 0 && sc.left == 0 || sc.fetched && len(sc.own) == 0 {
			sc.err = io.EOF
			sc.recycle()
			break
		}
		var block Block
		if !sc.fetched {
			var err error
			if block, err = sc.fetch(ctx); err != nil {
				sc.err = fmt.Errorf("scan: %w", err)
				break
			}
		}
		if len(sc.own) > 0 {
			block = sc.merge(block)
		}
		if sc.o.Limit > 0 {
			n := min(block.Len(), sc.left)
			block.off = block.off[:min(len(block.off), 2*n+1)]
			sc.left -= n
		}
		if block.Len() > 0 {
			return block, nil
		}
	}
	return Block{}, sc.err
}

// fetch reads one page of one region and moves low or high past it.
func (sc *Scanner) fetch(ctx context.Context) (Block, error) {
	r, low, high, err := sc.locate(ctx)
	if err != nil {
		return Block{}, err
	}
	req := &kvpb.ScanRequest{
		Context: sc.sn.kvContext(), ReadTs: sc.sn.ts, StartKey: low, EndKey: high,
		Reverse: sc.o.Reverse, KeyOnly: sc.o.KeyOnly,
	}
	if sc.o.Limit > 0 {
		req.Limit = uint32(min(sc.left+len(sc.own), 1<<30)) // own deletes may hide pairs
	}
	sc.recycle()
	resp, err := sc.sn.s.kv.Send(ctx, r, &kvpb.Request{Cmd: &kvpb.Request_Scan{Scan: req}})
	if errors.Is(err, kvclient.ErrRegionChanged) {
		return Block{}, sc.bo.wait(ctx)
	}
	if err != nil {
		return Block{}, err
	}
	sc.bo = sc.sn.s.newBackoff(backoffRegion)
	page := resp.GetScan()
	sc.page = page.GetPairs()
	block, ok := blockOf(sc.page)
	if !ok {
		return Block{}, errors.New("malformed block")
	}
	sc.advance(page, low, high)
	if page.GetError() != nil {
		return block, sc.sn.Settle(ctx, &sc.wait, page.GetError())
	}
	sc.wait = LockWait{}
	return block, nil
}

func (sc *Scanner) recycle() {
	sc.page.Recycle()
	sc.page = nil
}

// locate returns the next region and its part [low, high) of the range.
func (sc *Scanner) locate(ctx context.Context) (r kvclient.Region, low, high []byte, err error) {
	low, high = sc.low, sc.high
	if sc.o.Reverse {
		if r, err = sc.sn.s.kv.LocateBefore(ctx, high); err != nil {
			return r, nil, nil, err
		}
		if start := r.Meta.GetStartKey(); bytes.Compare(start, low) > 0 {
			low = start
		}
		return r, low, high, nil
	}
	if r, err = sc.sn.s.kv.Locate(ctx, low); err != nil {
		return r, nil, nil, err
	}
	if end := r.EndKey(); len(end) > 0 && (len(high) == 0 || bytes.Compare(end, high) < 0) {
		high = end
	}
	return r, low, high, nil
}

// advance moves past the page that was read of [low, high).
func (sc *Scanner) advance(page *kvpb.ScanResponse, low, high []byte) {
	switch {
	case page.GetMore() && sc.o.Reverse:
		low = page.GetResumeKey()
		sc.high = low
		sc.fetched = len(sc.high) == 0
	case page.GetMore():
		high = page.GetResumeKey()
		sc.low = high
	case sc.o.Reverse:
		sc.fetched = bytes.Equal(low, sc.low)
		sc.high = low
	default:
		sc.fetched = bytes.Equal(high, sc.high)
		sc.low = high
	}
	sc.reads.add(low, high, sc.sn.ts)
}

// merge lays the own writes of the part fetched so far over its pairs.
func (sc *Scanner) merge(block Block) Block {
	n := len(sc.own)
	if !sc.fetched {
		n, _ = slices.BinarySearchFunc(sc.own, true, func(e entry, _ bool) int {
			if sc.passed(e.key) {
				return -1
			}
			return 1
		})
	}
	if n == 0 {
		return block
	}
	own := sc.own[:n]
	sc.own = sc.own[n:]
	sc.out.reset()
	i := 0
	for i < block.Len() || len(own) > 0 {
		order := sc.order(block, i, own)
		if order <= 0 {
			if order == 0 {
				i++ // overwritten
			}
			if own[0].put {
				sc.out.add(own[0].key, sc.valueOf(own[0]))
			}
			own = own[1:]
			continue
		}
		sc.out.add(block.Key(i), block.Value(i))
		i++
	}
	return sc.out
}

// passed reports whether key lies in the part already fetched.
func (sc *Scanner) passed(key []byte) bool {
	if sc.o.Reverse {
		return bytes.Compare(key, sc.high) >= 0
	}
	return bytes.Compare(key, sc.low) < 0
}

// order says which comes first in scan order: own[0] (< 0), pair i (> 0), or
// both are one key (0).
func (sc *Scanner) order(block Block, i int, own []entry) int {
	switch {
	case len(own) == 0:
		return 1
	case i == block.Len():
		return -1
	}
	c := bytes.Compare(own[0].key, block.Key(i))
	if sc.o.Reverse {
		return -c
	}
	return c
}

func (sc *Scanner) valueOf(e entry) []byte {
	if sc.o.KeyOnly {
		return nil
	}
	return e.value
}
