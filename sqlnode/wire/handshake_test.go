package wire

import (
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"database/sql"
	"errors"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-mysql-org/go-mysql/client"
	"github.com/go-mysql-org/go-mysql/mysql"
	driver "github.com/go-sql-driver/mysql"
	"github.com/pingcap/tidb/pkg/parser/auth"

	"github.com/cairndb/cairn/internal/certs"
)

// accounts are found by user name.
type accounts map[string]Credential

func (a accounts) Credential(user, host string) Credential {
	if c, ok := a[user]; ok {
		return c
	}
	return Credential{ID: user + "@" + host, Plugin: PluginCachingSHA2, Denied: true}
}

func testAccounts() accounts {
	return accounts{
		"native": {ID: "native", Plugin: PluginNative, Hash: auth.EncodePassword("secret")},
		"sha2":   {ID: "sha2", Plugin: PluginCachingSHA2, Hash: auth.NewHashPassword("secret", PluginCachingSHA2)},
		"empty":  {ID: "empty", Plugin: PluginNative},
		"empty2": {ID: "empty2", Plugin: PluginCachingSHA2},
		"locked": {ID: "locked", Plugin: PluginNative, Hash: auth.EncodePassword("secret"), Denied: true},
		"odd":    {ID: "odd", Plugin: "odd_plugin", Hash: "x"},
	}
}

func testTLS(t testing.TB) *tls.Config {
	t.Helper()
	c, err := certs.SelfSigned(t.TempDir(), []string{"127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// testServer answers every statement with OK.
type testServer struct {
	t      *testing.T
	addr   string
	opts   HandshakeOptions
	logins chan *Login
	work   sync.WaitGroup
}

func startTestServer(t *testing.T, change func(*HandshakeOptions)) *testServer {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &testServer{t: t, addr: ln.Addr().String(), logins: make(chan *Login, 100), opts: HandshakeOptions{
		Version: "8.0.11-test", ConnID: 7, Collation: 255, Credentials: testAccounts(), Auth: NewAuthCache(),
	}}
	if change != nil {
		change(&s.opts)
	}
	s.work.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			s.work.Go(func() { s.serve(nc) })
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		s.work.Wait()
	})
	return s
}

func (s *testServer) serve(nc net.Conn) {
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(10 * time.Second))
	c := NewConn(nc, 1<<20, time.Second)
	login, err := c.Handshake("127.0.0.1", s.opts)
	if err != nil {
		refuse(c, err)
		return
	}
	s.logins <- login
	c.WriteOK(OK{})
	for c.Flush() == nil {
		cmd, err := c.ReadCommand()
		if err != nil || cmd.Type == mysql.COM_QUIT {
			return
		}
		if cmd.Type == mysql.COM_CHANGE_USER {
			if login, err = c.ChangeUser(cmd.Data, "127.0.0.1", s.opts.Credentials, s.opts.Auth); err != nil {
				refuse(c, err)
				return
			}
			s.logins <- login
		}
		c.WriteOK(OK{Info: "fine"})
	}
}

func refuse(c *Conn, err error) {
	e := Error{Code: 1043, State: "08S01", Msg: err.Error()}
	switch {
	case errors.Is(err, ErrAuthFailed):
		e.Code, e.State = 1045, "28000"
	case errors.Is(err, ErrTLSRequired):
		e.Code, e.State = 3159, "HY000"
	}
	c.WriteError(e)
	_ = c.Flush()
}

// login is one way to log in; it returns the server's error code, 0 = let in.
type login func(t *testing.T, s *testServer, user, password string, secure *tls.Config) (code uint16)

func byDriver(t *testing.T, s *testServer, user, password string, secure *tls.Config) uint16 {
	cfg := driver.NewConfig()
	cfg.Net, cfg.Addr, cfg.User, cfg.Passwd, cfg.DBName, cfg.TLS = "tcp", s.addr, user, password, "some_db", secure
	cfg.Logger = &driver.NopLogger{}
	connector, err := driver.NewConnector(cfg)
	if err != nil {
		t.Fatal(err)
	}
	db := sql.OpenDB(connector)
	defer db.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var me *driver.MySQLError
	err = db.PingContext(ctx)
	if errors.As(err, &me) {
		return me.Number
	}
	if err != nil {
		t.Fatal(err)
	}
	return 0
}

func byGoMySQL(t *testing.T, s *testServer, user, password string, secure *tls.Config) uint16 {
	c, err := client.Connect(s.addr, user, password, "some_db", func(c *client.Conn) error {
		if secure != nil {
			c.SetTLSConfig(secure)
		}
		return nil
	})
	var me *mysql.MyError
	if errors.As(err, &me) {
		return me.Code
	}
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Ping(); err != nil {
		t.Fatal(err)
	}
	return 0
}

func TestClientsLogIn(t *testing.T) {
	secure := testTLS(t)
	trusting := &tls.Config{InsecureSkipVerify: true}
	cases := []struct {
		name, user, password string
		want                 uint16
	}{
		{"native", "native", "secret", 0},
		{"native, wrong password", "native", "Secret", 1045},
		{"native, no password", "native", "", 1045},
		{"sha2 in full", "sha2", "secret", 0},
		{"sha2 from the cache", "sha2", "secret", 0},
		{"sha2, wrong password, cached", "sha2", "Secret", 1045},
		{"sha2, no password", "sha2", "", 1045},
		{"empty password", "empty", "", 0},
		{"a password where there is none", "empty", "x", 1045},
		{"empty password, sha2", "empty2", "", 0},
		{"a password where there is none, sha2", "empty2", "x", 1045},
		{"unknown user", "nobody", "secret", 1045},
		{"unknown user without a password", "nobody", "", 1045},
		{"locked account", "locked", "secret", 1045},
	}
	for _, by := range []struct {
		name string
		login
	}{{"go-sql-driver", byDriver}, {"go-mysql", byGoMySQL}} {
		for _, client := range []*tls.Config{nil, trusting} {
			name := by.name + ", plain"
			if client != nil {
				name = by.name + ", TLS"
			}
			t.Run(name, func(t *testing.T) {
				s := startTestServer(t, func(o *HandshakeOptions) { o.TLS = secure })
				for _, c := range cases {
					if got := by.login(t, s, c.user, c.password, client); got != c.want {
						t.Errorf("%s: want error %d, got %d", c.name, c.want, got)
					}
					if c.want != 0 {
						continue
					}
					l := <-s.logins
					if l.User != c.user || l.Database != "some_db" || l.Account.ID != c.user {
						t.Errorf("%s: login is %+v", c.name, l)
					}
				}
			})
		}
	}
}

// A wrong password before anything is cached takes the road of full authentication.
func TestWrongPasswordInFull(t *testing.T) {
	s := startTestServer(t, nil)
	if got := byDriver(t, s, "sha2", "Secret", nil); got != 1045 {
		t.Fatalf("want 1045, got %d", got)
	}
	if s.opts.Auth.get(s.opts.Credentials.Credential("sha2", "")) != nil {
		t.Fatal("a wrong password was cached")
	}
}

// A changed password must not be let in from the cache.
func TestCacheEndsWithThePassword(t *testing.T) {
	users := testAccounts()
	s := startTestServer(t, func(o *HandshakeOptions) { o.Credentials = users })
	if got := byDriver(t, s, "sha2", "secret", nil); got != 0 {
		t.Fatalf("want in, got %d", got)
	}
	c := users["sha2"]
	c.Hash = auth.NewHashPassword("other", PluginCachingSHA2)
	users["sha2"] = c
	if got := byDriver(t, s, "sha2", "secret", nil); got != 1045 {
		t.Fatalf("old password: want 1045, got %d", got)
	}
	if got := byDriver(t, s, "sha2", "other", nil); got != 0 {
		t.Fatalf("new password: want in, got %d", got)
	}
}

func TestTLSRequired(t *testing.T) {
	s := startTestServer(t, func(o *HandshakeOptions) { o.TLS, o.RequireTLS = testTLS(t), true })
	if got := byDriver(t, s, "native", "secret", nil); got != 3159 {
		t.Fatalf("want 3159, got %d", got)
	}
	if got := byDriver(t, s, "native", "secret", &tls.Config{InsecureSkipVerify: true}); got != 0 {
		t.Fatalf("want in, got %d", got)
	}
}

func TestConnectionAttributes(t *testing.T) {
	s := startTestServer(t, nil)
	cfg := driver.NewConfig()
	cfg.Net, cfg.Addr, cfg.User, cfg.ConnectionAttributes = "tcp", s.addr, "empty", "shoe_size:44"
	connector, err := driver.NewConnector(cfg)
	if err != nil {
		t.Fatal(err)
	}
	db := sql.OpenDB(connector)
	defer db.Close()
	if err := db.Ping(); err != nil {
		t.Fatal(err)
	}
	if l := <-s.logins; l.Attributes["shoe_size"] != "44" {
		t.Fatalf("attributes are %v", l.Attributes)
	}
}

func TestChangeUser(t *testing.T) {
	s := startTestServer(t, nil)
	change := func(user, password string) byte {
		c, err := client.Connect(s.addr, "empty", "", "")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		<-s.logins
		c.ResetSequence()
		data := append(make([]byte, 4), mysql.COM_CHANGE_USER)
		data = append(append(data, user...), 0, 0) // empty token
		data = append(data, "db2\x00\xff\x00"+PluginNative+"\x00"...)
		if err := c.WritePacket(data); err != nil {
			t.Fatal(err)
		}
		p, err := c.ReadPacket()
		if err != nil {
			t.Fatal(err)
		}
		rest, ok := bytes.CutPrefix(p, []byte("\xfe"+PluginNative+"\x00"))
		if !ok {
			t.Fatalf("no auth switch: % x", p)
		}
		salt := bytes.TrimSuffix(rest, []byte{0})
		if err := c.WritePacket(append(make([]byte, 4), nativeToken(salt, password)...)); err != nil {
			t.Fatal(err)
		}
		if p, err = c.ReadPacket(); err != nil {
			t.Fatal(err)
		}
		return p[0]
	}
	if got := change("native", "secret"); got != mysql.OK_HEADER {
		t.Fatalf("right password: answer %#x", got)
	}
	if l := <-s.logins; l.User != "native" || l.Database != "db2" {
		t.Fatalf("login is %+v", l)
	}
	if got := change("native", "Secret"); got != mysql.ERR_HEADER {
		t.Fatalf("wrong password: answer %#x", got)
	}
}

// rawClient is the client's side of a handshake, made of the server's parts.
type rawClient struct {
	*Conn
	salt []byte
}

// dialRaw starts a handshake on a pipe and reads the greeting.
func dialRaw(t testing.TB, o HandshakeOptions) (*rawClient, <-chan error) {
	t.Helper()
	near, far := net.Pipe()
	deadline := time.Now().Add(10 * time.Second)
	_, _ = near.SetDeadline(deadline), far.SetDeadline(deadline)
	done := make(chan error, 1)
	go func() {
		c := NewConn(far, 1<<20, time.Second)
		_, err := c.Handshake("127.0.0.1", o)
		if err == nil {
			c.WriteOK(OK{})
			_ = c.Flush()
		}
		_ = far.Close()
		done <- err
	}()
	c := &rawClient{Conn: NewConn(near, 1<<20, time.Second)}
	p, err := c.ReadPacket()
	if err != nil {
		t.Fatal(err)
	}
	r := &reader{b: p}
	r.bytes(1)
	r.zeroString()
	r.bytes(4)
	c.salt = append(c.salt, r.bytes(8)...)
	r.bytes(19)
	c.salt = append(c.salt, r.bytes(12)...)
	if r.bad {
		t.Fatalf("bad greeting % x", p)
	}
	return c, done
}

const rawCaps = mysql.CLIENT_PROTOCOL_41 | mysql.CLIENT_SECURE_CONNECTION | mysql.CLIENT_PLUGIN_AUTH |
	mysql.CLIENT_PLUGIN_AUTH_LENENC_CLIENT_DATA

func responseBytes(caps uint32, user string, token []byte, plugin string) []byte {
	b := []byte{byte(caps), byte(caps >> 8), byte(caps >> 16), byte(caps >> 24), 0, 0, 0, 1, 255}
	b = append(b, make([]byte, 23)...)
	b = append(append(b, user...), 0)
	b = appendLenString(b, token)
	return append(append(b, plugin...), 0)
}

func (c *rawClient) send(payload []byte) {
	c.begin()
	c.wbuf = append(c.wbuf, payload...)
	c.end()
	_ = c.Flush()
}

// finish reads until the server hangs up and returns the last packet. Asked for
// the password itself, it answers nonsense.
func (c *rawClient) finish() (last []byte) {
	for {
		p, err := c.ReadPacket()
		if err != nil {
			_ = c.Close()
			return last
		}
		last = bytes.Clone(p)
		if bytes.Equal(p, []byte{mysql.MORE_DATE_HEADER, mysql.CACHE_SHA2_FULL_AUTH}) {
			c.send(make([]byte, 256))
		}
	}
}

func nativeToken(salt []byte, password string) []byte {
	one := sha1.Sum([]byte(password))
	two := sha1.Sum(one[:])
	mask := sha1.Sum(append(bytes.Clone(salt), two[:]...))
	subtle.XORBytes(mask[:], mask[:], one[:])
	return mask[:]
}

func TestRightTokenIsLetIn(t *testing.T) {
	o := HandshakeOptions{Credentials: testAccounts(), Auth: NewAuthCache()}
	c, done := dialRaw(t, o)
	c.send(responseBytes(rawCaps, "native", nativeToken(c.salt, "secret"), PluginNative))
	if last := c.finish(); len(last) == 0 || last[0] != 0 {
		t.Fatalf("last packet % x", last)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// CVE-2012-2122: one wrong token in 256 was let in.
func TestWrongTokensNeverSucceed(t *testing.T) {
	const tries = 10_000
	rng := rand.New(rand.NewPCG(2012, 2122))
	for _, c := range []struct {
		user, plugin string
		size         int
	}{{"native", PluginNative, sha1.Size}, {"sha2", PluginCachingSHA2, sha256.Size}} {
		t.Run(c.plugin, func(t *testing.T) {
			o := HandshakeOptions{Credentials: testAccounts(), Auth: NewAuthCache()}
			o.Auth.put(o.Credentials.Credential(c.user, ""), []byte("secret")) // the fast road
			token := make([]byte, c.size)
			for i := range tries {
				for j := range token {
					token[j] = byte(rng.Uint32())
				}
				conn, done := dialRaw(t, o)
				conn.send(responseBytes(rawCaps, c.user, token, c.plugin))
				conn.finish()
				if err := <-done; !errors.Is(err, ErrAuthFailed) {
					t.Fatalf("try %d, token % x: %v", i, token, err)
				}
			}
		})
	}
}

func TestTokensOfOddLengths(t *testing.T) {
	o := HandshakeOptions{Credentials: testAccounts(), Auth: NewAuthCache()}
	for _, user := range []string{"native", "sha2", "nobody", "locked"} {
		o.Auth.put(o.Credentials.Credential(user, ""), []byte("secret"))
		for _, n := range []int{0, 1, 19, 21, 31, 33, 255} {
			plugin := o.Credentials.Credential(user, "127.0.0.1").Plugin
			c, done := dialRaw(t, o)
			c.send(responseBytes(rawCaps, user, make([]byte, n), plugin))
			c.finish()
			if err := <-done; !errors.Is(err, ErrAuthFailed) {
				t.Errorf("%s, %d bytes: %v", user, n, err)
			}
		}
	}
}

func TestTokenOfAnotherConnectionIsRefused(t *testing.T) {
	o := HandshakeOptions{Credentials: testAccounts(), Auth: NewAuthCache()}
	first, done := dialRaw(t, o)
	token := nativeToken(first.salt, "secret")
	_ = first.Close()
	<-done
	second, done := dialRaw(t, o)
	if bytes.Equal(first.salt, second.salt) || bytes.IndexByte(second.salt, 0) >= 0 {
		t.Fatalf("salts % x, % x", first.salt, second.salt)
	}
	second.send(responseBytes(rawCaps, "native", token, PluginNative))
	second.finish()
	if err := <-done; !errors.Is(err, ErrAuthFailed) {
		t.Fatalf("want %v, got %v", ErrAuthFailed, err)
	}
}

func TestSwitchOfPlugin(t *testing.T) {
	o := HandshakeOptions{Credentials: testAccounts(), Auth: NewAuthCache()}
	for password, ok := range map[string]bool{"secret": true, "Secret": false} {
		c, done := dialRaw(t, o)
		c.send(responseBytes(rawCaps, "native", make([]byte, 32), "dialog"))
		p, err := c.ReadPacket()
		if err != nil {
			t.Fatal(err)
		}
		salt, found := bytes.CutPrefix(p, []byte("\xfe"+PluginNative+"\x00"))
		if !found || len(salt) != saltSize+1 {
			t.Fatalf("no auth switch: % x", p)
		}
		c.send(nativeToken(salt[:saltSize], password))
		c.finish()
		if err := <-done; (err == nil) != ok {
			t.Errorf("password %q: %v", password, err)
		}
	}
}

func TestAccountWithAnUnknownPlugin(t *testing.T) {
	o := HandshakeOptions{Credentials: testAccounts(), Auth: NewAuthCache()}
	c, done := dialRaw(t, o)
	c.send(responseBytes(rawCaps, "odd", []byte("x"), "odd_plugin"))
	c.finish()
	if err := <-done; err == nil {
		t.Fatal("let in")
	}
}

// Commands sent in clear behind the SSLRequest must not be taken for encrypted ones.
func TestPlaintextInjection(t *testing.T) {
	o := HandshakeOptions{Credentials: testAccounts(), Auth: NewAuthCache(), TLS: testTLS(t)}
	c, done := dialRaw(t, o)
	const caps = rawCaps | mysql.CLIENT_SSL
	request := responseBytes(caps, "", nil, "")[:32]
	both := append(packetOf(1, request), packetOf(2, responseBytes(caps, "empty", nil, PluginNative))...)
	go func() { _, _ = c.nc.Write(both) }()
	c.finish()
	var notTLS tls.RecordHeaderError
	if err := <-done; !errors.As(err, &notTLS) {
		t.Fatalf("want %T, got %v", notTLS, err)
	}
}

func TestTLSThatWasNotOffered(t *testing.T) {
	o := HandshakeOptions{Credentials: testAccounts(), Auth: NewAuthCache()}
	c, done := dialRaw(t, o)
	c.send(responseBytes(rawCaps|mysql.CLIENT_SSL, "", nil, "")[:32])
	c.finish()
	if err := <-done; !errors.Is(err, ErrMalformed) {
		t.Fatalf("want %v, got %v", ErrMalformed, err)
	}
}

func TestMalformedResponses(t *testing.T) {
	good := responseBytes(rawCaps, "native", make([]byte, 20), PluginNative)
	cases := map[string][]byte{
		"empty":                 nil,
		"an old client":         responseBytes(rawCaps&^mysql.CLIENT_PROTOCOL_41, "native", nil, ""),
		"no end of the name":    good[:34],
		"a token cut short":     good[:45],
		"garbage":               []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		"a token that is a lie": append(append(bytes.Clone(good[:39]), 0xfe), bytes.Repeat([]byte{0xff}, 8)...),
	}
	for name, payload := range cases {
		t.Run(name, func(t *testing.T) {
			o := HandshakeOptions{Credentials: testAccounts(), Auth: NewAuthCache()}
			c, done := dialRaw(t, o)
			c.send(payload)
			c.finish()
			if err := <-done; !errors.Is(err, ErrMalformed) {
				t.Fatalf("want %v, got %v", ErrMalformed, err)
			}
		})
	}
}

// Before authentication a client may make the server hold only little memory.
func TestHandshakePacketsAreSmall(t *testing.T) {
	o := HandshakeOptions{Credentials: testAccounts(), Auth: NewAuthCache()}
	c, done := dialRaw(t, o)
	go func() { _, _ = c.nc.Write([]byte{0xff, 0xff, 0xff, 1}) }()
	c.finish()
	if err := <-done; !errors.Is(err, ErrPacketTooLarge) {
		t.Fatalf("want %v, got %v", ErrPacketTooLarge, err)
	}
}

func FuzzHandshake(f *testing.F) {
	f.Add(packetOf(1, responseBytes(rawCaps, "native", make([]byte, 20), PluginNative)))
	f.Add(packetOf(1, responseBytes(rawCaps, "sha2", make([]byte, 32), PluginCachingSHA2)))
	f.Add(append(packetOf(1, responseBytes(rawCaps, "sha2", make([]byte, 32), PluginCachingSHA2)), packetOf(3, []byte{2})...))
	f.Add(append(packetOf(1, responseBytes(rawCaps, "nobody", []byte("x"), "dialog")), packetOf(3, []byte("y"))...))
	f.Add(packetOf(1, append(responseBytes(rawCaps|mysql.CLIENT_CONNECT_WITH_DB|mysql.CLIENT_CONNECT_ATTRS, "native", nil, "db"), "\x03\x01a\x00"...)))
	f.Add(packetOf(1, responseBytes(rawCaps|mysql.CLIENT_SSL, "", nil, "")[:32]))
	secure := testTLS(f)
	// Only accounts with passwords: whatever the client sends, it is not let in.
	all := testAccounts()
	users := accounts{"native": all["native"], "sha2": all["sha2"], "locked": all["locked"]}
	cache := NewAuthCache()
	f.Fuzz(func(t *testing.T, in []byte) {
		c, s := scripted(in, 1<<20)
		login, err := c.Handshake("127.0.0.1", HandshakeOptions{
			Version: strings.Repeat("8", 5), Credentials: users, Auth: cache, TLS: secure,
		})
		if err == nil {
			t.Fatalf("let in as %q", login.User)
		}
		if s.out.Len() == 0 {
			t.Fatal("no greeting")
		}
		refuse(c, err)
		_, _ = c.ChangeUser(in, "127.0.0.1", users, cache)
	})
}
