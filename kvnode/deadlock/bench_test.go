package deadlock

import "testing"

// A wait that begins and ends on the detector's own store, among a thousand that queue for
// one key, each behind the next.
func BenchmarkWait(b *testing.B) {
	d, err := New(Options{Cluster: 1, Store: 1, First: func() (uint64, <-chan struct{}) { return 1, nil }})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	d.finder = newFinder(1)
	for txn := uint64(2); txn < 1002; txn++ {
		_, stop := d.Wait(txn, txn-1, nil, nil, false)
		defer stop()
	}
	// The middle closes a cycle of half of them.
	for name, waiter := range map[string]uint64{"last": 2000, "middle": 500} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, stop := d.Wait(waiter, 1001, nil, nil, false)
				stop()
			}
		})
	}
}
