package sqlnode

import (
	"fmt"
	"os"
	"time"

	"github.com/cairndb/cairn/kvnode/kvclient/txn"
)

// keepSafePoint tells PD how far back this node's sessions read, and does rounds of
// garbage collection when PD gives them to it.
func (s *Server) keepSafePoint() {
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	s.store.KeepSafePoint(s.life, txn.KeeperOptions{
		PD: s.opts.PD,
		// Its catalog's id tells this process from all others; the rest is for people.
		Name:   fmt.Sprintf("sql %s %s (%s)", host, s.ln.Addr(), s.catalog.NodeID()),
		Oldest: s.engine.OldestRead,
		Life: func() time.Duration {
			d, err := time.ParseDuration(s.engine.Global("cairn_gc_life_time"))
			if err != nil {
				return 0
			}
			return d
		},
		Logger: s.log,
	})
}
