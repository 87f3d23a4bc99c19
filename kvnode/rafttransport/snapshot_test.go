package rafttransport

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/cairndb/cairn/internal/rpc"
	"github.com/cairndb/cairn/proto/replpb"
)

// folder is an IncomingSnapshot in memory.
type folder struct {
	mu                sync.Mutex // protects the fields below
	files             map[string][]byte
	open              int
	finished, aborted int
	finish            error
	ended             chan struct{}
}

func newFolder() *folder {
	return &folder{files: make(map[string][]byte), ended: make(chan struct{})}
}

type folderFile struct {
	f    *folder
	name string
}

func (f *folder) Create(name string) (io.WriteCloser, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.files[name] = []byte{}
	f.open++
	return folderFile{f, name}, nil
}

func (f folderFile) Write(b []byte) (int, error) {
	f.f.mu.Lock()
	defer f.f.mu.Unlock()
	f.f.files[f.name] = append(f.f.files[f.name], b...)
	return len(b), nil
}

func (f folderFile) Close() error {
	f.f.mu.Lock()
	defer f.f.mu.Unlock()
	f.f.open--
	return nil
}

func (f *folder) end(count *int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open != 0 {
		panic("a file is open")
	}
	*count++
	close(f.ended)
}

func (f *folder) Finish() error { f.end(&f.finished); return f.finish }
func (f *folder) Abort()        { f.end(&f.aborted) }

func into(f *folder) func(Message) (IncomingSnapshot, error) {
	return func(Message) (IncomingSnapshot, error) { return f, nil }
}

func snapshotOf(region uint64) Message {
	m := between(1, 2, appendOf(region, 0, nil))
	m.Raft = &raftpb.Message{Type: raftpb.MsgSnap.Enum(), Term: new(uint64(6)), Snapshot: &raftpb.Snapshot{
		Data: []byte("meta"), Metadata: &raftpb.SnapshotMetadata{Index: new(uint64(9)), Term: new(uint64(5)), ConfState: &raftpb.ConfState{Voters: []uint64{101, 102}}}}}
	return m
}

// filesOf writes files in pieces of odd sizes.
func filesOf(names []string, files map[string][]byte) func(func(string) (io.WriteCloser, error)) error {
	return func(create func(string) (io.WriteCloser, error)) error {
		for _, name := range names {
			w, err := create(name)
			if err != nil {
				return err
			}
			for b := files[name]; len(b) > 0; {
				n := min(len(b), 700_001)
				if _, err := w.Write(b[:n]); err != nil {
					return err
				}
				b = b[n:]
			}
			if err := w.Close(); err != nil {
				return err
			}
		}
		return nil
	}
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(b)
	return b
}

func TestSnapshotArrivesWhole(t *testing.T) {
	w := newWires()
	a, b := w.started(t, 1, nil), w.started(t, 2, nil)
	files := map[string][]byte{"lock.sst": {}, "write.sst": randomBytes(3<<20 + 17), "meta": []byte("m"), "exact": randomBytes(2 << 20)}
	f := newFolder()
	var got Message
	b.begin = func(m Message) (IncomingSnapshot, error) { got = m; return f, nil }
	require.NoError(t, a.SendSnapshot(t.Context(), OutgoingSnapshot{
		Message: snapshotOf(4), Write: filesOf([]string{"lock.sst", "write.sst", "meta", "exact"}, files)}))
	require.Equal(t, files, f.files)
	require.Equal(t, 1, f.finished)
	requireEqualMessages(t, []Message{snapshotOf(4)}, []Message{got})
	require.Equal(t, 5<<20+18, b.metric(t, "cairn_raft_snapshot_bytes_total", "received"))
	require.Equal(t, 1, a.metric(t, "cairn_raft_snapshots_total", "ok", "sent"))
	require.Zero(t, a.metric(t, "cairn_raft_snapshots_in_progress", "sent"))
}

func TestSnapshotThatIsNotWantedIsNotProduced(t *testing.T) {
	w := newWires()
	a, b := w.started(t, 1, nil), w.started(t, 2, func(o *Options) { o.SnapshotReceives = 1 })
	b.begin = func(Message) (IncomingSnapshot, error) { return nil, errors.New("range is taken by region 9") }
	s := OutgoingSnapshot{Message: snapshotOf(4), Write: func(func(string) (io.WriteCloser, error)) error { t.Error("produced"); return nil }}
	err := a.SendSnapshot(t.Context(), s)
	require.ErrorIs(t, err, ErrRefused)
	require.ErrorContains(t, err, "range is taken by region 9")

	first := newFolder()
	b.begin = into(first)
	err = a.SendSnapshot(t.Context(), OutgoingSnapshot{Message: snapshotOf(4), Write: func(func(string) (io.WriteCloser, error)) error {
		err := a.SendSnapshot(t.Context(), s)
		require.ErrorIs(t, err, ErrRefused)
		require.ErrorContains(t, err, "1 snapshots are arriving")
		return nil
	}})
	require.NoError(t, err)

	last := newFolder()
	last.finish = errors.New("disk full")
	b.begin = into(last)
	err = a.SendSnapshot(t.Context(), OutgoingSnapshot{Message: snapshotOf(4), Write: filesOf(nil, nil)})
	require.ErrorContains(t, err, "disk full")
	require.Equal(t, []int{1, 0}, []int{last.finished, last.aborted})

	wrong := snapshotOf(4)
	wrong.To.StoreId = 1
	require.ErrorIs(t, a.SendSnapshot(t.Context(), OutgoingSnapshot{Message: wrong}), ErrBadMessage)
}

// Whatever happens on the way, what has arrived is removed once, and the sender learns.
func TestInterruptedSnapshotIsAborted(t *testing.T) {
	data := randomBytes(4 << 20)
	for name, interrupt := range map[string]func(w *wires, a, b *node, cancel func()) error{
		"write fails":     func(*wires, *node, *node, func()) error { return errors.New("no space") },
		"context":         func(_ *wires, _, _ *node, cancel func()) error { cancel(); return nil },
		"connection":      func(w *wires, _, _ *node, _ func()) error { w.breakAll(); return nil },
		"receiver closes": func(_ *wires, _, b *node, _ func()) error { b.Close(); return nil },
		"receiver stops":  func(_ *wires, _, b *node, _ func()) error { b.stop(); return nil },
		"sender closes":   func(_ *wires, a, _ *node, _ func()) error { go a.Close(); <-a.ctx.Done(); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWires()
			a, b := w.started(t, 1, nil), w.started(t, 2, nil)
			f := newFolder()
			b.begin = into(f)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			err := a.SendSnapshot(ctx, OutgoingSnapshot{Message: snapshotOf(4), Write: func(create func(string) (io.WriteCloser, error)) error {
				if err := filesOf([]string{"a"}, map[string][]byte{"a": data})(create); err != nil {
					return err
				}
				if err := interrupt(w, a, b, cancel); err != nil {
					return err
				}
				return filesOf([]string{"b"}, map[string][]byte{"b": data})(create)
			}})
			require.Error(t, err)
			<-f.ended
			require.Equal(t, []int{0, 1}, []int{f.finished, f.aborted})
		})
	}
}

func TestWritersAreUsedAsPromised(t *testing.T) {
	w := newWires()
	a, b := w.started(t, 1, nil), w.started(t, 2, nil)
	for want, write := range map[string]func(create func(string) (io.WriteCloser, error)) error{
		"twice":          filesOf([]string{"a", "a"}, nil),
		"bad file name":  filesOf([]string{"../a"}, nil),
		"was not closed": func(create func(string) (io.WriteCloser, error)) error { _, err := create("a"); return err },
		"before \"a\" is closed": func(create func(string) (io.WriteCloser, error)) error {
			_, _ = create("a")
			_, err := create("b")
			return err
		},
		"is closed": func(create func(string) (io.WriteCloser, error)) error {
			f, _ := create("a")
			f.Close()
			_, err := f.Write(nil)
			return err
		},
	} {
		f := newFolder()
		b.begin = into(f)
		require.ErrorContains(t, a.SendSnapshot(t.Context(), OutgoingSnapshot{Message: snapshotOf(4), Write: write}), want)
		<-f.ended
		require.Equal(t, 1, f.aborted, want)
	}
}

func TestHostileSnapshotsAreRefused(t *testing.T) {
	w := newWires()
	b := w.started(t, 2, nil)
	conn, err := rpc.Dial(address(2), rpc.DialOptions{Dialer: w.dial})
	require.NoError(t, err)
	defer conn.Close()
	hello := &replpb.Hello{ClusterId: 7, FromStoreId: 1, ToStoreId: 2, Format: format}
	head := func(msgs ...Message) *replpb.SnapshotChunk {
		data, err := AppendMessages(nil, msgs)
		require.NoError(t, err)
		return &replpb.SnapshotChunk{Hello: hello, Message: data, Crc: checksum(data)}
	}
	chunk := func(name, data string) *replpb.SnapshotChunk {
		return &replpb.SnapshotChunk{File: name, Data: []byte(data), Crc: checksum([]byte(data))}
	}
	badSum := chunk("a", "x")
	badSum.Crc++
	headSum := head(snapshotOf(4))
	headSum.Crc++
	last := &replpb.SnapshotChunk{Last: true}
	for _, c := range []struct {
		name, text string
		begins     bool
		send       []*replpb.SnapshotChunk
	}{
		{"no hello", "hello", false, []*replpb.SnapshotChunk{{}}},
		{"cluster", "this is cluster 7", false, []*replpb.SnapshotChunk{{Hello: &replpb.Hello{ClusterId: 1}}}},
		{"head checksum", "checksum", false, []*replpb.SnapshotChunk{headSum}},
		{"no snapshot", "one MsgSnap", false, []*replpb.SnapshotChunk{head(between(1, 2, appendOf(1, 1, nil)))}},
		{"two", "one MsgSnap", false, []*replpb.SnapshotChunk{head(snapshotOf(4), snapshotOf(5))}},
		{"for others", "to 3", false, []*replpb.SnapshotChunk{head(between(1, 3, snapshotOf(4)))}},
		{"checksum", "checksum", true, []*replpb.SnapshotChunk{head(snapshotOf(4)), badSum}},
		{"path", "bad file name", true, []*replpb.SnapshotChunk{head(snapshotOf(4)), chunk("../../etc/passwd", "x")}},
		{"no name", "bad file name", true, []*replpb.SnapshotChunk{head(snapshotOf(4)), chunk("", "x")}},
		{"again", "comes twice", true, []*replpb.SnapshotChunk{head(snapshotOf(4)), chunk("a", "x"), chunk("b", "x"), chunk("a", "x"), last}},
		{"cut off", "early", true, []*replpb.SnapshotChunk{head(snapshotOf(4)), chunk("a", "x")}},
	} {
		f := newFolder()
		b.begin = into(f)
		st, err := replpb.NewReplicationClient(conn).Snapshot(t.Context())
		require.NoError(t, err)
		for _, m := range c.send {
			if st.Send(m) != nil {
				break
			}
		}
		_ = st.CloseSend()
		var r replpb.SnapshotResult
		if err := st.RecvMsg(&r); err != nil {
			require.ErrorContains(t, err, c.text, c.name)
		} else {
			require.False(t, r.Accepted, c.name)
			require.Contains(t, r.Reason, c.text, c.name)
		}
		if c.begins {
			<-f.ended
		}
		require.Equal(t, []int{0, map[bool]int{true: 1}[c.begins]}, []int{f.finished, f.aborted}, c.name)
	}
}

func TestSnapshotsWaitTheirTurnAndKeepToTheRate(t *testing.T) {
	inBubble(t, func(t *testing.T, w *wires) {
		a := w.started(t, 1, func(o *Options) { o.SnapshotBytesPerSecond = 1 << 20; o.SnapshotSends = 2 })
		b := w.started(t, 2, nil)
		b.begin = func(Message) (IncomingSnapshot, error) { return newFolder(), nil }
		var wg sync.WaitGroup
		start := time.Now()
		for region := range uint64(5) {
			wg.Go(func() {
				err := a.SendSnapshot(t.Context(), OutgoingSnapshot{Message: snapshotOf(region), Write: func(create func(string) (io.WriteCloser, error)) error {
					require.LessOrEqual(t, a.metric(t, "cairn_raft_snapshots_in_progress", "sent"), 2)
					return filesOf([]string{"a"}, map[string][]byte{"a": bytes.Repeat([]byte{1}, 4<<20)})(create)
				}})
				require.NoError(t, err)
			})
		}
		wg.Wait()
		require.InDelta(t, 19, time.Since(start).Seconds(), 0.1, "20 MiB at 1 MiB/s, the first one at once")
		a.stop()
		b.stop()
	})
}

func TestStalledSnapshotFailsOnBothSides(t *testing.T) {
	inBubble(t, func(t *testing.T, w *wires) {
		a, b := w.started(t, 1, nil), w.started(t, 2, func(o *Options) { o.SnapshotStall = time.Second })
		f := newFolder()
		b.begin = into(f)
		err := a.SendSnapshot(t.Context(), OutgoingSnapshot{Message: snapshotOf(4), Write: func(create func(string) (io.WriteCloser, error)) error {
			time.Sleep(2 * time.Second)
			synctest.Wait()
			require.Equal(t, 1, f.aborted)
			return filesOf([]string{"a"}, map[string][]byte{"a": []byte("x")})(create)
		}})
		require.ErrorContains(t, err, "no progress")

		stuck := newFolder()
		entered := make(chan struct{})
		b.begin = func(Message) (IncomingSnapshot, error) { <-entered; return stuck, nil }
		err = a.SendSnapshot(t.Context(), OutgoingSnapshot{Message: snapshotOf(4), Write: filesOf(nil, nil)})
		require.ErrorIs(t, err, errStalled)
		close(entered)
		<-stuck.ended
		require.Equal(t, 1, stuck.aborted)
		require.True(t, strings.HasPrefix(err.Error(), "snapshot of region 4 to store 2"))
		a.stop()
		b.stop()
	})
}
