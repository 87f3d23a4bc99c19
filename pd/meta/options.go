// Package meta is PD's own replicated metadata: a small key space on embedded
// etcd, leadership among the members, and writes that only the leader can make.
//
// # Leadership
//
// The leader owns the key "leader", bound to an etcd lease. Every write of the
// leader is a transaction that compares the creation revision of that key, so a
// member that lost it cannot write, even if it does not know yet. Reads of soft
// state and timestamps need no round trip: Term.Valid tests the local end of the
// lease, counted from before the last renewal was sent, which is earlier than the
// end that etcd counts. A member campaigns only while it leads etcd's own group,
// and steps down when it no longer does: a leader without quorum or disk stops by
// itself before another can start.
//
// # Keys
//
//	leader            member that leads (JSON), bound to a lease
//	member/<id>       name and address of a member (JSON), id in hex
//	everything else   written by the leader through Term
//
// All keys live under the prefix "cairn/".
//
// A single member needs no port: nothing listens, calls are direct.
package meta

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"time"

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

// Options of a Store.
type Options struct {
	// Dir holds etcd's files; made when missing.
	Dir string
	// Name of this member; "" = "pd".
	Name string
	// Address is the host:port of this member's PD service, told to clients.
	// "" = none, it is reached in this process only.
	Address string

	// PeerURL is where the other members reach this one, and where it listens
	// (http://HOST:PORT, or https with Peer). "" = single member, no listener.
	PeerURL string
	// InitialCluster lists all members on first start, name → peer URL. Empty =
	// this one only.
	InitialCluster map[string]string
	// Join: the cluster exists and this member was added to it.
	Join bool
	// Peer is the material for https peer URLs; nil = plain.
	Peer *certs.Material

	// Tick and Election are etcd's heartbeat and election times; 0 = 50 ms and
	// 500 ms. A single embedded member does well with 10 ms and 100 ms.
	Tick, Election time.Duration
	// Lease is the life of leadership without renewal, in whole seconds; 0 = 3 s.
	Lease time.Duration

	Logger *slog.Logger // nil = discard

	// noSync skips fsync; tests only.
	noSync bool
}

// Member is one PD of the cluster.
type Member struct {
	ID      uint64 `json:"id"`
	Name    string `json:"name"`
	Address string `json:"address"` // host:port of its PD service
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
		o.Lease = 3 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.PeerURL == "" && (len(o.InitialCluster) > 0 || o.Join) {
		return errors.New("meta: several members need a peer URL")
	}
	if o.PeerURL == "" {
		return nil
	}
	u, err := url.Parse(o.PeerURL)
	if err != nil {
		return fmt.Errorf("meta: peer URL: %w", err)
	}
	if (u.Scheme == "https") != (o.Peer != nil) {
		return fmt.Errorf("meta: peer URL %s: https goes with certificates, http without", o.PeerURL)
	}
	return nil
}
