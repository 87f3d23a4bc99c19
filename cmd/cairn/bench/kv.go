// Package bench is the command tree "cairn bench": it puts load on a running cluster
// and tells what it got.
package bench

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/cairndb/cairn/cmd/cairn/ctl"
	"github.com/cairndb/cairn/internal/certs"
	"github.com/cairndb/cairn/kvnode/kvclient"
	"github.com/cairndb/cairn/kvnode/kvclient/rawkv"
	"github.com/cairndb/cairn/kvnode/kvclient/txnkv"
)

// config are the flags of "cairn bench kv".
type config struct {
	pd        []string
	certDir   string
	workloads []string
	records   int
	valueSize int
	clients   int
	duration  time.Duration
	raw       bool
	keep      bool
	seed      uint64
}

// New returns the tree.
func New() *cobra.Command {
	cmd := &cobra.Command{Use: "bench", Short: "Put load on a running cluster", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(kvCommand())
	return cmd
}

func kvCommand() *cobra.Command {
	c := config{}
	cmd := &cobra.Command{
		Use: "kv", Short: "Run the workloads of YCSB on keys and values", Args: cobra.NoArgs,
		Long: `Kv stores records and runs the workloads of YCSB on them, without SQL: with
transactions, one for each operation, or on raw pairs. The records are removed at the end.

  a  half reads, half updates            d  reads of what is new, few inserts
  b  reads, few updates                  e  short scans, few inserts
  c  reads only                          f  half reads, half read-modify-write`,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.run(cmd.Context(), cmd.OutOrStdout()) },
	}
	f := cmd.Flags()
	f.StringSliceVar(&c.pd, "pd", ctl.DefaultAddrs, "addresses of the placement driver")
	f.StringVar(&c.certDir, "cluster-cert-dir", "", "directory with ca.pem, node.pem, node-key.pem, if the cluster uses TLS")
	f.StringSliceVar(&c.workloads, "workload", []string{"a", "b", "c", "d", "e", "f"}, "which workloads, in this order")
	f.IntVar(&c.records, "records", 100_000, "records to begin with")
	f.IntVar(&c.valueSize, "value-size", 1000, "bytes of a value")
	f.IntVar(&c.clients, "threads", 16, "clients at the same time")
	f.DurationVar(&c.duration, "time", 10*time.Second, "of one workload")
	f.BoolVar(&c.raw, "raw", false, "raw pairs instead of transactions")
	f.BoolVar(&c.keep, "keep", false, "leave the records there")
	f.Uint64Var(&c.seed, "seed", 0, "of the random choices; 0 = another one each time")
	return cmd
}

func (c *config) check() error {
	for _, w := range c.workloads {
		if _, ok := workloads[w]; !ok {
			return fmt.Errorf("--workload %s is not one of a, b, c, d, e, f", w)
		}
	}
	for _, n := range []struct {
		flag     string
		v, least int
	}{{"records", c.records, 2}, {"value-size", c.valueSize, 1}, {"threads", c.clients, 1}} {
		if n.v < n.least {
			return fmt.Errorf("--%s %d is less than %d", n.flag, n.v, n.least)
		}
	}
	if c.duration <= 0 {
		return fmt.Errorf("--time %v is not more than 0", c.duration)
	}
	return nil
}

func (c *config) run(ctx context.Context, out io.Writer) error {
	if err := c.check(); err != nil {
		return err
	}
	var config *tls.Config
	if c.certDir != "" {
		material, err := certs.Load(c.certDir)
		if err != nil {
			return fmt.Errorf("--cluster-cert-dir %s: %w", c.certDir, err)
		}
		config = material.Client()
	}
	dial, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	cluster, err := kvclient.Connect(dial, kvclient.ConnectOptions{PD: c.pd, TLS: config})
	if err != nil {
		return fmt.Errorf("no placement driver answers at %s (%w); is the cluster running? --pd says where", strings.Join(c.pd, ", "), err)
	}
	defer cluster.Close()
	var s store = &rawStore{rawkv.New(cluster.KV)}
	if !c.raw {
		db := txnkv.New(cluster, txnkv.Options{})
		defer db.Close()
		s = &txnStore{db}
	}
	if c.seed == 0 {
		c.seed = rand.Uint64()
	}
	fmt.Fprintf(out, "%d records of %d bytes, %d clients, seed %d\n", c.records, c.valueSize, c.clients, c.seed)
	if !c.keep {
		defer c.remove(out, s)
	}
	if err := c.load(ctx, out, s); err != nil {
		return err
	}
	records := c.records
	for i, name := range c.workloads {
		w := workloads[name]
		choose := newChooser(records, w.latest)
		if err := c.measure(ctx, out, s, w, choose, uint64(i+1)); err != nil {
			return err
		}
		records = int(choose.count.Load())
	}
	return nil
}

// loadBatch is how many records are put at a time.
const loadBatch = 200

func (c *config) load(ctx context.Context, out io.Writer, s store) error {
	var next atomic.Int64
	r := newReport(out, "load")
	err := c.each(ctx, r, 0, func(ctx context.Context, rng *rand.Rand) (operation, bool, error) {
		first := next.Add(loadBatch) - loadBatch
		n := min(first+loadBatch, int64(c.records))
		if first >= n {
			return 0, false, errDone
		}
		list := make([]rawkv.Pair, 0, loadBatch)
		for i := first; i < n; i++ {
			list = append(list, rawkv.Pair{Key: key(i), Value: value(rng, c.valueSize)})
		}
		return opInsert, false, s.putAll(ctx, list)
	})
	r.done(loadBatch)
	return err
}

func (c *config) measure(ctx context.Context, out io.Writer, s store, w workload, choose *chooser, stream uint64) error {
	ctx, cancel := context.WithTimeout(ctx, c.duration)
	defer cancel()
	var inserted atomic.Int64
	inserted.Store(choose.count.Load())
	r := newReport(out, w.name)
	err := c.each(ctx, r, stream, func(ctx context.Context, rng *rand.Rand) (op operation, again bool, err error) {
		switch op = w.choose(rng); op {
		case opRead:
			err = s.read(ctx, key(choose.next(rng)))
		case opUpdate:
			err = s.putAll(ctx, []rawkv.Pair{{Key: key(choose.next(rng)), Value: value(rng, c.valueSize)}})
		case opInsert:
			n := inserted.Add(1) - 1
			if err = s.putAll(ctx, []rawkv.Pair{{Key: key(n), Value: value(rng, c.valueSize)}}); err == nil {
				choose.inserted(n)
			}
		case opScan:
			err = s.scan(ctx, key(choose.next(rng)), 1+rng.IntN(maxScan))
		case opModify:
			again, err = s.modify(ctx, key(choose.next(rng)), value(rng, c.valueSize))
		}
		return op, again, err
	})
	r.done(1)
	return err
}

// errDone ends a client's loop.
var errDone = errors.New("nothing left to do")

// each runs do in all clients, again and again until ctx ends or there is an error.
func (c *config) each(ctx context.Context, r *report, stream uint64, do func(context.Context, *rand.Rand) (operation, bool, error)) error {
	stop := r.start()
	defer stop()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var clients sync.WaitGroup
	for i := range c.clients {
		clients.Go(func() {
			rng := rand.New(rand.NewPCG(c.seed, stream<<32|uint64(i)))
			for ctx.Err() == nil {
				begin := time.Now()
				op, again, err := do(ctx, rng)
				switch {
				case err == nil:
					r.add(op, time.Since(begin), again)
				case errors.Is(err, errDone), ctx.Err() != nil:
					return
				default:
					cancel(err)
				}
			}
		})
	}
	clients.Wait()
	if err := context.Cause(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// remove deletes the records, whatever has happened.
func (c *config) remove(out io.Writer, s store) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	n, err := s.clear(ctx)
	if err != nil {
		fmt.Fprintf(out, "%d records removed, then: %v\n", n, err)
		return
	}
	fmt.Fprintf(out, "%d records removed\n", n)
}

// store is how records are read and written.
type store interface {
	read(ctx context.Context, key []byte) error
	scan(ctx context.Context, start []byte, n int) error
	putAll(ctx context.Context, pairs []rawkv.Pair) error
	// modify replaces a value that it has read; again tells whether somebody else came first.
	modify(ctx context.Context, key, value []byte) (again bool, err error)
	clear(ctx context.Context) (int, error)
}

type txnStore struct{ db *txnkv.Client }

func (s *txnStore) read(ctx context.Context, key []byte) error {
	r, err := s.db.Snapshot(ctx)
	if err != nil {
		return err
	}
	_, err = r.Get(ctx, key)
	return err
}

func (s *txnStore) scan(ctx context.Context, start []byte, n int) error {
	r, err := s.db.Snapshot(ctx)
	if err != nil {
		return err
	}
	for _, err := range r.Scan(ctx, start, []byte(keyEnd), txnkv.ScanOptions{Limit: n}) {
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *txnStore) putAll(ctx context.Context, pairs []rawkv.Pair) error {
	return s.db.Update(ctx, func(t *txnkv.Txn) error {
		for _, p := range pairs {
			if err := t.Put(p.Key, p.Value); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *txnStore) modify(ctx context.Context, key, value []byte) (again bool, err error) {
	attempts := 0
	err = s.db.Update(ctx, func(t *txnkv.Txn) error {
		attempts++
		if _, err := t.Get(ctx, key); err != nil {
			return err
		}
		return t.Put(key, value)
	})
	return attempts > 1, err
}

func (s *txnStore) clear(ctx context.Context) (n int, err error) {
	for {
		r, err := s.db.Snapshot(ctx)
		if err != nil {
			return n, err
		}
		var found [][]byte
		for p, err := range r.Scan(ctx, []byte(keyPrefix), []byte(keyEnd), txnkv.ScanOptions{Limit: 1000, KeyOnly: true}) {
			if err != nil {
				return n, err
			}
			found = append(found, slices.Clone(p.Key))
		}
		if len(found) == 0 {
			return n, nil
		}
		err = s.db.Update(ctx, func(t *txnkv.Txn) error {
			for _, k := range found {
				if err := t.Delete(k); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return n, err
		}
		n += len(found)
	}
}

type rawStore struct{ kv *rawkv.Client }

func (s *rawStore) read(ctx context.Context, key []byte) error {
	_, err := s.kv.Get(ctx, key)
	return err
}

func (s *rawStore) scan(ctx context.Context, start []byte, n int) error {
	for _, err := range s.kv.Scan(ctx, start, []byte(keyEnd), rawkv.ScanOptions{Limit: n}) {
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *rawStore) putAll(ctx context.Context, pairs []rawkv.Pair) error {
	return s.kv.PutAll(ctx, pairs)
}

func (s *rawStore) modify(ctx context.Context, key, value []byte) (again bool, err error) {
	had, err := s.kv.Get(ctx, key)
	for err == nil {
		var swapped bool
		swapped, had, err = s.kv.CompareAndSwap(ctx, key, rawkv.Swap{Old: had, New: value})
		if swapped || err != nil {
			break
		}
		again = true
	}
	return again, err
}

func (s *rawStore) clear(ctx context.Context) (n int, err error) {
	var found [][]byte
	flush := func() error {
		if err := s.kv.Delete(ctx, found...); err != nil {
			return err
		}
		n += len(found)
		found = found[:0]
		return nil
	}
	for p, err := range s.kv.Scan(ctx, []byte(keyPrefix), []byte(keyEnd), rawkv.ScanOptions{KeyOnly: true}) {
		if err != nil {
			return n, err
		}
		if found = append(found, p.Key); len(found) == 1000 {
			if err := flush(); err != nil {
				return n, err
			}
		}
	}
	return n, flush()
}
