package wire

import (
	"fmt"
	"io"
)

// Command is one request of the client: its COM_* byte and the rest.
type Command struct {
	Type byte
	Data []byte // valid until the next read
}

// ReadCommand waits for the next command. io.EOF means the client went away
// between commands. An empty packet is ErrMalformed.
func (c *Conn) ReadCommand() (Command, error) {
	c.seq = 0
	p, err := c.ReadPacket()
	if err != nil {
		return Command{}, err
	}
	if len(p) == 0 {
		return Command{}, fmt.Errorf("%w: empty command", ErrMalformed)
	}
	return Command{Type: p[0], Data: p[1:]}, nil
}

// ReadPacket reads one payload, joined from its 16 MiB pieces. The size limit
// is enforced before memory is taken for a piece.
func (c *Conn) ReadPacket() ([]byte, error) {
	if cap(c.rbuf) > keepReadBuffer {
		c.rbuf = nil
	}
	buf := c.rbuf[:0]
	for first := true; ; first = false {
		head := &c.head
		if _, err := io.ReadFull(c.in, head[:]); err != nil {
			if !first && err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		n := int(head[0]) | int(head[1])<<8 | int(head[2])<<16
		if head[3] != c.seq {
			return nil, ErrBadSequence
		}
		c.seq++
		if len(buf)+n > c.maxPacket {
			return nil, ErrPacketTooLarge
		}
		var err error
		if buf, err = c.readInto(buf, n); err != nil {
			return nil, err
		}
		if n < maxPayload {
			c.rbuf = buf
			return buf, nil
		}
	}
}

// readInto appends n bytes to buf. Memory grows with what has arrived, so that
// a length that lies costs nothing.
func (c *Conn) readInto(buf []byte, n int) ([]byte, error) {
	const step = 64 << 10
	for n > 0 {
		k := min(n, max(step, len(buf)))
		start := len(buf)
		if cap(buf)-start < k {
			grown := make([]byte, start, max(start+k, 2*cap(buf), 512))
			copy(grown, buf)
			buf = grown
		}
		buf = buf[:start+k]
		if _, err := io.ReadFull(c.in, buf[start:]); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		n -= k
	}
	return buf, nil
}

// begin starts a packet; the caller appends its payload to c.wbuf and calls end.
func (c *Conn) begin() {
	c.mark = len(c.wbuf)
	c.wbuf = append(c.wbuf, 0, 0, 0, 0)
}

// end closes the packet begun last and sends what is buffered once that is much.
func (c *Conn) end() {
	n := len(c.wbuf) - c.mark - 4
	if n >= maxPayload {
		c.splitPacket(n)
	} else {
		c.putHeader(c.mark, n)
	}
	if len(c.wbuf) >= flushThreshold {
		_ = c.Flush() // the error is kept in c.err
	}
}

func (c *Conn) putHeader(at, n int) {
	c.wbuf[at] = byte(n)
	c.wbuf[at+1] = byte(n >> 8)
	c.wbuf[at+2] = byte(n >> 16)
	c.wbuf[at+3] = c.seq
	c.seq++
}

// splitPacket cuts the payload of n bytes at c.mark into pieces of maxPayload
// and a last, shorter (possibly empty) one.
func (c *Conn) splitPacket(n int) {
	payload := append([]byte(nil), c.wbuf[c.mark+4:]...)
	c.wbuf = c.wbuf[:c.mark]
	for {
		k := min(n, maxPayload)
		at := len(c.wbuf)
		c.wbuf = append(c.wbuf, 0, 0, 0, 0)
		c.wbuf = append(c.wbuf, payload[:k]...)
		c.putHeader(at, k)
		payload, n = payload[k:], n-k
		if k < maxPayload {
			return
		}
	}
}

// Flush sends everything written so far. After an error the connection is
// broken: every later write does nothing and Flush returns the same error.
func (c *Conn) Flush() error {
	if c.err == nil && len(c.wbuf) > 0 {
		if c.writeTimeout > 0 {
			if at, set := c.writeBy.Next(c.writeTimeout); set {
				_ = c.nc.SetWriteDeadline(at)
			}
		}
		_, c.err = c.nc.Write(c.wbuf)
	}
	if cap(c.wbuf) > keepWriteBuffer {
		c.wbuf = nil
	}
	c.wbuf = c.wbuf[:0]
	return c.err
}

func appendLenInt(b []byte, n uint64) []byte {
	switch {
	case n < 251:
		return append(b, byte(n))
	case n < 1<<16:
		return append(b, 0xfc, byte(n), byte(n>>8))
	case n < 1<<24:
		return append(b, 0xfd, byte(n), byte(n>>8), byte(n>>16))
	}
	return append(b, 0xfe, byte(n), byte(n>>8), byte(n>>16), byte(n>>24),
		byte(n>>32), byte(n>>40), byte(n>>48), byte(n>>56))
}

func appendLenString[T string | []byte](b []byte, s T) []byte {
	b = appendLenInt(b, uint64(len(s)))
	return append(b, s...)
}

// reader takes a payload apart. The first thing missing sets bad; everything
// read after that is zero.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) bytes(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.bad, r.b = true, nil
		return nil
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) uint(n int) uint64 {
	var v uint64
	for i, x := range r.bytes(n) {
		v |= uint64(x) << (8 * i)
	}
	return v
}

// zeroString reads up to a NUL, which is consumed.
func (r *reader) zeroString() []byte {
	for i, x := range r.b {
		if x == 0 {
			out := r.b[:i]
			r.b = r.b[i+1:]
			return out
		}
	}
	r.bad, r.b = true, nil
	return nil
}

// lenInt reads a length-encoded integer; NULL (0xfb) and 0xff are bad here.
func (r *reader) lenInt() uint64 {
	head := r.bytes(1)
	if r.bad {
		return 0
	}
	switch head[0] {
	case 0xfc:
		return r.uint(2)
	case 0xfd:
		return r.uint(3)
	case 0xfe:
		return r.uint(8)
	case 0xfb, 0xff:
		r.bad, r.b = true, nil
		return 0
	}
	return uint64(head[0])
}

func (r *reader) lenString() []byte {
	n := r.lenInt()
	if n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return nil
	}
	return r.bytes(int(n))
}
