package catalog

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cairndb/cairn/internal/keys"
)

// Defaults of Options.
const (
	DefaultPollInterval  = 50 * time.Millisecond
	DefaultRenewInterval = time.Second
	DefaultLease         = 10 * time.Second
	// leaseMargin is how long before the others may count this node as dead it stops committing.
	leaseMargin = 2 * time.Second
)

// ErrLeaseLost: this node could not renew its lease in time; the others may have gone on without it, so it must not
// commit writes, nor show what it reads, until the lease is renewed.
var ErrLeaseLost = errors.New("catalog: schema lease lost")

// Options of Open. The zero value of a duration means its default.
type Options struct {
	KV KV
	// Name, when not empty, is a name this node keeps over restarts and shares with no other one, such as that of the
	// store in the same process. A process that was killed and started again then replaces its old record at once;
	// otherwise the record holds up schema changes until its lease has run out, or for a second when the process was on
	// the same machine and can be seen to be gone.
	Name string
	// Virtual are the tables of the system databases that the node itself makes; they are in every snapshot.
	Virtual []*Table
	// PollInterval is how often the schema version is read, RenewInterval how often the node's record is renewed,
	// Lease how long a record counts.
	PollInterval, RenewInterval, Lease time.Duration
	Logger                             *slog.Logger
}

func (o *Options) fill() {
	if o.PollInterval == 0 {
		o.PollInterval = DefaultPollInterval
	}
	if o.RenewInterval == 0 {
		o.RenewInterval = DefaultRenewInterval
	}
	if o.Lease == 0 {
		o.Lease = DefaultLease
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

// generation is a snapshot with the number of transactions that use it.
type generation struct {
	snap *Snapshot
	refs atomic.Int64
}

// Catalog is this node's view of the schema. Safe for concurrent use.
type Catalog struct {
	opts    Options
	record  string // name of the node's record
	process process
	nodeID  string // of this process, never used again

	current    atomic.Pointer[generation]
	validUntil atomic.Int64 // time since base, in nanoseconds, until when this node may commit
	base       time.Time

	mu struct {
		sync.Mutex
		// older generations that may still be in use, oldest first
		older   []*generation
		records map[int64]record
		past    []*Snapshot   // of other moments than now, the one used last at the end
		changed chan struct{} // closed and replaced when a generation is installed or drained
		// dead remembers when processes of other nodes on this machine were first seen dead, by node id
		dead map[string]time.Time
	}
	// applying serialises this node's loads and schema changes; held over I/O.
	applying sync.Mutex

	kick   chan struct{} // wakes the loop to publish the node's record at once
	cancel context.CancelFunc
	done   chan struct{}
}

// Open loads the schema, registers the node and starts following. Close must be called.
func Open(ctx context.Context, o Options) (*Catalog, error) {
	o.fill()
	c := &Catalog{opts: o, nodeID: newNodeID(), record: o.Name, process: thisProcess(), base: time.Now(), kick: make(chan struct{}, 1), done: make(chan struct{})}
	if c.record == "" {
		c.record = c.nodeID
	}
	c.mu.changed = make(chan struct{})
	c.mu.dead = map[string]time.Time{}
	// Register before loading: a schema change that does not see our record committed before we load.
	if err := c.publish(ctx, 0, 0); err != nil {
		return nil, fmt.Errorf("catalog: register node: %w", err)
	}
	if err := c.Reload(ctx); err != nil {
		return nil, err
	}
	if err := c.renew(ctx); err != nil {
		return nil, err
	}
	// Look at the others once: a predecessor that was killed counts no more a second from now.
	if _, err := c.nodes(ctx); err != nil {
		return nil, err
	}
	loopCtx, cancel := context.WithCancel(context.Background())
	c.cancel = cancel
	go c.follow(loopCtx)
	return c, nil
}

func newNodeID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return fmt.Sprintf("%016x", binary.BigEndian.Uint64(b[:]))
}

// NodeID is the random name of this process as a SQL node.
func (c *Catalog) NodeID() string { return c.nodeID }

// Close stops following and removes the node's record, so that nobody waits for it. No transaction may be open.
func (c *Catalog) Close() error {
	c.cancel()
	<-c.done
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return c.opts.KV.Update(ctx, func(tx Tx) error { return tx.Delete(keys.Meta(nodePrefix + c.record)) })
}

// Snapshot is the newest loaded schema.
func (c *Catalog) Snapshot() *Snapshot { return c.current.Load().snap }

// Pin returns the newest loaded schema for a transaction to work on. release must be called once, when the transaction
// has ended; until then a schema change that must drain old versions waits for it.
func (c *Catalog) Pin() (snap *Snapshot, release func()) {
	for {
		g := c.current.Load()
		g.refs.Add(1)
		if c.current.Load() == g {
			return g.snap, func() { c.unpin(g) }
		}
		c.unpin(g) // replaced in between: whoever replaced it may not have seen us
	}
}

func (c *Catalog) unpin(g *generation) {
	if g.refs.Add(-1) > 0 || c.current.Load() == g {
		return
	}
	c.mu.Lock()
	c.pruneLocked()
	c.mu.Unlock()
	c.wake()
}

// pruneLocked forgets older generations nobody uses and tells waiters.
func (c *Catalog) pruneLocked() {
	kept := c.mu.older[:0]
	for _, g := range c.mu.older {
		if g.refs.Load() > 0 {
			kept = append(kept, g)
		}
	}
	clear(c.mu.older[len(kept):])
	c.mu.older = kept
	close(c.mu.changed)
	c.mu.changed = make(chan struct{})
}

// oldestLocked is the oldest version in use, the current one if no older is.
func (c *Catalog) oldestLocked() int64 {
	if len(c.mu.older) > 0 {
		return c.mu.older[0].snap.Version
	}
	return c.current.Load().snap.Version
}

func (c *Catalog) wake() {
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

// Valid returns ErrLeaseLost when this node must not commit, nor believe what it has read of tables: the others do not
// wait for its transactions before they remove data. Cheap; ask right before a commit, and after a read.
func (c *Catalog) Valid() error {
	if int64(time.Since(c.base)) < c.validUntil.Load() {
		return nil
	}
	return ErrLeaseLost
}

// Reload reads the stored schema now.
func (c *Catalog) Reload(ctx context.Context) error {
	c.applying.Lock()
	defer c.applying.Unlock()
	return c.reloadLocked(ctx)
}

// reloadLocked is Reload with c.applying held.
func (c *Catalog) reloadLocked(ctx context.Context) error {
	c.mu.Lock()
	prev := c.mu.records
	c.mu.Unlock()
	var snap *Snapshot
	var records map[int64]record
	err := c.opts.KV.View(ctx, func(tx Tx) (err error) {
		snap, records, err = load(ctx, tx, prev, c.opts.Virtual)
		return err
	})
	if err != nil {
		return fmt.Errorf("catalog: load schema: %w", err)
	}
	c.install(snap, records)
	return nil
}

// install makes snap the current schema unless a newer one is already there.
func (c *Catalog) install(snap *Snapshot, records map[int64]record) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.current.Load()
	if old != nil && old.snap.Version >= snap.Version {
		return
	}
	c.current.Store(&generation{snap: snap})
	c.mu.records = records
	if old != nil {
		c.mu.older = append(c.mu.older, old)
	}
	c.pruneLocked()
	c.wake()
}

// follow polls the version and renews the node's record until ctx ends.
func (c *Catalog) follow(ctx context.Context) {
	defer close(c.done)
	poll := time.NewTicker(c.opts.PollInterval)
	defer poll.Stop()
	renew := time.NewTicker(c.opts.RenewInterval)
	defer renew.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case <-poll.C:
			err = c.poll(ctx)
		case <-renew.C:
			err = c.renew(ctx)
		case <-c.kick:
			err = c.renew(ctx)
		}
		if err != nil && ctx.Err() == nil {
			c.opts.Logger.Warn("cannot follow the schema", "error", err)
		}
	}
}

func (c *Catalog) poll(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.opts.Lease)
	defer cancel()
	v, err := c.opts.KV.Latest(ctx, keys.Meta(versionName))
	if err != nil {
		return err
	}
	version, err := parseInt(versionName, v)
	if err != nil || version <= c.Snapshot().Version {
		return err
	}
	return c.Reload(ctx)
}
