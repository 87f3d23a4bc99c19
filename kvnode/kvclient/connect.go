package kvclient

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/cairndb/cairn/pd/pdclient"
)

// ConnectOptions of Connect. The zero value of a field means its default.
type ConnectOptions struct {
	// PD is host:port of one or more placement drivers of the cluster; the others are
	// found through them. Required.
	PD         []string
	TLS        *tls.Config           // nil = plain text
	Logger     *slog.Logger          // nil = discard
	Registerer prometheus.Registerer // nil = not registered
}

// Cluster is a connection of a program to a cluster: what rawkv and txnkv work with.
type Cluster struct {
	KV *Client
	PD pdclient.Client
}

// Connect finds the placement driver's leader; ctx bounds that. Close the result, after
// what was made of it.
func Connect(ctx context.Context, o ConnectOptions) (*Cluster, error) {
	pd, err := pdclient.Dial(ctx, pdclient.Options{Addrs: o.PD, TLS: o.TLS, Logger: o.Logger, Registerer: o.Registerer})
	if err != nil {
		return nil, err
	}
	return &Cluster{KV: New(Options{PD: pd, TLS: o.TLS, Logger: o.Logger, Registerer: o.Registerer}), PD: pd}, nil
}

// Close ends all connections; requests under way fail.
func (c *Cluster) Close() error { return errors.Join(c.KV.Close(), c.PD.Close()) }
