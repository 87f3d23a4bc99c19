package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"

	"github.com/cairndb/cairn/internal/certs"
)

// clientTLS is what MySQL clients are offered: the certificate given, else one
// made in the data directory, else none.
func (c *config) clientTLS() (*tls.Config, error) {
	if (c.CertFile == "") != (c.KeyFile == "") {
		return nil, errors.New("--tls-cert and --tls-key go together")
	}
	if c.CertFile != "" {
		return certs.ServerConfig(c.CertFile, c.KeyFile, c.CAFile)
	}
	if c.DataDir == "" {
		return nil, nil
	}
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return nil, err
	}
	return certs.SelfSigned(c.sub("tls"), []string{host})
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
