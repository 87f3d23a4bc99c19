package compat

import (
	"context"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/cairndb/cairn/test/server"
)

// A hostile client gets an error on its own connection. The process lives, the
// memory comes back, and others are answered.
func TestHostileClients(t *testing.T) {
	s := server.Start(t)
	warm(t, s)
	before := rss(t, s)
	for _, c := range []struct {
		name string
		f    func(*testing.T, *server.Server)
	}{
		{"nested parentheses", nestedParentheses},
		{"a statement of 64 MB", hugeStatement},
		{"a packet over the limit", oversizedPacket},
		{"a truncated packet", truncatedPacket},
		{"half-open handshakes", halfOpen},
		{"garbage before login", garbage},
		{"garbage after login", garbageCommands},
		{"a result nobody reads", unreadResult},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.f(t, s)
			answers(t, s)
		})
	}
	memoryReturns(t, s, before)
}

// warm uses the server once, so that what it keeps for good is there.
func warm(t *testing.T, s *server.Server) {
	t.Helper()
	db := pool(t, s, "")
	table(t, db, "id INT PRIMARY KEY, v VARCHAR(100)")
	exec(t, db, "INSERT INTO t VALUES (1, 'x')")
}

func rss(t *testing.T, s *server.Server) int64 {
	t.Helper()
	u, err := s.Usage()
	if err != nil {
		t.Fatal(err)
	}
	return u.RSS
}

// answers checks that another client is served within two seconds.
func answers(t *testing.T, s *server.Server) {
	t.Helper()
	select {
	case <-s.Exited():
		t.Fatalf("the server died:\n%s", s.Output())
	default:
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	var v string
	if err := open(t, s.DSN(database)).QueryRowContext(ctx, "SELECT v FROM t WHERE id = 1").Scan(&v); err != nil || v != "x" {
		t.Fatalf("another client got %q, %v", v, err)
	}
}

// memoryReturns waits until the server has given back most of what the attacks
// took. Pages come back when the runtime scavenges, some seconds later.
func memoryReturns(t *testing.T, s *server.Server, before int64) {
	t.Helper()
	const keep = 200 << 20
	deadline := time.After(60 * time.Second)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	peak := rss(t, s)
	for now := peak; ; now = rss(t, s) {
		peak = max(peak, now)
		if now < before+keep {
			t.Logf("resident memory: before %d MB, after the attacks %d MB, now %d MB", before>>20, peak>>20, now>>20)
			return
		}
		select {
		case <-tick.C:
			exec(t, open(t, s.DSN("")), "SELECT 1")
		case <-deadline:
			t.Fatalf("resident memory: before %d MB, now %d MB", before>>20, now>>20)
		}
	}
}

func nestedParentheses(t *testing.T, s *server.Server) {
	db := open(t, s.DSN(database))
	const n = 1_000_000
	for name, query := range map[string]string{
		"parentheses": "SELECT " + strings.Repeat("(", n) + "1" + strings.Repeat(")", n),
		"NOT":         "SELECT " + strings.Repeat("NOT ", n) + "1",
		"minus":       "SELECT " + strings.Repeat("- ", n) + "1",
		"calls":       "SELECT " + strings.Repeat("ABS(", n) + "1" + strings.Repeat(")", n),
		"CASE":        "SELECT " + strings.Repeat("CASE WHEN 1 THEN ", n) + "1" + strings.Repeat(" END", n),
		"subqueries":  strings.Repeat("SELECT (", n/10) + "SELECT 1" + strings.Repeat(")", n/10),
		"UNION":       strings.Repeat("SELECT 1 UNION ", n/10) + "SELECT 1",
		"additions":   "SELECT 1" + strings.Repeat("+1", n),
		"AND":         "SELECT 1" + strings.Repeat(" AND 1", n),
		"unclosed":    "SELECT " + strings.Repeat("(", n),
	} {
		ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
		_, err := db.ExecContext(ctx, query)
		cancel()
		if number(err) == 0 {
			t.Errorf("%s: want an error of the server, got %v", name, err)
		}
		answers(t, s)
	}
	// A reasonable depth is no attack.
	exec(t, db, "SELECT "+strings.Repeat("(", 100)+"1"+strings.Repeat(")", 100))
}

func hugeStatement(t *testing.T, s *server.Server) {
	db := open(t, s.DSN(database+"?maxAllowedPacket=134217728"))
	if _, err := db.Exec("SELECT '" + strings.Repeat("x", 64<<20) + "'"); err == nil {
		t.Error("a statement of 64 MB was taken")
	}
	var n int
	if err := db.QueryRow("SELECT LENGTH('" + strings.Repeat("x", 20<<20) + "')").Scan(&n); err != nil || n != 20<<20 {
		t.Errorf("a statement of 20 MB: %d, %v", n, err)
	}
}

// rawConn is a connection past its login.
func rawConn(t *testing.T, s *server.Server) net.Conn {
	t.Helper()
	c := dial(t, s)
	packet(t, c) // greeting
	response := make([]byte, 32)
	binary.LittleEndian.PutUint32(response, 0x00088200|0x00000001) // protocol 4.1, secure connection, plugin auth
	response[8] = 255
	response = append(response, "root\x00\x00mysql_native_password\x00"...)
	send(c, 1, response)
	for {
		p := packet(t, c)
		switch p[0] {
		case 0:
			return c
		case 0xfe: // another plugin; no password in any
			send(c, 3, nil)
		default:
			t.Fatalf("login: % x", p)
		}
	}
}

func dial(t *testing.T, s *server.Server) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(60 * time.Second))
	return c
}

func send(c net.Conn, seq byte, payload []byte) {
	n := len(payload)
	_, _ = c.Write(append([]byte{byte(n), byte(n >> 8), byte(n >> 16), seq}, payload...))
}

func packet(t *testing.T, c net.Conn) []byte {
	t.Helper()
	p, err := readPacket(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func readPacket(c net.Conn) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return nil, err
	}
	p := make([]byte, int(head[0])|int(head[1])<<8|int(head[2])<<16)
	_, err := io.ReadFull(c, p)
	return p, err
}

// closes checks that the server ends the connection, whatever it says before.
func closes(t *testing.T, c net.Conn) {
	t.Helper()
	for {
		if _, err := readPacket(c); err != nil {
			if te, ok := err.(net.Error); ok && te.Timeout() {
				t.Error("the server keeps the connection")
			}
			return
		}
	}
}

func oversizedPacket(t *testing.T, s *server.Server) {
	c := rawConn(t, s)
	piece := make([]byte, 1<<24-1)
	piece[0] = 3
	for seq := range byte(8) { // 128 MB, of which 64 are allowed
		send(c, seq, piece)
	}
	closes(t, c)
}

func truncatedPacket(t *testing.T, s *server.Server) {
	for _, cut := range []int{1, 4, 5, 20} {
		c := rawConn(t, s)
		whole := append([]byte{50, 0, 0, 0, 3}, "SELECT 'a statement that never comes to its end"...)
		_, _ = c.Write(whole[:cut])
		_ = c.(*net.TCPConn).CloseWrite()
		closes(t, c)
	}
	// A length that lies, and a client that stays.
	c := rawConn(t, s)
	_, _ = c.Write([]byte{0xff, 0xff, 0xff, 0, 3})
}

// halfOpen leaves many connections in the middle of their handshake; the server
// refuses more than it may have and ends them after its time limit.
func halfOpen(t *testing.T, s *server.Server) {
	const n = 300
	before := rss(t, s)
	conns := make([]net.Conn, n)
	for i := range conns {
		conns[i] = dial(t, s)
	}
	answers(t, s)
	if grown := rss(t, s) - before; grown > 200<<20 {
		t.Errorf("%d half-open connections cost %d MB", n, grown>>20)
	}
	for _, c := range conns {
		closes(t, c)
	}
}

func garbage(t *testing.T, s *server.Server) {
	rng := rand.New(rand.NewPCG(3, 4))
	for i := range 200 {
		c := dial(t, s)
		junk := make([]byte, 1+rng.IntN(2000))
		for j := range junk {
			junk[j] = byte(rng.Uint32())
		}
		if i%2 == 0 { // with a header that is right
			junk = append([]byte{byte(len(junk)), byte(len(junk) >> 8), 0, 1}, junk...)
		}
		_, _ = c.Write(junk)
		_ = c.(*net.TCPConn).CloseWrite()
		closes(t, c)
	}
}

// garbageCommands sends every command with junk behind it.
func garbageCommands(t *testing.T, s *server.Server) {
	rng := rand.New(rand.NewPCG(5, 6))
	for cmd := range 256 {
		for _, size := range []int{0, 1, 4, 9, 100} {
			c := rawConn(t, s)
			payload := make([]byte, 1+size)
			for j := range payload {
				payload[j] = byte(rng.Uint32())
			}
			payload[0] = byte(cmd)
			send(c, 0, payload)
			_ = c.(*net.TCPConn).CloseWrite()
			closes(t, c)
			_ = c.Close()
		}
	}
}

// unreadResult asks for a large result and does not read it.
func unreadResult(t *testing.T, s *server.Server) {
	db := open(t, s.DSN(database))
	exec(t, db, "CREATE TABLE IF NOT EXISTS wide (id INT PRIMARY KEY, v LONGTEXT)")
	exec(t, db, "REPLACE INTO wide VALUES (1, REPEAT('x', 4000000))")
	before := rss(t, s)
	for range 10 {
		c := rawConn(t, s)
		send(c, 0, []byte("\x03SELECT a.v, b.v, c.v FROM compat.wide a, compat.wide b, compat.wide c"))
	}
	answers(t, s)
	if grown := rss(t, s) - before; grown > 1<<30 {
		t.Errorf("ten results nobody reads cost %d MB", grown>>20)
	}
}
