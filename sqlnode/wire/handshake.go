package wire

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"fmt"

	"github.com/go-mysql-org/go-mysql/mysql"
)

// serverCaps is what this server can do, before TLS is added.
const serverCaps = mysql.CLIENT_LONG_PASSWORD | mysql.CLIENT_FOUND_ROWS | mysql.CLIENT_LONG_FLAG |
	mysql.CLIENT_CONNECT_WITH_DB | mysql.CLIENT_ODBC | mysql.CLIENT_IGNORE_SPACE |
	mysql.CLIENT_PROTOCOL_41 | mysql.CLIENT_INTERACTIVE |
	mysql.CLIENT_TRANSACTIONS | mysql.CLIENT_SECURE_CONNECTION |
	mysql.CLIENT_MULTI_STATEMENTS | mysql.CLIENT_MULTI_RESULTS | mysql.CLIENT_PS_MULTI_RESULTS |
	mysql.CLIENT_PLUGIN_AUTH | mysql.CLIENT_CONNECT_ATTRS |
	mysql.CLIENT_PLUGIN_AUTH_LENENC_CLIENT_DATA | mysql.CLIENT_DEPRECATE_EOF

// saltSize is the length of the challenge of both password plugins.
const saltSize = 20

// HandshakeOptions is what the server says of itself and asks of a client.
type HandshakeOptions struct {
	Version     string // as SELECT VERSION() answers
	ConnID      uint32
	Collation   uint8       // default collation id, its low byte
	TLS         *tls.Config // nil = no TLS
	RequireTLS  bool
	Credentials Credentials
	Auth        *AuthCache
}

// Login is what the client told in the handshake. The account has been
// authenticated; whether the database exists and may be used has not been checked.
type Login struct {
	User       string
	Host       string // of the peer, without port
	Database   string
	Collation  uint16 // id asked for; ids over 255 arrive truncated
	Attributes map[string]string
	MaxPacket  uint32
	Account    Credential
}

// DeniedError says that the account did not authenticate; answer it with 1045.
type DeniedError struct {
	User, Host    string
	UsingPassword bool
}

func (e *DeniedError) Error() string {
	return fmt.Sprintf("access denied for user '%s'@'%s'", e.User, e.Host)
}

func (e *DeniedError) Is(target error) bool { return target == ErrAuthFailed }

// ErrTLSRequired says that the client did not ask for TLS though it must (3159).
var ErrTLSRequired = fmt.Errorf("wire: connections using insecure transport are prohibited")

// Handshake greets the client, upgrades to TLS when it asks, and
// authenticates it. The final OK is not written: the caller still has to check
// the database, and then answers with WriteOK or WriteError.
func (c *Conn) Handshake(host string, o HandshakeOptions) (*Login, error) {
	limit := c.maxPacket
	c.maxPacket = min(limit, handshakeMaxSize)
	defer func() { c.maxPacket = limit }()

	salt, err := newSalt()
	if err != nil {
		return nil, err
	}
	caps := uint32(serverCaps)
	if o.TLS != nil {
		caps |= mysql.CLIENT_SSL
	}
	c.writeGreeting(o, caps, salt)
	if err := c.Flush(); err != nil {
		return nil, err
	}
	payload, err := c.readResponse(o)
	if err != nil {
		return nil, err
	}
	resp, err := parseResponse(payload, caps)
	if err != nil {
		return nil, err
	}
	if o.RequireTLS && c.tls == nil {
		return nil, ErrTLSRequired
	}
	c.caps = caps & resp.caps
	login := &Login{User: resp.user, Host: host, Database: resp.db, Collation: resp.collation,
		Attributes: resp.attrs, MaxPacket: resp.maxPacket}
	login.Account = o.Credentials.Credential(login.User, host)
	if err := c.authenticate(login, resp, salt, o.Auth); err != nil {
		return nil, err
	}
	return login, nil
}

// newSalt returns 20 random bytes, none of them zero.
func newSalt() ([]byte, error) {
	salt := make([]byte, saltSize)
	if _, err := rand.Read(salt); err != nil {
		return nil, fmt.Errorf("wire: random salt: %w", err)
	}
	for i, b := range salt {
		salt[i] = b%127 + 1 // 1..127: some clients read the salt as text
	}
	return salt, nil
}

func (c *Conn) writeGreeting(o HandshakeOptions, caps uint32, salt []byte) {
	c.begin()
	b := append(c.wbuf, 10)
	b = append(b, o.Version...)
	b = append(b, 0)
	b = append(b, byte(o.ConnID), byte(o.ConnID>>8), byte(o.ConnID>>16), byte(o.ConnID>>24))
	b = append(b, salt[:8]...)
	b = append(b, 0, byte(caps), byte(caps>>8), o.Collation)
	b = append(b, byte(mysql.SERVER_STATUS_AUTOCOMMIT), 0)
	b = append(b, byte(caps>>16), byte(caps>>24), saltSize+1)
	b = append(b, make([]byte, 10)...)
	b = append(b, salt[8:]...)
	b = append(b, 0)
	b = append(b, PluginCachingSHA2...)
	c.wbuf = append(b, 0)
	c.end()
}

// readResponse reads the handshake response, behind a TLS handshake if the
// client asks for one. Nothing is read ahead before that is known: a client
// sends its TLS records right behind the SSLRequest, and what it sends in clear
// must reach the TLS layer, which refuses it, and not be taken for decrypted
// (plaintext injection).
func (c *Conn) readResponse(o HandshakeOptions) ([]byte, error) {
	c.in = c.nc
	defer func() { c.in = c.br }()
	payload, err := c.ReadPacket()
	if err != nil || len(payload) != 32 {
		return payload, err
	}
	flags := uint32((&reader{b: payload}).uint(4))
	if flags&mysql.CLIENT_SSL == 0 {
		return payload, nil
	}
	if o.TLS == nil {
		return nil, fmt.Errorf("%w: TLS was not offered", ErrMalformed)
	}
	tc := tls.Server(c.nc, o.TLS)
	if err := tc.Handshake(); err != nil {
		return nil, fmt.Errorf("wire: TLS handshake: %w", err)
	}
	state := tc.ConnectionState()
	c.nc, c.tls = tc, &state
	c.br.Reset(tc)
	c.in = c.br
	return c.ReadPacket()
}

// response is the client's HandshakeResponse41.
type response struct {
	caps      uint32
	maxPacket uint32
	collation uint16
	user      string
	token     []byte
	db        string
	plugin    string
	attrs     map[string]string
}

func parseResponse(payload []byte, serverCaps uint32) (*response, error) {
	r := &reader{b: payload}
	h := &response{caps: uint32(r.uint(4))}
	if h.caps&mysql.CLIENT_PROTOCOL_41 == 0 {
		return nil, fmt.Errorf("%w: client does not speak protocol 4.1", ErrMalformed)
	}
	caps := h.caps & serverCaps
	h.maxPacket = uint32(r.uint(4))
	h.collation = uint16(r.uint(1))
	r.bytes(23)
	h.user = string(r.zeroString())
	h.token = bytes.Clone(readToken(r, caps))
	if caps&mysql.CLIENT_CONNECT_WITH_DB != 0 && len(r.b) > 0 {
		h.db = string(r.zeroString())
	}
	if caps&mysql.CLIENT_PLUGIN_AUTH != 0 && len(r.b) > 0 {
		h.plugin = string(readPlugin(r))
	}
	if caps&mysql.CLIENT_CONNECT_ATTRS != 0 && len(r.b) > 0 {
		h.attrs = readAttributes(r)
	}
	if r.bad {
		return nil, fmt.Errorf("%w: handshake response", ErrMalformed)
	}
	return h, nil
}

func readToken(r *reader, caps uint32) []byte {
	switch {
	case caps&mysql.CLIENT_PLUGIN_AUTH_LENENC_CLIENT_DATA != 0:
		return r.lenString()
	case caps&mysql.CLIENT_SECURE_CONNECTION != 0:
		return r.bytes(int(r.uint(1)))
	}
	return r.zeroString()
}

// readPlugin reads the plugin name; some clients leave out its NUL at the end.
func readPlugin(r *reader) []byte {
	if bytes.IndexByte(r.b, 0) < 0 {
		return r.bytes(len(r.b))
	}
	return r.zeroString()
}

// readAttributes reads the connection attributes. They are decoration: a
// malformed list is dropped, not an error.
func readAttributes(r *reader) map[string]string {
	list := &reader{b: r.lenString()}
	attrs := map[string]string{}
	for len(list.b) > 0 {
		k, v := list.lenString(), list.lenString()
		if list.bad {
			return nil
		}
		attrs[string(k)] = string(v)
	}
	return attrs
}
