package session

import (
	"fmt"

	"github.com/maypok86/otter/v2"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/sqlnode/parse"
	"github.com/cairndb/cairn/sqlnode/plan"
)

// planCacheSize is the number of plans kept per SQL node.
const planCacheSize = 4096

// planKey is all that a cached plan depends on. The schema version stands for
// every object the statement names: any schema change starts a new set of
// plans, and the old ones age out.
type planKey struct {
	sql       string
	db        string
	params    string // kinds and collations of the parameters, see paramKey
	version   int64
	mode      parse.SQLMode
	collation charset.ID
	divIncr   int
	// What a prepared statement was parsed with, which SET may have changed since.
	parsedMode      parse.SQLMode
	parsedCollation charset.ID
}

// planCache is shared by all sessions of a node; plans are immutable.
type planCache struct {
	cache *otter.Cache[planKey, *plan.Statement]
}

func newPlanCache(size int) (*planCache, error) {
	c, err := otter.New(&otter.Options[planKey, *plan.Statement]{MaximumSize: size})
	if err != nil {
		return nil, fmt.Errorf("plan cache: %w", err)
	}
	return &planCache{cache: c}, nil
}

func (c *planCache) get(k planKey) *plan.Statement {
	p, _ := c.cache.GetIfPresent(k)
	return p
}

func (c *planCache) put(k planKey, p *plan.Statement) { c.cache.Set(k, p) }

// texts remembers hashes of statement texts seen once, so that only a text
// that comes again is worth a place in the plan cache. It is a small table in
// each session; collisions only cost a place.
type texts [64]uint64

// again reports whether h was seen lately, and remembers it.
func (t *texts) again(h uint64) bool {
	slot := &t[h%uint64(len(t))]
	if *slot == h {
		return true
	}
	*slot = h
	return false
}
