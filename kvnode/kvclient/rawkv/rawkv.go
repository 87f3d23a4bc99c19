// Package rawkv stores keys and values without transactions.
//
// Every operation on one key is linearizable: it takes effect at one moment between call
// and return, in the same order for all clients, whatever fails meanwhile. There are no snapshots: a
// scan reads page after page, each as it is at its moment. Several keys change together
// only inside one region, which is nobody's promise: use txnkv for that.
//
// The keys have a part of the key space to themselves: neither SQL nor txnkv sees them. A key may be
// empty and is up to MaxKey bytes long; key and value together are at most MaxEntry bytes.
//
// # Lost answers
//
// A read is repeated until its time is over. A write is not, when an attempt may have been
// executed or may be yet: a late one would undo what others wrote since. Its error is
// kvclient.ErrUndetermined then. Put and Delete may be called again by who does not mind
// that; after a CompareAndSwap, look what the key has.
//
// # Time to live
//
// A pair put with a time to live is not seen when it is over, by the clock of the store that leads
// its region; clocks of stores differ by what their machines let them. It is removed within minutes.
package rawkv

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/cairndb/cairn/internal/keys"
	"github.com/cairndb/cairn/kvnode/kvclient"
	"github.com/cairndb/cairn/proto/kvpb"
)

// Limits of what is stored, in bytes.
const (
	MaxKey   = 16 << 10
	MaxEntry = 6 << 20
)

var (
	// ErrNotFound: the key has no value.
	ErrNotFound = errors.New("rawkv: key not found")
	// ErrTooLarge: MaxKey or MaxEntry is exceeded.
	ErrTooLarge = errors.New("rawkv: key or value too large")
)

// Client reads and writes raw pairs. It is safe for concurrent use and has nothing to close.
type Client struct{ kv *kvclient.Client }

// New returns a client of the cluster that kv is connected to.
func New(kv *kvclient.Client) *Client { return &Client{kv} }

// Pair is a key and its value. TTL is the time it lives when it is put, or has left when
// it was got with GetPair; 0 = for ever. It is cut to milliseconds, at least one.
type Pair struct {
	Key, Value []byte
	TTL        time.Duration
}

// Get returns the value of key, which belongs to the caller. Errors: ErrNotFound, those
// of kvclient, the context's.
func (c *Client) Get(ctx context.Context, key []byte) ([]byte, error) {
	p, err := c.GetPair(ctx, key)
	return p.Value, err
}

// GetPair is Get with the time the pair has left.
func (c *Client) GetPair(ctx context.Context, key []byte) (Pair, error) {
	k, err := rawKey(key, nil)
	if err != nil {
		return Pair{}, err
	}
	resp, err := c.send(ctx, k, &kvpb.RawRequest{Op: &kvpb.RawRequest_Get{Get: k}})
	switch {
	case err != nil:
		return Pair{}, err
	case !resp.GetFound():
		return Pair{}, ErrNotFound
	}
	return Pair{Key: key, Value: resp.GetValue(), TTL: time.Duration(resp.GetTtlMs()) * time.Millisecond}, nil
}

// Put stores value under key, for ever.
func (c *Client) Put(ctx context.Context, key, value []byte) error {
	return c.PutAll(ctx, []Pair{{Key: key, Value: value}})
}

// PutAll stores pairs, whose keys differ. It is faster than one after the other, and not
// atomic: after an error each of them may be stored or not.
func (c *Client) PutAll(ctx context.Context, pairs []Pair) error {
	list := make([]*kvpb.RawPair, len(pairs))
	names := make([][]byte, len(pairs))
	for i, p := range pairs {
		k, err := rawKey(p.Key, p.Value)
		if err != nil {
			return err
		}
		names[i], list[i] = k, &kvpb.RawPair{Key: k, Value: p.Value, TtlMs: millis(p.TTL)}
	}
	return c.each(ctx, names, func(of []int) *kvpb.RawRequest {
		put := &kvpb.RawPut{}
		for _, i := range of {
			put.Pairs = append(put.Pairs, list[i])
		}
		return &kvpb.RawRequest{Op: &kvpb.RawRequest_Put{Put: put}}
	})
}

// Delete removes keys, which differ; those without a value are no error. As PutAll, it is not atomic.
func (c *Client) Delete(ctx context.Context, list ...[]byte) error {
	names := make([][]byte, len(list))
	for i, k := range list {
		var err error
		if names[i], err = rawKey(k, nil); err != nil {
			return err
		}
	}
	return c.each(ctx, names, func(of []int) *kvpb.RawRequest {
		del := &kvpb.RawDelete{}
		for _, i := range of {
			del.Keys = append(del.Keys, names[i])
		}
		return &kvpb.RawRequest{Op: &kvpb.RawRequest_Delete{Delete: del}}
	})
}

// Swap is a CompareAndSwap to be made.
type Swap struct {
	// Old is the value the key must have; nil = it must have none. An empty value is not nil.
	Old []byte
	// New is the value to put; nil = delete the key.
	New []byte
	TTL time.Duration // of New; 0 = for ever
}

// CompareAndSwap changes key if its value is s.Old. It reports whether it was, and what the
// key had, nil if nothing.
func (c *Client) CompareAndSwap(ctx context.Context, key []byte, s Swap) (swapped bool, had []byte, err error) {
	k, err := rawKey(key, s.New)
	if err != nil {
		return false, nil, err
	}
	resp, err := c.send(ctx, k, &kvpb.RawRequest{Op: &kvpb.RawRequest_Cas{Cas: &kvpb.RawCompareAndSwap{
		Pair: &kvpb.RawPair{Key: k, Value: s.New, TtlMs: millis(s.TTL)}, Delete: s.New == nil,
		ExpectAbsent: s.Old == nil, Expect: s.Old,
	}}})
	if err != nil {
		return false, nil, err
	}
	if resp.GetFound() {
		had = append([]byte{}, resp.GetValue()...)
	}
	return resp.GetSwapped(), had, nil
}

// ScanOptions of Scan. The zero value of a field means its default.
type ScanOptions struct {
	Limit   int  // pairs; 0 = all
	KeyOnly bool // leave values out
}

// Scan delivers the pairs of [start, end) in the order of their keys; a nil end is the end
// of all raw keys. Keys and values belong to the caller. The loop ends after an error.
func (c *Client) Scan(ctx context.Context, start, end []byte, o ScanOptions) iter.Seq2[Pair, error] {
	return func(yield func(Pair, error) bool) {
		left := o.Limit
		at, to := keys.AppendRaw(nil, start), keys.RawEnd()
		if end != nil {
			to = keys.AppendRaw(nil, end)
		}
		for string(at) < string(to) {
			resp, next, err := c.page(ctx, at, to, ScanOptions{Limit: left, KeyOnly: o.KeyOnly})
			if err != nil {
				yield(Pair{}, err)
				return
			}
			b := resp.GetPairs()
			off := b.GetOffsets()
			for i := 0; i+2 < len(off); i += 2 {
				p := Pair{Key: b.Data[off[i]+1 : off[i+1] : off[i+1]], Value: b.Data[off[i+1]:off[i+2]:off[i+2]]}
				if !yield(p, nil) {
					return
				}
				if left--; left == 0 {
					return
				}
			}
			at = next
		}
	}
}

// page reads from at, and says where the next page begins.
func (c *Client) page(ctx context.Context, at, to []byte, o ScanOptions) (*kvpb.RawResponse, []byte, error) {
	for {
		r, err := c.kv.Locate(ctx, at)
		if err != nil {
			return nil, nil, err
		}
		end := to
		if e := r.Meta.GetEndKey(); len(e) > 0 && string(e) < string(to) {
			end = e
		}
		resp, err := c.kv.Send(ctx, r, rawRequest(&kvpb.RawRequest{Op: &kvpb.RawRequest_Scan{Scan: &kvpb.RawScan{
			StartKey: at, EndKey: end, Limit: uint32(min(max(o.Limit, 0), 1<<30)), KeyOnly: o.KeyOnly,
		}}}))
		if errors.Is(err, kvclient.ErrRegionChanged) {
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		got := resp.GetRaw()
		if err := failure(got); err != nil {
			return nil, nil, err
		}
		if got.GetMore() {
			end = got.GetResumeKey()
		}
		return got, end, nil
	}
}

// send sends a request about one key.
func (c *Client) send(ctx context.Context, key []byte, req *kvpb.RawRequest) (*kvpb.RawResponse, error) {
	for {
		r, err := c.kv.Locate(ctx, key)
		if err != nil {
			return nil, err
		}
		resp, err := c.kv.Send(ctx, r, rawRequest(req))
		if errors.Is(err, kvclient.ErrRegionChanged) && !errors.Is(err, kvclient.ErrUndetermined) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return resp.GetRaw(), failure(resp.GetRaw())
	}
}

// maxBatch is about how many bytes go into one request.
const maxBatch = 1 << 20

// each makes one request after the other for all keys, grouped by region.
func (c *Client) each(ctx context.Context, names [][]byte, request func(of []int) *kvpb.RawRequest) error {
	rest := make([]int, len(names))
	for i := range rest {
		rest[i] = i
	}
	for len(rest) > 0 {
		ask := make([][]byte, len(rest))
		for i, n := range rest {
			ask[i] = names[n]
		}
		groups, err := c.kv.Group(ctx, ask)
		if err != nil {
			return err
		}
		var again []int
		for _, g := range groups {
			of := make([]int, len(g.Index))
			for i, n := range g.Index {
				of[i] = rest[n]
			}
			for len(of) > 0 {
				part := request(of)
				n := len(of)
				for n > 1 && part.SizeVT() > maxBatch {
					n /= 2
					part = request(of[:n])
				}
				resp, err := c.kv.Send(ctx, g.Region, rawRequest(part))
				switch {
				case errors.Is(err, kvclient.ErrRegionChanged) && !errors.Is(err, kvclient.ErrUndetermined):
					again = append(again, of[:n]...)
				case err != nil:
					return err
				default:
					if err := failure(resp.GetRaw()); err != nil {
						return err
					}
				}
				of = of[n:]
			}
		}
		rest = again
	}
	return nil
}

func rawRequest(req *kvpb.RawRequest) *kvpb.Request {
	return &kvpb.Request{Cmd: &kvpb.Request_Raw{Raw: req}}
}

func failure(resp *kvpb.RawResponse) error {
	if why := resp.GetError(); why != "" {
		return fmt.Errorf("rawkv: %s", why)
	}
	return nil
}

func rawKey(key, value []byte) ([]byte, error) {
	if len(key) > MaxKey {
		return nil, fmt.Errorf("%w: a key of %d bytes, at most %d are possible", ErrTooLarge, len(key), MaxKey)
	}
	if n := len(key) + len(value); n > MaxEntry {
		return nil, fmt.Errorf("%w: key and value of %d bytes, at most %d are possible", ErrTooLarge, n, MaxEntry)
	}
	return keys.AppendRaw(make([]byte, 0, 1+len(key)), key), nil
}

func millis(ttl time.Duration) uint64 {
	if ttl <= 0 {
		return 0
	}
	return uint64(max(ttl.Milliseconds(), 1))
}
