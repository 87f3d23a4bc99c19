package store

import "github.com/cairndb/cairn/kvnode/gc"

// collectGarbage has the garbage of the regions led here collected, until Close.
func (s *Store) collectGarbage() {
	if s.o.GCInterval < 0 {
		return
	}
	gc.New(gc.Options{
		Regions: s.led, SafePoint: s.safePoint.Load, Interval: s.o.GCInterval, Patience: s.o.GCPatience,
		Busy:   func() bool { return s.flow.verdict.Load().reason != "" },
		Logger: s.log, Registerer: s.o.Registerer,
	}).Run(s.ctx)
}

// led lists the regions led here.
func (s *Store) led() (list []gc.Led) {
	for _, r := range s.replicas() {
		if v := r.View(); v.Leading() && !v.Merging() {
			list = append(list, gc.Led{Region: v, Written: r.WrittenBytes()})
		}
	}
	return list
}
