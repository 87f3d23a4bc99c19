package crash

import (
	"encoding/binary"
	"io"
	"net"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
)

// proxy stands between sysbench and the server and reports every insertion
// that the server acknowledged. It understands as much of the MySQL protocol as
// that needs: packets, and the OK that answers COM_QUERY.
type proxy struct {
	ln     net.Listener
	target string
	ack    func(row)
	work   sync.WaitGroup
	mu     sync.Mutex
	conns  []net.Conn // guarded by mu
}

func startProxy(t *testing.T, target string, ack func(row)) *proxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{ln: ln, target: target, ack: ack}
	p.work.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			p.work.Go(func() { p.serve(c) })
		}
	})
	return p
}

func (p *proxy) addr() string { return p.ln.Addr().String() }

func (p *proxy) close() {
	_ = p.ln.Close()
	p.mu.Lock()
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.mu.Unlock()
	p.work.Wait()
}

func (p *proxy) serve(client net.Conn) {
	defer client.Close()
	srv, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer srv.Close()
	p.mu.Lock()
	p.conns = append(p.conns, client, srv)
	p.mu.Unlock()
	var x exchange
	p.work.Go(func() {
		defer client.Close()
		forward(client, srv, func(payload []byte) { x.answered(payload, p.ack) })
	})
	forward(srv, client, x.asked)
	_ = srv.Close()
}

// forward copies packets from src to dst. A packet is seen before it is passed on:
// what the client knows, the ledger knows.
func forward(dst, src net.Conn, see func(payload []byte)) {
	var buf []byte
	for {
		var head [4]byte
		if _, err := io.ReadFull(src, head[:]); err != nil {
			return
		}
		n := int(head[0]) | int(head[1])<<8 | int(head[2])<<16
		buf = append(buf[:0], head[:]...)
		buf = append(buf, make([]byte, n)...)
		if _, err := io.ReadFull(src, buf[4:]); err != nil {
			return
		}
		see(buf[4:])
		if _, err := dst.Write(buf); err != nil {
			return
		}
	}
}

// exchange is the conversation of one connection. Its client waits for an
// answer before it asks again.
type exchange struct {
	ready   bool // the handshake is over; of the server's side
	pending atomic.Pointer[row]
}

// insertText finds the values in sysbench's INSERT INTO sbtest1 (id, k, c, pad) VALUES (0, 5, 'c', 'pad').
var insertText = regexp.MustCompile(`^\x03INSERT INTO sbtest1 \(id, k, c, pad\) VALUES \((\d+), (\d+), '([^']*)', '[^']*'\)`)

func (x *exchange) asked(payload []byte) {
	m := insertText.FindSubmatch(payload)
	if m == nil {
		x.pending.Store(nil)
		return
	}
	id, _ := strconv.ParseInt(string(m[1]), 10, 64)
	k, _ := strconv.ParseInt(string(m[2]), 10, 64)
	x.pending.Store(&row{id: id, k: k, text: string(m[3])})
}

func (x *exchange) answered(payload []byte, ack func(row)) {
	ok := len(payload) > 0 && payload[0] == 0
	if !x.ready {
		x.ready = ok
		return
	}
	r := x.pending.Swap(nil)
	if r == nil || !ok {
		return
	}
	_, rest := lenInt(payload[1:])
	if id, _ := lenInt(rest); r.id == 0 {
		r.id = id
	}
	ack(*r)
}

// lenInt decodes a length-encoded integer and returns what follows it.
func lenInt(b []byte) (int64, []byte) {
	size := map[byte]int{0xfc: 2, 0xfd: 3, 0xfe: 8}[b[0]]
	if size == 0 {
		return int64(b[0]), b[1:]
	}
	var wide [8]byte
	copy(wide[:], b[1:1+size])
	return int64(binary.LittleEndian.Uint64(wide[:])), b[1+size:]
}
