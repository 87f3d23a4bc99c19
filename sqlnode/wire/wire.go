// Package wire speaks the MySQL client/server protocol: packets, handshake,
// authentication exchange, result sets. It moves bytes and knows no session.
//
// A Conn is owned by one goroutine. The order of use is:
//
//  1. NewConn on an accepted net.Conn.
//  2. Handshake, once.
//  3. ReadCommand, then the Write methods that answer it, then Flush; again.
//  4. Close.
//
// Everything written is buffered until Flush, or until the buffer passes
// 16 KiB, so that a response costs one write to the socket. Bytes returned by
// ReadCommand are valid until the next ReadCommand or ReadPacket.
//
// Source: MySQL Internals, "Client/Server Protocol"; MySQL 8.0 reference
// manual, "Caching SHA-2 Pluggable Authentication".
package wire

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"time"
)

// Limits and sizes in bytes.
const (
	maxPayload       = 1<<24 - 1 // of one packet; longer payloads are split
	readBufferSize   = 16 << 10
	flushThreshold   = 16 << 10
	keepReadBuffer   = 1 << 20 // a larger read buffer is dropped after use
	keepWriteBuffer  = 1 << 20
	handshakeMaxSize = 256 << 10 // of any packet before authentication is done
)

// Errors that end a connection. ErrPacketTooLarge and ErrBadSequence are told
// to the client (1153, 1156) before it is closed.
var (
	ErrPacketTooLarge = errors.New("wire: packet larger than max_allowed_packet")
	ErrBadSequence    = errors.New("wire: packets out of order")
	ErrMalformed      = errors.New("wire: malformed packet")
	ErrAuthFailed     = errors.New("wire: access denied")
)

// Conn is one client connection. It is not safe for concurrent use, but for
// Close and SetDeadline, which may come from anywhere.
type Conn struct {
	nc   net.Conn
	br   *bufio.Reader
	in   io.Reader // br; nc itself as long as TLS may follow what has been read
	head [4]byte   // header of the packet being read
	rbuf []byte    // payload of the current packet
	wbuf []byte    // whole packets not sent yet, and the one being built
	mark int       // start of the packet being built in wbuf
	seq  uint8

	caps         uint32 // what both sides can do
	maxPacket    int
	writeTimeout time.Duration
	writeBy      Deadline
	tls          *tls.ConnectionState
	err          error // the first write error; later writes are dropped
}

// NewConn wraps nc. maxPacket is max_allowed_packet in bytes, writeTimeout how
// long one write to a slow client may take (0 = for ever).
func NewConn(nc net.Conn, maxPacket int, writeTimeout time.Duration) *Conn {
	br := bufio.NewReaderSize(nc, readBufferSize)
	return &Conn{nc: nc, br: br, in: br, maxPacket: maxPacket, writeTimeout: writeTimeout}
}

// Capabilities are the CLIENT_* flags agreed in the handshake.
func (c *Conn) Capabilities() uint32 { return c.caps }

// TLS describes the encryption of the connection, or is nil.
func (c *Conn) TLS() *tls.ConnectionState { return c.tls }

// NetConn is the connection below; for deadlines and for watching it close.
func (c *Conn) NetConn() net.Conn { return c.nc }

// Buffered is the number of bytes read from the client and not consumed.
func (c *Conn) Buffered() int { return c.br.Buffered() }

// SetMaxPacket changes max_allowed_packet for packets read from now on.
func (c *Conn) SetMaxPacket(n int) { c.maxPacket = n }

// Close closes the connection without flushing.
func (c *Conn) Close() error { return c.nc.Close() }
