// Package certs holds TLS material: the certificate shown to MySQL clients, made
// on first start, and the mutual TLS of the components among themselves.
//
// Files are PEM; private keys are written with mode 0600. Keys are ECDSA P-256.
//
// Components authenticate each other by one cluster authority: Material loads
// ca.pem, node.pem and node-key.pem from a directory. Being signed by the
// authority is not enough: the certificate must also bear the name NodeName (as
// common name or DNS name), so that a certificate issued for something else, a
// client for example, opens no door.
package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

const (
	// NodeName is the name every component's certificate bears.
	NodeName = "cairn-node"

	CAFile      = "ca.pem"
	CAKeyFile   = "ca-key.pem"
	NodeFile    = "node.pem"
	NodeKeyFile = "node-key.pem"
	// ServerFile and ServerKeyFile are the self-signed pair for MySQL clients.
	ServerFile    = "server-cert.pem"
	ServerKeyFile = "server-key.pem"
)

// ErrNotNode says that a peer's certificate is valid and not one of a component.
var ErrNotNode = errors.New("certs: peer certificate does not bear the name " + NodeName)

// Material is what a component needs for mutual TLS.
type Material struct {
	dir  string
	pair tls.Certificate
	pool *x509.CertPool
}

// Load reads ca.pem, node.pem and node-key.pem from dir.
func Load(dir string) (*Material, error) {
	pool, err := loadPool(filepath.Join(dir, CAFile))
	if err != nil {
		return nil, err
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, NodeFile), filepath.Join(dir, NodeKeyFile))
	if err != nil {
		return nil, fmt.Errorf("certs: node certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return nil, fmt.Errorf("certs: node certificate: %w", err)
	}
	if !bearsNodeName(leaf) {
		return nil, fmt.Errorf("certs: %s: %w", filepath.Join(dir, NodeFile), ErrNotNode)
	}
	return &Material{dir: dir, pair: pair, pool: pool}, nil
}

func loadPool(path string) (*x509.CertPool, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("certs: authority: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("certs: no certificate in %s", path)
	}
	return pool, nil
}

// Server is the configuration of a listener that only components may use.
func (m *Material) Server() *tls.Config {
	return &tls.Config{
		MinVersion:       tls.VersionTLS13,
		Certificates:     []tls.Certificate{m.pair},
		ClientAuth:       tls.RequireAndVerifyClientCert,
		ClientCAs:        m.pool,
		VerifyConnection: verifyNode,
	}
}

// Client is the configuration of a connection to another component. The peer is
// recognised by NodeName, not by its address: nodes may move.
func (m *Material) Client() *tls.Config {
	return &tls.Config{
		MinVersion:       tls.VersionTLS13,
		Certificates:     []tls.Certificate{m.pair},
		RootCAs:          m.pool,
		ServerName:       NodeName,
		VerifyConnection: verifyNode,
	}
}

// Paths returns the files behind m, for libraries that load them by themselves.
func (m *Material) Paths() (ca, cert, key string) {
	return filepath.Join(m.dir, CAFile), filepath.Join(m.dir, NodeFile), filepath.Join(m.dir, NodeKeyFile)
}

// verifyNode runs after the chain was verified, on resumed sessions too.
func verifyNode(cs tls.ConnectionState) error {
	if len(cs.PeerCertificates) > 0 && bearsNodeName(cs.PeerCertificates[0]) {
		return nil
	}
	return ErrNotNode
}

func bearsNodeName(c *x509.Certificate) bool {
	if c.Subject.CommonName == NodeName {
		return true
	}
	for _, name := range c.DNSNames {
		if name == NodeName {
			return true
		}
	}
	return false
}

// ServerConfig returns the TLS configuration of a MySQL listener with the pair in
// the given files. clientCA, when not empty, is the authority for client
// certificates (X509 accounts); a client may still come without one.
func ServerConfig(certFile, keyFile, clientCA string) (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("certs: server certificate: %w", err)
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}}
	if clientCA != "" {
		if cfg.ClientCAs, err = loadPool(clientCA); err != nil {
			return nil, err
		}
		cfg.ClientAuth = tls.VerifyClientCertIfGiven
	}
	return cfg, nil
}

// SelfSigned returns the TLS configuration of a MySQL listener with the
// self-signed pair in dir, generating it when it is missing or expires within a
// month. hosts are names and addresses to put into the certificate besides
// localhost.
func SelfSigned(dir string, hosts []string) (*tls.Config, error) {
	certFile, keyFile := filepath.Join(dir, ServerFile), filepath.Join(dir, ServerKeyFile)
	if !usable(certFile, keyFile) {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("certs: %w", err)
		}
		if err := generateSelfSigned(certFile, keyFile, hosts); err != nil {
			return nil, err
		}
	}
	return ServerConfig(certFile, keyFile, "")
}
