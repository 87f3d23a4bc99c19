package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

const (
	caLife     = 10 * 365 * 24 * time.Hour
	nodeLife   = 2 * 365 * 24 * time.Hour
	serverLife = 5 * 365 * 24 * time.Hour
	renewBelow = 30 * 24 * time.Hour
	// Certificates are valid from a little before now: clocks differ.
	backdate = time.Hour
)

// CreateCA writes a new cluster authority (ca.pem, ca-key.pem) into dir. It does
// not replace an existing one.
func CreateCA(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("certs: %w", err)
	}
	tmpl, err := template("CairnDB cluster authority", caLife)
	if err != nil {
		return err
	}
	tmpl.IsCA, tmpl.BasicConstraintsValid = true, true
	tmpl.MaxPathLenZero = true
	tmpl.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	key, err := newKey()
	if err != nil {
		return err
	}
	return writePair(filepath.Join(dir, CAFile), filepath.Join(dir, CAKeyFile), tmpl, tmpl, key, key, false)
}

// CreateNode writes a component's certificate (ca.pem, node.pem, node-key.pem)
// into dir, signed by the authority in caDir. hosts are its names and addresses;
// they are informative, components recognise each other by NodeName.
func CreateNode(caDir, dir string, hosts []string) error {
	return createSigned(caDir, dir, NodeName, append([]string{NodeName, "localhost", "127.0.0.1", "::1"}, hosts...))
}

func createSigned(caDir, dir, name string, hosts []string) error {
	ca, err := tls.LoadX509KeyPair(filepath.Join(caDir, CAFile), filepath.Join(caDir, CAKeyFile))
	if err != nil {
		return fmt.Errorf("certs: authority: %w", err)
	}
	parent, err := x509.ParseCertificate(ca.Certificate[0])
	if err != nil {
		return fmt.Errorf("certs: authority: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("certs: %w", err)
	}
	tmpl, err := template(name, nodeLife)
	if err != nil {
		return err
	}
	addHosts(tmpl, hosts)
	tmpl.KeyUsage = x509.KeyUsageDigitalSignature
	tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	key, err := newKey()
	if err != nil {
		return err
	}
	if err := writePair(filepath.Join(dir, NodeFile), filepath.Join(dir, NodeKeyFile), tmpl, parent, key, ca.PrivateKey, true); err != nil {
		return err
	}
	if filepath.Clean(caDir) == filepath.Clean(dir) {
		return nil
	}
	return writePEM(filepath.Join(dir, CAFile), "CERTIFICATE", ca.Certificate[0], true)
}

func generateSelfSigned(certFile, keyFile string, hosts []string) error {
	tmpl, err := template("CairnDB server (generated)", serverLife)
	if err != nil {
		return err
	}
	addHosts(tmpl, append([]string{"localhost", "127.0.0.1", "::1"}, hosts...))
	tmpl.KeyUsage = x509.KeyUsageDigitalSignature
	tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	key, err := newKey()
	if err != nil {
		return err
	}
	return writePair(certFile, keyFile, tmpl, tmpl, key, key, true)
}

// usable reports whether the pair loads and stays valid for a while.
func usable(certFile, keyFile string) bool {
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return false
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	return err == nil && time.Until(leaf.NotAfter) > renewBelow
}

func newKey() (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("certs: generate key: %w", err)
	}
	return key, nil
}

func template(name string, life time.Duration) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126))
	if err != nil {
		return nil, fmt.Errorf("certs: serial number: %w", err)
	}
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    now.Add(-backdate),
		NotAfter:     now.Add(life),
	}, nil
}

func addHosts(tmpl *x509.Certificate, hosts []string) {
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else if h != "" {
			tmpl.DNSNames = append(tmpl.DNSNames, h)
		}
	}
}

func writePair(certFile, keyFile string, tmpl, parent *x509.Certificate, key *ecdsa.PrivateKey, signer crypto.PrivateKey, replace bool) error {
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, key.Public(), signer)
	if err != nil {
		return fmt.Errorf("certs: create certificate: %w", err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("certs: encode key: %w", err)
	}
	if err := writePEM(keyFile, "PRIVATE KEY", keyDER, replace); err != nil {
		return err
	}
	return writePEM(certFile, "CERTIFICATE", der, replace)
}

// writePEM writes through a temporary file, so that a crash leaves the old file
// or the new one. The mode is 0600 for keys and certificates alike.
func writePEM(path, kind string, der []byte, replace bool) error {
	if !replace {
		if _, err := os.Lstat(path); err == nil {
			return fmt.Errorf("certs: %s exists already", path)
		}
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return fmt.Errorf("certs: %w", err)
	}
	defer os.Remove(f.Name()) // fails once renamed
	if err := pem.Encode(f, &pem.Block{Type: kind, Bytes: der}); err != nil {
		f.Close()
		return fmt.Errorf("certs: write %s: %w", path, err)
	}
	if err := f.Sync(); err != nil {
		f.Close()
		return fmt.Errorf("certs: write %s: %w", path, err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("certs: write %s: %w", path, err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("certs: %w", err)
	}
	return nil
}
