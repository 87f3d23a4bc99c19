package cluster

import (
	"math"
	"time"

	"github.com/cairndb/cairn/proto/pdpb"
)

// rateMemory is how long a rate takes to forget: after it, what was before counts
// for about a third.
const rateMemory = time.Minute

// Rates are per second, averaged over about rateMemory.
type Rates struct{ WrittenBytes, WrittenKeys, ReadBytes, ReadKeys, Queries float64 }

// observe takes in the amounts of a span.
func (r *Rates) observe(span time.Duration, amounts Rates) {
	if span <= 0 {
		return
	}
	secs := span.Seconds()
	weight := 1 - math.Exp(-secs/rateMemory.Seconds())
	mix := func(rate *float64, amount float64) { *rate += weight * (amount/secs - *rate) }
	mix(&r.WrittenBytes, amounts.WrittenBytes)
	mix(&r.WrittenKeys, amounts.WrittenKeys)
	mix(&r.ReadBytes, amounts.ReadBytes)
	mix(&r.ReadKeys, amounts.ReadKeys)
	mix(&r.Queries, amounts.Queries)
}

// Proto is the form for messages.
func (r Rates) Proto() *pdpb.Rates {
	return &pdpb.Rates{WrittenBytes: r.WrittenBytes, WrittenKeys: r.WrittenKeys, ReadBytes: r.ReadBytes, ReadKeys: r.ReadKeys, Queries: r.Queries}
}
