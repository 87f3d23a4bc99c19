package certs

import (
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSelfSignedIsMadeOnceAndKeysAreSecret(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tls")
	_, err := SelfSigned(dir, []string{"db.example.org", "10.0.0.7"})
	require.NoError(t, err)
	first, err := os.ReadFile(filepath.Join(dir, ServerFile))
	require.NoError(t, err)
	for _, name := range []string{ServerFile, ServerKeyFile} {
		info, err := os.Stat(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode().Perm(), name)
	}
	cfg, err := SelfSigned(dir, nil)
	require.NoError(t, err)
	again, err := os.ReadFile(filepath.Join(dir, ServerFile))
	require.NoError(t, err)
	require.Equal(t, first, again)
	require.NoError(t, cfg.Certificates[0].Leaf.VerifyHostname("db.example.org"))
	require.NoError(t, cfg.Certificates[0].Leaf.VerifyHostname("10.0.0.7"))

	require.NoError(t, os.WriteFile(filepath.Join(dir, ServerKeyFile), []byte("garbage"), 0o600))
	_, err = SelfSigned(dir, nil)
	require.NoError(t, err, "a broken pair is replaced")
}

// handshake returns the errors of the server and of the client.
func handshake(t *testing.T, server, client *tls.Config) (error, error) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	errs := make(chan error, 1)
	s := tls.Server(a, server)
	go func() {
		err := s.Handshake()
		if err == nil {
			_, err = s.Write([]byte("x"))
		}
		a.Close()
		errs <- err
	}()
	c := tls.Client(b, client)
	_, err := c.Read(make([]byte, 1))
	return <-errs, err
}

func TestOnlyComponentsOfTheClusterMayConnect(t *testing.T) {
	ca, node1, node2, other := t.TempDir(), t.TempDir(), t.TempDir(), t.TempDir()
	require.NoError(t, CreateCA(ca))
	require.Error(t, CreateCA(ca), "an authority is not replaced")
	require.NoError(t, CreateNode(ca, node1, []string{"kv1"}))
	require.NoError(t, CreateNode(ca, node2, nil))
	require.NoError(t, CreateCA(other))
	require.NoError(t, CreateNode(other, other, nil))
	m1, err := Load(node1)
	require.NoError(t, err)
	m2, err := Load(node2)
	require.NoError(t, err)
	foreign, err := Load(other)
	require.NoError(t, err)

	serr, cerr := handshake(t, m1.Server(), m2.Client())
	require.NoError(t, serr)
	require.NoError(t, cerr)

	serr, _ = handshake(t, m1.Server(), foreign.Client())
	require.Error(t, serr, "certificate of another authority")

	bare := m2.Client()
	bare.Certificates = nil
	serr, _ = handshake(t, m1.Server(), bare)
	require.Error(t, serr, "no certificate")

	// Signed by our authority, for a person.
	user := t.TempDir()
	require.NoError(t, createSigned(ca, user, "client", []string{"client"}))
	_, err = Load(user)
	require.ErrorIs(t, err, ErrNotNode)
	pair, err := tls.LoadX509KeyPair(filepath.Join(user, NodeFile), filepath.Join(user, NodeKeyFile))
	require.NoError(t, err)
	asUser := m2.Client()
	asUser.Certificates = []tls.Certificate{pair}
	serr, _ = handshake(t, m1.Server(), asUser)
	require.ErrorIs(t, serr, ErrNotNode)
	evil := m1.Server()
	evil.Certificates = []tls.Certificate{pair}
	_, cerr = handshake(t, evil, m2.Client())
	require.Error(t, cerr, "a server that is not a component")
}
