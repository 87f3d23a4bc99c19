// Package meta is PD's own replicated metadata: a small key space on embedded
// etcd, leadership among the members, and writes that only the leader can make.
//
// # Leadership
//
// The leader owns the key "leader" and renews "leader/lease", whose value is for how
// long. Every write of the leader is a transaction that compares the revision of
// "leader", so a member that lost it cannot write, even if it does not know yet.
//
//  1. A member campaigns only while it leads etcd's own group, and steps down when
//     it no longer does.
//  2. The leader counts its lease from before a renewal was sent (Term.ValidAt). Each
//     other member counts it from when it saw the renewal, which is later, plus a
//     margin for clocks that run unevenly. Both use monotonic clocks.
//  3. A member takes over when, by its own count, the lease is over, by a transaction
//     that compares the revisions of both keys with those it saw. A renewal that it
//     did not see makes it fail.
//
// So a leader without quorum or disk stops by itself before another can start, and
// no clock is compared with another one. A renewal is a durable write on a majority
// and on the leader itself: a hung disk ends the lease. A leader whose lease ended
// while it still leads etcd gives that away too, and campaigns again only after a
// write to its disk came back.
//
// # Keys
//
//	leader            member that leads (JSON)
//	leader/lease      duration of the lease in milliseconds
//	everything else   written by the leader through Term
//
// All keys live under the prefix "cairn/". Members, with their addresses, are etcd's
// own records.
//
// # Files
//
//	FORMAT    marks a directory as ours
//	LOCK      held while it is open
//	JOIN      addresses of the cluster it joins or joined
//	REMOVED   the member was removed from its cluster; it does not come back
//	DISK      written to see whether the disk answers
//	member/   etcd's
//
// The package opens no port: Handler answers the other members wherever its owner
// serves it. A single member needs none, calls are direct.
package meta

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/cairndb/cairn/internal/certs"
)

var (
	// ErrNotLeader: the write was refused because leadership was lost.
	ErrNotLeader = errors.New("meta: not leader")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("meta: closed")
)

// CorruptError says that the data directory is not usable as it is.
type CorruptError struct {
	Dir string
	Err error
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("meta: data directory %s is damaged or not one of PD: %v", e.Dir, e.Err)
}

func (e *CorruptError) Unwrap() error { return e.Err }

// ErrRemoved: this member was removed from its cluster. Its directory is of no use
// any more; with an empty one it can join again.
var ErrRemoved = errors.New("meta: this member was removed from its cluster")

// Options of a Store.
type Options struct {
	// Dir holds etcd's files; made when missing.
	Dir string
	// Name of this member, for people; "" = "pd".
	Name string
	// Address is the host:port where other members and clients reach this one.
	// Whoever answers there hands requests of other members to Handler. "" = a single
	// member that is reached in this process only. It may change between starts.
	Address string

	// InitialCluster lists all members of a new cluster, name → address; used on first
	// start only. Empty = this one only.
	InitialCluster map[string]string
	// Join names members of a cluster that this one is to become part of; used on
	// first start only. Ask then asks them for it.
	Join []string
	// Ask adds this member to the cluster of the addresses and returns all members,
	// name → address, names being distinct and this one's as in Options. Repeated when
	// the first start was interrupted. Required with Join.
	Ask func(ctx context.Context, addrs []string, name, address string) (map[string]string, error)
	// Peer is the material for traffic among members; nil = plain.
	Peer *certs.Material

	// Tick and Election are etcd's heartbeat and election times; 0 = 50 ms and
	// 500 ms. They must be the same on all members.
	Tick, Election time.Duration
	// Lease is the life of leadership without renewal, in whole milliseconds; 0 = 1 s.
	// It is renewed at a third of it. A member without others takes ten times as much,
	// for nobody waits for its end.
	Lease time.Duration

	Logger     *slog.Logger          // nil = discard
	Registerer prometheus.Registerer // nil = not registered

	// UnsafeAlone makes this member forget all others and go on as the only one,
	// though it has no majority. Writes may be lost, and the others must never run again.
	UnsafeAlone bool

	// noSync skips fsync; tests only.
	noSync bool
}

// Member is one PD of the cluster.
type Member struct {
	ID      uint64 `json:"id"`
	Name    string `json:"name"`    // "" until it started for the first time
	Address string `json:"address"` // host:port of its PD service
	Learner bool   `json:"-"`       // follows and has no vote
}

func (o *Options) setDefaults() error {
	if o.Dir == "" {
		return errors.New("meta: no data directory")
	}
	if o.Name == "" {
		o.Name = "pd"
	}
	if o.Tick == 0 {
		o.Tick = 50 * time.Millisecond
	}
	if o.Election == 0 {
		o.Election = 500 * time.Millisecond
	}
	if o.Lease == 0 {
		o.Lease = time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Address == "" && (len(o.InitialCluster) > 0 || len(o.Join) > 0) {
		return errors.New("meta: several members need an address")
	}
	if len(o.InitialCluster) > 0 && o.InitialCluster[o.Name] != o.Address {
		return fmt.Errorf("meta: the initial cluster %v does not list %s at %s", o.InitialCluster, o.Name, o.Address)
	}
	return nil
}

// noAddress stands for the address of a member that is reached in its process only;
// nobody listens there or dials it.
const noAddress = "127.0.0.1:1"

// peerURL is how etcd knows an address.
func (o *Options) peerURL(address string) string {
	if address == "" {
		return "http://" + noAddress
	}
	if o.Peer != nil {
		return "https://" + address
	}
	return "http://" + address
}

// addressOf is the reverse of peerURL.
func addressOf(urls []string) string {
	if len(urls) == 0 {
		return ""
	}
	u, err := url.Parse(urls[0])
	if err != nil || u.Host == noAddress {
		return ""
	}
	return u.Host
}
