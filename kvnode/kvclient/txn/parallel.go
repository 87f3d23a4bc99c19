package txn

import (
	"errors"
	"sync"
)

// fanOut bounds the requests one operation has out at once.
const fanOut = 16

// forEach calls fn(0) … fn(n-1), several at once when n > 1, waits for all and
// joins their errors. fn(0) runs in the calling goroutine.
func (s *Store) forEach(n int, fn func(i int) error) error {
	if n == 0 {
		return nil
	}
	if n == 1 {
		return fn(0)
	}
	errs := make([]error, n)
	slots := make(chan struct{}, fanOut-1)
	var wg sync.WaitGroup
	for i := 1; i < n; i++ {
		slots <- struct{}{}
		wg.Add(1)
		s.crew.run(func() {
			defer wg.Done()
			defer func() { <-slots }()
			errs[i] = fn(i)
		})
	}
	errs[0] = fn(0)
	wg.Wait()
	return errors.Join(errs...)
}
