package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/cairndb/cairn/internal/certs"
)

// clientTLS is what MySQL clients are offered: the certificate given, else one
// made in the data directory, else one for the life of the process.
func (c *config) clientTLS() (*tls.Config, error) {
	if (c.CertFile == "") != (c.KeyFile == "") {
		return nil, errors.New("--tls-cert and --tls-key go together")
	}
	if c.CertFile != "" {
		return certs.ServerConfig(c.CertFile, c.KeyFile, c.CAFile)
	}
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return nil, err
	}
	if c.DataDir != "" {
		return certs.SelfSigned(c.sub("tls"), []string{host})
	}
	dir, err := os.MkdirTemp("", "cairn-tls-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }() // the configuration holds the pair by now
	return certs.SelfSigned(dir, []string{host})
}

// peerTLS is the mutual TLS of the components; nil when it is not asked for.
func (c *config) peerTLS() (*certs.Material, error) {
	if c.CertDir == "" {
		return nil, nil
	}
	m, err := certs.Load(c.CertDir)
	if err != nil {
		return nil, fmt.Errorf("--cluster-cert-dir %s: %w", c.CertDir, err)
	}
	return m, nil
}
