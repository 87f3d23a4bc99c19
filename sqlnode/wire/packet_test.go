package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"
)

// script is a connection whose client has already sent everything in in; what
// the server sends is collected in out.
type script struct {
	net.Conn // panics on what is not overridden
	in       *bytes.Reader
	out      bytes.Buffer
}

func (s *script) Read(p []byte) (int, error)       { return s.in.Read(p) }
func (s *script) Write(p []byte) (int, error)      { return s.out.Write(p) }
func (s *script) Close() error                     { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetDeadline(time.Time) error      { return nil }
func scripted(in []byte, max int) (*Conn, *script) {
	s := &script{in: bytes.NewReader(in)}
	return NewConn(s, max, time.Second), s
}

// packetOf frames one piece of a payload.
func packetOf(seq byte, payload []byte) []byte {
	n := len(payload)
	return append([]byte{byte(n), byte(n >> 8), byte(n >> 16), seq}, payload...)
}

func TestReadJoinsPieces(t *testing.T) {
	big := bytes.Repeat([]byte("x"), maxPayload)
	var in []byte
	in = append(in, packetOf(0, big)...)
	in = append(in, packetOf(1, []byte("rest"))...)
	in = append(in, packetOf(0, big)...) // exactly 16 MiB - 1: an empty piece ends it
	in = append(in, packetOf(1, nil)...)
	in = append(in, packetOf(0, []byte("small"))...)
	c, _ := scripted(in, 64<<20)
	for _, want := range []int{maxPayload + 4, maxPayload, 5} {
		cmd, err := c.ReadCommand()
		if err != nil {
			t.Fatal(err)
		}
		if got := len(cmd.Data) + 1; got != want {
			t.Fatalf("want %d bytes, got %d", want, got)
		}
	}
	if _, err := c.ReadCommand(); err != io.EOF {
		t.Fatalf("want io.EOF between commands, got %v", err)
	}
}

func TestReadRefuses(t *testing.T) {
	cases := []struct {
		name string
		in   []byte
		max  int
		want error
	}{
		{"a wrong sequence number", packetOf(1, []byte("x")), 100, ErrBadSequence},
		{"a wrong sequence number of the second piece", append(packetOf(0, make([]byte, maxPayload)), packetOf(2, nil)...), 64 << 20, ErrBadSequence},
		{"an empty command", packetOf(0, nil), 100, ErrMalformed},
		{"a payload over the limit", packetOf(0, make([]byte, 101)), 100, ErrPacketTooLarge},
		{"pieces over the limit", append(packetOf(0, make([]byte, maxPayload)), packetOf(1, []byte("x"))...), maxPayload, ErrPacketTooLarge},
		{"a truncated header", []byte{1, 0}, 100, io.ErrUnexpectedEOF},
		{"a truncated payload", packetOf(0, []byte("hello"))[:7], 100, io.ErrUnexpectedEOF},
		{"a missing payload", packetOf(0, []byte("hello"))[:4], 100, io.ErrUnexpectedEOF},
		{"a missing second piece", packetOf(0, make([]byte, maxPayload)), 64 << 20, io.ErrUnexpectedEOF},
		{"nothing", nil, 100, io.EOF},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			conn, _ := scripted(c.in, c.max)
			if _, err := conn.ReadCommand(); !errors.Is(err, c.want) {
				t.Fatalf("want %v, got %v", c.want, err)
			}
		})
	}
}

// A length that lies must not cost the memory it claims.
func TestReadTakesMemoryAsItArrives(t *testing.T) {
	in := append([]byte{0xfe, 0xff, 0xff, 0}, bytes.Repeat([]byte("x"), 1000)...)
	c, _ := scripted(in, 64<<20)
	if _, err := c.ReadCommand(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("want %v, got %v", io.ErrUnexpectedEOF, err)
	}
	if got := cap(c.rbuf); got > 256<<10 {
		t.Fatalf("%d bytes kept for 1000 received", got)
	}
}

func TestLargeBuffersAreNotKept(t *testing.T) {
	in := append(packetOf(0, make([]byte, 2<<20)), packetOf(0, []byte("x"))...)
	c, _ := scripted(in, 64<<20)
	for range 2 {
		if _, err := c.ReadCommand(); err != nil {
			t.Fatal(err)
		}
	}
	if cap(c.rbuf) > keepReadBuffer {
		t.Fatalf("read buffer of %d bytes kept", cap(c.rbuf))
	}
	c.WriteText(string(make([]byte, 2<<20)))
	if err := c.Flush(); err != nil || cap(c.wbuf) > keepWriteBuffer {
		t.Fatalf("write buffer of %d bytes kept, err %v", cap(c.wbuf), err)
	}
}

// What one Conn writes another one reads back, whatever the sizes.
func TestWriteThenRead(t *testing.T) {
	for _, n := range []int{0, 1, 250, 251, 1 << 16, maxPayload - 1, maxPayload, maxPayload + 1, 2 * maxPayload, 2*maxPayload + 5} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			w, s := scripted(nil, 0)
			payload := bytes.Repeat([]byte{'p'}, n)
			w.WriteText("first")
			w.WriteText(string(payload))
			w.WriteText("last")
			if err := w.Flush(); err != nil {
				t.Fatal(err)
			}
			pieces := 1 + n/maxPayload
			if got, want := s.out.Len(), 4+5+n+4*pieces+4+4; got != want {
				t.Fatalf("want %d bytes on the wire, got %d", want, got)
			}
			r, _ := scripted(s.out.Bytes(), 64<<20)
			for _, want := range []string{"first", string(payload), "last"} {
				got, err := r.ReadPacket()
				if err != nil {
					t.Fatal(err)
				}
				if string(got) != want {
					t.Fatalf("want %d bytes, got %d", len(want), len(got))
				}
			}
		})
	}
}

// brokenPipe fails every write.
type brokenPipe struct{ script }

func (*brokenPipe) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestWriteErrorsStick(t *testing.T) {
	c := NewConn(&brokenPipe{}, 100, 0)
	c.WriteOK(OK{})
	for range 2 {
		if err := c.Flush(); !errors.Is(err, io.ErrClosedPipe) {
			t.Fatalf("want %v, got %v", io.ErrClosedPipe, err)
		}
		c.WriteOK(OK{Affected: 1})
	}
}

func TestLengthEncoding(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, n := range []uint64{0, 1, 250, 251, 252, 1<<16 - 1, 1 << 16, 1<<24 - 1, 1 << 24, 1<<64 - 1, rng.Uint64(), rng.Uint64N(1 << 20)} {
		b := appendLenInt(nil, n)
		r := &reader{b: b}
		if got := r.lenInt(); got != n || r.bad || len(r.b) > 0 {
			t.Errorf("%d: read back %d, bad %v, %d bytes left", n, got, r.bad, len(r.b))
		}
		for cut := range b {
			if r := (&reader{b: b[:cut]}); r.lenInt() != 0 || !r.bad {
				t.Errorf("%d: %d of %d bytes were enough", n, cut, len(b))
			}
		}
	}
	for _, b := range [][]byte{{0xfb}, {0xff}, {5, 'a'}, {0xfe, 255, 255, 255, 255, 255, 255, 255, 255}} {
		if r := (&reader{b: b}); len(r.lenString()) != 0 || !r.bad {
			t.Errorf("% x: accepted", b)
		}
	}
}

func FuzzPacketReader(f *testing.F) {
	f.Add([]byte{})
	f.Add(packetOf(0, []byte("\x03SELECT 1")))
	f.Add(packetOf(1, []byte("x")))
	f.Add([]byte{0xff, 0xff, 0xff, 0, 1, 2, 3})
	f.Add(append(packetOf(0, []byte{14}), packetOf(0, []byte("\x03SELECT 2"))...))
	f.Fuzz(func(t *testing.T, in []byte) {
		const limit = 1 << 20
		c, _ := scripted(in, limit)
		total := 0
		for {
			cmd, err := c.ReadCommand()
			if err != nil {
				break
			}
			total += 5 + len(cmd.Data)
			// No command may make the decoders of its data panic.
			_, rest, _ := StatementID(cmd.Data)
			st := Statement{Params: 3}
			_ = st.AppendLong(rest, limit)
			_, _ = st.Execute(rest, nil)
		}
		if total > len(in) {
			t.Fatalf("read %d bytes out of %d", total, len(in))
		}
		if cap(c.rbuf) > 4*len(in)+128<<10 {
			t.Fatalf("%d bytes of buffer for %d bytes received", cap(c.rbuf), len(in))
		}
	})
}
