// Package safepoint decides how far the past may be forgotten. The safe point is the
// timestamp at which garbage may be collected: nobody reads before it any more.
//
// It follows the clock at a distance, the life time of versions, and is held back by
// whoever reads further in the past: transactions, which their nodes report again and
// again, and holds by name, of backups and the like, which are durable. It never goes back.
//
// It is raised in rounds. A node that reports is given a target; it settles the locks of
// all transactions that began at or before that, in all regions, and raises the safe
// point, as far as what holds it then allows.
//
// Reports are forgotten when PD's leader changes, so a new leader raises nothing before
// every living node has reported again.
//
// # What survives
//
// Keys: "safepoint" (decimal), "hold/<name>" (decimal: timestamp and Unix milliseconds of its end).
package safepoint

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cairndb/cairn/pd/meta"
	"github.com/cairndb/cairn/proto/pdpb"
	"google.golang.org/protobuf/proto"
)

const (
	pointKey = "safepoint"
	holdDir  = "hold/"

	// DefaultLife is how long versions live when no node says otherwise.
	DefaultLife = 10 * time.Minute
	// minLife is the shortest life time: a statement must be able to end.
	minLife = 5 * time.Second
	// maxPace is how far the safe point may lag behind what is allowed before the next round.
	maxPace = time.Minute
	// MaxReport is the longest life of a report, and how long a new leader waits for all.
	MaxReport = 30 * time.Second
	// maxReading is how long a transaction holds the safe point back. Who reads longer
	// is refused, and needs a hold by name.
	maxReading = 24 * time.Hour
	// maxHold is the longest hold by name; it can be renewed.
	maxHold = 30 * 24 * time.Hour
	// maxHolds is how many holds by name there can be.
	maxHolds = 1000
	maxName  = 256
)

var (
	// ErrInvalid: the request makes no sense.
	ErrInvalid = errors.New("safepoint: invalid request")
	// ErrPassed: the safe point is past what should be held.
	ErrPassed = errors.New("safepoint: passed already")
)

// Writer makes changes durable while leadership lasts (meta.Term).
type Writer interface {
	Write(ctx context.Context, ops ...meta.Op) error
}

// Reader reads what was written (meta.Store).
type Reader interface {
	Get(ctx context.Context, key string) (value []byte, found bool, err error)
	List(ctx context.Context, dir string, fn func(name string, value []byte) error) error
}

// Keeper keeps the safe point during one term of leadership. Safe for concurrent use.
// It has no clock: callers say what time it is, and bring a fresh timestamp, now.
type Keeper struct {
	w     Writer
	began time.Time

	// admin serialises the durable changes; held during writes. Before mu.
	admin sync.Mutex

	mu    sync.Mutex // protects the fields below; no I/O under it
	point uint64
	holds map[string]hold
	nodes map[string]*node
	round round
	last  *pdpb.SafePointRound
	ended time.Time // of last
}

// hold is one by name.
type hold struct {
	ts    uint64
	until time.Time
}

// node is the last report of one.
type node struct {
	oldest uint64 // 0 = none
	what   string
	life   time.Duration // 0 = no opinion
	until  time.Time
}

// round is one under way; without a holder there is none.
type round struct {
	holder  string
	target  uint64
	began   time.Time
	trouble string
}

// Load reads what survived at the beginning of a term; changes go to w.
func Load(ctx context.Context, at time.Time, r Reader, w Writer) (*Keeper, error) {
	k := &Keeper{w: w, began: at, holds: map[string]hold{}, nodes: map[string]*node{}}
	value, found, err := r.Get(ctx, pointKey)
	if err != nil {
		return nil, err
	}
	if found {
		if k.point, err = strconv.ParseUint(string(value), 10, 64); err != nil {
			return nil, fmt.Errorf("safepoint: %s: %w", pointKey, err)
		}
	}
	return k, r.List(ctx, holdDir, func(name string, value []byte) error {
		ts, until, _ := strings.Cut(string(value), " ")
		n, err := strconv.ParseUint(ts, 10, 64)
		ms, err2 := strconv.ParseInt(until, 10, 64)
		k.holds[name] = hold{ts: n, until: time.UnixMilli(ms)}
		return errors.Join(err, err2)
	})
}

// Point is the safe point in force.
func (k *Keeper) Point() uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.point
}

// Report takes the report of a node and says whether it is to begin a round.
func (k *Keeper) Report(at time.Time, now uint64, r *pdpb.ReportReadsRequest) (point, target uint64, err error) {
	ttl := time.Duration(r.GetTtlMs()) * time.Millisecond
	switch {
	case r.GetHolder() == "" || len(r.GetHolder()) > maxName:
		return 0, 0, fmt.Errorf("%w: a report needs a name", ErrInvalid)
	case ttl <= 0 || ttl > MaxReport:
		return 0, 0, fmt.Errorf("%w: a report lives %s, it may up to %s", ErrInvalid, ttl, MaxReport)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.nodes[r.GetHolder()] = &node{
		oldest: r.GetOldestTs(), what: r.GetOldestWhat(),
		life: time.Duration(r.GetLifeMs()) * time.Millisecond, until: at.Add(ttl),
	}
	k.forgetLocked(at)
	if k.round.holder == r.GetHolder() {
		k.round.trouble = r.GetTrouble()
		if r.GetRound() == 0 {
			k.endRoundLocked(at)
		}
	}
	if k.round.holder != "" {
		return k.point, 0, nil
	}
	allowed, _ := k.allowedLocked(at, now)
	pace := min(k.lifeLocked()/10, maxPace)
	if allowed < k.point+physical(pace) {
		return k.point, 0, nil
	}
	k.round = round{holder: r.GetHolder(), target: allowed, began: at}
	return k.point, allowed, nil
}

// forgetLocked drops nodes that are not heard of any more, and the round of one.
func (k *Keeper) forgetLocked(at time.Time) {
	maps.DeleteFunc(k.nodes, func(_ string, n *node) bool { return at.After(n.until) })
	if k.round.holder != "" && k.nodes[k.round.holder] == nil {
		k.round.trouble = "the node was not heard of any more"
		k.endRoundLocked(at)
	}
}

func (k *Keeper) endRoundLocked(at time.Time) {
	k.last = &pdpb.SafePointRound{
		Holder: k.round.holder, Target: k.round.target, Trouble: k.round.trouble,
		RunningMs: uint64(at.Sub(k.round.began).Milliseconds()),
	}
	k.round, k.ended = round{}, at
}

// Raise raises the safe point to ts, or as far as it may be, and returns the one in force.
// The locks of all transactions that began at or before ts are settled. holder, which may
// be empty, has ended its round.
func (k *Keeper) Raise(ctx context.Context, at time.Time, now, ts uint64, holder string) (uint64, error) {
	k.admin.Lock()
	defer k.admin.Unlock()
	k.mu.Lock()
	k.forgetLocked(at)
	if holder != "" && k.round.holder == holder {
		k.endRoundLocked(at)
	}
	allowed, _ := k.allowedLocked(at, now)
	point := k.point
	k.mu.Unlock()
	// What is reported from here on about the past comes too late: it was not there when
	// the round began either, for the target was chosen before the locks were settled.
	if ts = min(ts, allowed); ts <= point {
		return point, nil
	}
	if err := k.w.Write(ctx, meta.Op{Key: pointKey, Value: strconv.AppendUint(nil, ts, 10)}); err != nil {
		return 0, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.point = ts
	return ts, nil
}

// Hold keeps the safe point from passing ts, 0 for where it is, for ttl; with a ttl of
// 0 it ends the hold. It returns what is held. ErrPassed when it is too late.
func (k *Keeper) Hold(ctx context.Context, at time.Time, name string, ts uint64, ttl time.Duration) (uint64, error) {
	switch {
	case name == "" || len(name) > maxName || strings.ContainsAny(name, "/\x00"):
		return 0, fmt.Errorf("%w: the name of a hold has 1 to %d bytes and no slash", ErrInvalid, maxName)
	case ttl < 0 || ttl > maxHold:
		return 0, fmt.Errorf("%w: a hold lasts up to %s", ErrInvalid, maxHold)
	}
	k.admin.Lock()
	defer k.admin.Unlock()
	k.mu.Lock()
	point, held := k.point, len(k.holds)
	_, again := k.holds[name]
	k.mu.Unlock()
	if ttl == 0 {
		if !again {
			return ts, nil
		}
		return ts, k.writeHold(ctx, meta.Op{Key: holdDir + name, Delete: true}, name, hold{})
	}
	if ts == 0 {
		ts = point
	}
	switch {
	case ts < point:
		return 0, fmt.Errorf("%w: %d is before the safe point %d", ErrPassed, ts, point)
	case held >= maxHolds && !again:
		return 0, fmt.Errorf("%w: there are %d holds already", ErrInvalid, held)
	}
	h := hold{ts: ts, until: at.Add(ttl)}
	op := meta.Op{Key: holdDir + name, Value: fmt.Appendf(nil, "%d %d", ts, h.until.UnixMilli())}
	return ts, k.writeHold(ctx, op, name, h)
}

// writeHold makes a hold, or, without a timestamp, its end, durable.
func (k *Keeper) writeHold(ctx context.Context, op meta.Op, name string, h hold) error {
	if err := k.w.Write(ctx, op); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if op.Delete {
		delete(k.holds, name)
	} else {
		k.holds[name] = h
	}
	return nil
}

// Expire forgets the holds that are over.
func (k *Keeper) Expire(ctx context.Context, at time.Time) error {
	k.mu.Lock()
	var over []string
	for name, h := range k.holds {
		if at.After(h.until) {
			over = append(over, name)
		}
	}
	k.mu.Unlock()
	for _, name := range over {
		k.admin.Lock()
		err := k.expireOne(ctx, at, name)
		k.admin.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

func (k *Keeper) expireOne(ctx context.Context, at time.Time, name string) error {
	k.mu.Lock()
	h, there := k.holds[name]
	k.mu.Unlock()
	if !there || !at.After(h.until) { // renewed meanwhile
		return nil
	}
	return k.writeHold(ctx, meta.Op{Key: holdDir + name, Delete: true}, name, hold{})
}

// lifeLocked is how long versions live: the longest that a node wants.
func (k *Keeper) lifeLocked() time.Duration {
	var life time.Duration
	for _, n := range k.nodes {
		life = max(life, n.life)
	}
	if life == 0 {
		return DefaultLife
	}
	return max(life, minLife)
}

// allowedLocked is how far the safe point may be raised, at least to where it is, and
// why not further.
func (k *Keeper) allowedLocked(at time.Time, now uint64) (uint64, string) {
	if left := MaxReport - at.Sub(k.began); left > 0 {
		return k.point, fmt.Sprintf("this PD began to lead %s ago: it waits %s more for all nodes to report what they read",
			at.Sub(k.began).Round(time.Second), left.Round(time.Second))
	}
	life := k.lifeLocked()
	allowed, why := before(now, life), fmt.Sprintf("versions live for %s", life)
	for _, name := range slices.Sorted(maps.Keys(k.nodes)) {
		n := k.nodes[name]
		if n.oldest != 0 && n.oldest < allowed && !ancient(now, n.oldest) {
			allowed, why = n.oldest, fmt.Sprintf("%s reads since %s: %s", name, clock(n.oldest), n.what)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(k.holds)) {
		if h := k.holds[name]; h.ts < allowed && !at.After(h.until) {
			allowed, why = h.ts, fmt.Sprintf("held by %s until %s", name, h.until.UTC().Format(time.DateTime))
		}
	}
	return max(allowed, k.point), why
}

// ancient says whether a transaction is too old to be waited for.
func ancient(now, ts uint64) bool { return ts < before(now, maxReading) }

// Describe tells where the safe point is and why.
func (k *Keeper) Describe(at time.Time, now uint64) *pdpb.DescribeSafePointResponse {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.forgetLocked(at)
	d := &pdpb.DescribeSafePointResponse{SafePoint: k.point, Now: now, LifeMs: uint64(k.lifeLocked().Milliseconds())}
	d.Allowed, d.Reason = k.allowedLocked(at, now)
	for name, n := range k.nodes {
		d.Holds = append(d.Holds, &pdpb.SafePointHold{
			Name: name, Ts: n.oldest, What: n.what, LeftMs: left(at, n.until), Ignored: n.oldest != 0 && ancient(now, n.oldest),
		})
	}
	for name, h := range k.holds {
		d.Holds = append(d.Holds, &pdpb.SafePointHold{Name: name, Service: true, Ts: h.ts, LeftMs: left(at, h.until)})
	}
	slices.SortFunc(d.Holds, func(a, b *pdpb.SafePointHold) int {
		// Those that read nothing come last.
		return cmp.Or(cmp.Compare(a.Ts-1, b.Ts-1), strings.Compare(a.Name, b.Name))
	})
	if r := &k.round; r.holder != "" {
		d.Round = &pdpb.SafePointRound{
			Holder: r.holder, Target: r.target, Trouble: r.trouble, RunningMs: uint64(at.Sub(r.began).Milliseconds()),
		}
	}
	if k.last != nil {
		r := proto.CloneOf(k.last)
		r.EndedMs = uint64(at.Sub(k.ended).Milliseconds())
		d.LastRound = r
	}
	return d
}

func left(at, until time.Time) uint64 { return uint64(max(until.Sub(at), 0).Milliseconds()) }

// physical is a duration in timestamps.
func physical(d time.Duration) uint64 { return uint64(d.Milliseconds()) << 18 }

// before is the timestamp d before ts.
func before(ts uint64, d time.Duration) uint64 { return ts - min(ts, physical(d)) }

func clock(ts uint64) string {
	return time.UnixMilli(int64(ts >> 18)).UTC().Format(time.DateTime)
}
