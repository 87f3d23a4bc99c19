package wire

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"sync"

	"github.com/go-mysql-org/go-mysql/mysql"
	"github.com/pingcap/tidb/pkg/parser/auth"
)

// Authentication plugins understood.
const (
	PluginNative      = "mysql_native_password"
	PluginCachingSHA2 = "caching_sha2_password"
)

// Credential is how an account proves itself. Only hashes are stored: for the
// native plugin "*" and the hex of SHA1(SHA1(password)), for caching_sha2
// "$A$005$" salt and hash; an empty Hash is an empty password.
type Credential struct {
	ID     string // account, as 'user'@'host pattern'; names it in the cache
	Plugin string
	Hash   string
	// Denied makes every proof fail. An unknown user has a denied credential,
	// so that it takes the same road as a known one.
	Denied bool
}

// Credentials finds the account of a user who comes from host. It always
// answers; a user that does not exist gets a Denied credential.
type Credentials interface {
	Credential(user, host string) Credential
}

// AuthCache remembers, per account and password hash, the digest that lets a
// caching_sha2 client log in without sending its password again, and holds the
// RSA key for those that must send it over a connection without TLS. It is
// safe for concurrent use.
type AuthCache struct {
	mu struct {
		sync.RWMutex
		digest map[string][]byte // ID + "\x00" + Hash → SHA256(SHA256(password))
	}
	rsa struct {
		sync.Once
		key *rsa.PrivateKey
		pem []byte
		err error
	}
	// nobody is the hash that the password of an account without one is
	// compared with, so that it takes as long as that of one that exists.
	nobody func() string
}

// NewAuthCache returns an empty cache. The RSA key is made when first needed.
func NewAuthCache() *AuthCache {
	a := &AuthCache{nobody: sync.OnceValue(func() string {
		return auth.NewHashPassword(rand.Text(), PluginCachingSHA2)
	})}
	a.mu.digest = map[string][]byte{}
	return a
}

func (a *AuthCache) get(c Credential) []byte {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.mu.digest[c.ID+"\x00"+c.Hash]
}

func (a *AuthCache) put(c Credential, password []byte) {
	one := sha256.Sum256(password)
	two := sha256.Sum256(one[:])
	a.mu.Lock()
	defer a.mu.Unlock()
	a.mu.digest[c.ID+"\x00"+c.Hash] = two[:]
}

func (a *AuthCache) rsaKey() (*rsa.PrivateKey, []byte, error) {
	a.rsa.Do(func() {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			a.rsa.err = fmt.Errorf("wire: RSA key: %w", err)
			return
		}
		der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
		if err != nil {
			a.rsa.err = fmt.Errorf("wire: RSA key: %w", err)
			return
		}
		a.rsa.key = key
		a.rsa.pem = pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	})
	return a.rsa.key, a.rsa.pem, a.rsa.err
}

// authenticate checks the proof in resp, or asks for another one if the
// account uses another plugin than the client guessed.
func (c *Conn) authenticate(login *Login, resp *response, salt []byte, cache *AuthCache) error {
	cred := login.Account
	token := resp.token
	plugin := resp.plugin
	if c.caps&mysql.CLIENT_PLUGIN_AUTH == 0 {
		plugin = PluginNative
	}
	if plugin != cred.Plugin {
		if c.caps&mysql.CLIENT_PLUGIN_AUTH == 0 {
			return denied(login, token)
		}
		var err error
		if token, err = c.switchPlugin(cred.Plugin, salt); err != nil {
			return err
		}
	}
	ok, err := c.prove(cred, token, salt, cache)
	if err != nil {
		return err
	}
	if !ok || cred.Denied {
		return denied(login, token)
	}
	return nil
}

// maxUserName is the longest user name in bytes: 32 characters of utf8.
const maxUserName = 96

// denied cuts the name, which no account has: it goes into the log.
func denied(login *Login, token []byte) error {
	name := login.User[:min(len(login.User), maxUserName)]
	return &DeniedError{User: name, Host: login.Host, UsingPassword: len(token) > 0}
}

// switchPlugin asks the client to prove itself with another plugin.
func (c *Conn) switchPlugin(plugin string, salt []byte) ([]byte, error) {
	c.begin()
	c.wbuf = append(c.wbuf, mysql.EOF_HEADER)
	c.wbuf = append(c.wbuf, plugin...)
	c.wbuf = append(c.wbuf, 0)
	c.wbuf = append(c.wbuf, salt...)
	c.wbuf = append(c.wbuf, 0)
	c.end()
	if err := c.Flush(); err != nil {
		return nil, err
	}
	token, err := c.ReadPacket()
	return bytes.Clone(token), err
}

func (c *Conn) prove(cred Credential, token, salt []byte, cache *AuthCache) (bool, error) {
	// Some clients send a lone NUL for an empty password.
	if len(token) == 1 && token[0] == 0 {
		token = nil
	}
	if len(token) == 0 {
		return cred.Hash == "" && !cred.Denied, nil
	}
	switch cred.Plugin {
	case PluginNative:
		return checkNative(cred.Hash, token, salt), nil
	case PluginCachingSHA2:
		return c.proveSHA2(cred, token, salt, cache)
	}
	return false, fmt.Errorf("wire: account %s uses unknown plugin %q", cred.ID, cred.Plugin)
}

// checkNative verifies token = SHA1(password) XOR SHA1(salt + SHA1(SHA1(password))).
func checkNative(hash string, token, salt []byte) bool {
	if len(token) != sha1.Size || len(hash) != 1+2*sha1.Size || hash[0] != '*' {
		return false
	}
	stage2, err := hex.DecodeString(hash[1:])
	if err != nil {
		return false
	}
	mask := sha1.Sum(append(append([]byte(nil), salt...), stage2...))
	stage1 := make([]byte, sha1.Size)
	subtle.XORBytes(stage1, token, mask[:])
	got := sha1.Sum(stage1)
	return subtle.ConstantTimeCompare(got[:], stage2) == 1
}

// checkFast verifies token = SHA256(password) XOR SHA256(digest + salt), where
// digest = SHA256(SHA256(password)).
func checkFast(digest, token, salt []byte) bool {
	if len(token) != sha256.Size {
		return false
	}
	mask := sha256.Sum256(append(append([]byte(nil), digest...), salt...))
	one := make([]byte, sha256.Size)
	subtle.XORBytes(one, token, mask[:])
	got := sha256.Sum256(one)
	return subtle.ConstantTimeCompare(got[:], digest) == 1
}

// proveSHA2 tries the cached digest; without one the client sends its password,
// over TLS or encrypted with our RSA key.
func (c *Conn) proveSHA2(cred Credential, token, salt []byte, cache *AuthCache) (bool, error) {
	if digest := cache.get(cred); digest != nil {
		if !checkFast(digest, token, salt) {
			return false, nil
		}
		c.writeMore(mysql.CACHE_SHA2_FAST_AUTH)
		return true, nil
	}
	c.writeMore(mysql.CACHE_SHA2_FULL_AUTH)
	if err := c.Flush(); err != nil {
		return false, err
	}
	password, err := c.readPassword(salt, cache)
	if err != nil || password == nil {
		return false, err
	}
	hash := cred.Hash
	if hash == "" {
		hash = cache.nobody()
	}
	ok, err := auth.CheckHashingPassword([]byte(hash), string(password), PluginCachingSHA2)
	if err != nil {
		return false, fmt.Errorf("wire: stored hash of %s: %w", cred.ID, err)
	}
	ok = ok && cred.Hash != "" && !cred.Denied
	if ok {
		cache.put(cred, password)
	}
	return ok, nil
}

// readPassword receives the clear password; nil means it could not be decrypted.
func (c *Conn) readPassword(salt []byte, cache *AuthCache) ([]byte, error) {
	p, err := c.ReadPacket()
	if err != nil {
		return nil, err
	}
	if c.tls != nil {
		return bytes.TrimSuffix(bytes.Clone(p), []byte{0}), nil
	}
	key, pub, err := cache.rsaKey()
	if err != nil {
		return nil, err
	}
	if len(p) == 1 && p[0] == 2 { // the client asks for the public key
		c.begin()
		c.wbuf = append(c.wbuf, mysql.MORE_DATE_HEADER)
		c.wbuf = append(c.wbuf, pub...)
		c.end()
		if err := c.Flush(); err != nil {
			return nil, err
		}
		if p, err = c.ReadPacket(); err != nil {
			return nil, err
		}
	}
	plain, err := rsa.DecryptOAEP(sha1.New(), nil, key, p, nil)
	if err != nil {
		return nil, nil //nolint:nilerr // an undecryptable password is a wrong one
	}
	for i := range plain {
		plain[i] ^= salt[i%len(salt)]
	}
	return bytes.TrimSuffix(plain, []byte{0}), nil
}

func (c *Conn) writeMore(b byte) {
	c.begin()
	c.wbuf = append(c.wbuf, mysql.MORE_DATE_HEADER, b)
	c.end()
}

// ChangeUser parses COM_CHANGE_USER, authenticates the new account and returns
// the login. On error the connection must be closed.
func (c *Conn) ChangeUser(data []byte, host string, creds Credentials, cache *AuthCache) (*Login, error) {
	r := &reader{b: data}
	resp := &response{caps: c.caps, user: string(r.zeroString())}
	resp.token = bytes.Clone(r.bytes(int(r.uint(1))))
	resp.db = string(r.zeroString())
	resp.plugin = PluginNative
	if len(r.b) >= 2 {
		resp.collation = uint16(r.uint(2))
	}
	if c.caps&mysql.CLIENT_PLUGIN_AUTH != 0 && len(r.b) > 0 {
		resp.plugin = string(readPlugin(r))
	}
	if c.caps&mysql.CLIENT_CONNECT_ATTRS != 0 && len(r.b) > 0 {
		resp.attrs = readAttributes(r)
	}
	if r.bad {
		return nil, fmt.Errorf("%w: COM_CHANGE_USER", ErrMalformed)
	}
	login := &Login{User: resp.user, Host: host, Database: resp.db, Collation: resp.collation, Attributes: resp.attrs}
	login.Account = creds.Credential(login.User, host)
	// The token was made with the salt of the first handshake, which is gone by
	// design: always ask again with a fresh one.
	salt, err := newSalt()
	if err != nil {
		return nil, err
	}
	if c.caps&mysql.CLIENT_PLUGIN_AUTH == 0 {
		return nil, denied(login, resp.token)
	}
	token, err := c.switchPlugin(login.Account.Plugin, salt)
	if err != nil {
		return nil, err
	}
	ok, err := c.prove(login.Account, token, salt, cache)
	if err != nil {
		return nil, err
	}
	if !ok || login.Account.Denied {
		return nil, denied(login, token)
	}
	return login, nil
}
