package replica

import (
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3/raftpb"
)

// readElsewhere is for how long after a read by another replica the others are told at
// once of what is committed.
const readElsewhere = time.Second

// news is what the other replicas have not been told yet of what is committed. Raft tells
// them by an append without entries, which each answers: for a single writer as many
// messages again as the write itself took. Only a reader at a follower needs that at once. So
// such an append waits until
//   - one with entries goes to the same peer and says it too;
//   - a tick has passed;
//   - somebody asks for the applied index, to read elsewhere (View.AnnounceApplied), and for
//     some time after that nothing waits;
//   - a command is applied that changes the region: it may concern the peers themselves.
//
// It belongs to visits, but for asked and some.
type news struct {
	waiting map[uint64]*raftpb.Message // by peer
	told    map[uint64]told            // in this term

	asked atomic.Int64 // time of Options.Now when AnnounceApplied was called last; 0 = never
	some  atomic.Bool  // waiting is not empty, or is about to be
}

// told is what the last append to a peer said, sent or waiting.
type told struct {
	last   uint64 // index of the last entry that was sent
	commit uint64
}

// AnnounceApplied returns up to where the log is applied here, and sees to it that the other replicas soon know that
// everything up to there is committed.
func (v *View) AnnounceApplied() uint64 {
	n := &v.r.news
	n.asked.Store(int64(v.r.o.Now()))
	if n.some.Load() {
		v.r.do(v.r.tellNews)
	}
	return v.r.applied.Load()
}

// holdNews takes from msgs what can wait. apply is what is about to be applied, nil if nothing is.
func (r *Replica) holdNews(msgs []*raftpb.Message, apply *raftpb.Message) []*raftpb.Message {
	if !r.leading {
		return msgs
	}
	n := &r.news
	urgent := changesRegion(apply) || joint(r.region) || r.merging() != nil
	out := msgs[:0]
	for _, m := range msgs {
		if m.GetType() != raftpb.MsgApp {
			out = append(out, m)
			continue
		}
		if n.told == nil {
			n.told, n.waiting = map[uint64]told{}, map[uint64]*raftpb.Message{}
		}
		to, count := m.GetTo(), uint64(len(m.GetEntries()))
		before := n.told[to]
		n.told[to] = told{m.GetIndex() + count, m.GetCommit()}
		// An append without entries may also be a question for what a peer has.
		if !urgent && count == 0 && m.GetIndex() == before.last && m.GetCommit() > before.commit {
			n.waiting[to] = m
			continue
		}
		delete(n.waiting, to)
		out = append(out, m)
	}
	if len(n.waiting) == 0 {
		n.some.Store(false)
		return out
	}
	n.some.Store(true) // before asked is looked at: whoever asks sets that, and then looks here
	asked := time.Duration(n.asked.Load())
	if urgent || asked > 0 && r.o.Now()-asked < readElsewhere {
		return n.release(out)
	}
	return out
}

// tellNews sends what waits.
func (r *Replica) tellNews() {
	if len(r.news.waiting) > 0 {
		r.send(r.news.release(nil))
	}
}

// release appends what waits to out; nothing waits then.
func (n *news) release(out []*raftpb.Message) []*raftpb.Message {
	for _, m := range n.waiting {
		out = append(out, m)
	}
	clear(n.waiting)
	n.some.Store(false)
	return out
}

// dropNews forgets what waits, at the end of a term: its successor tells it.
func (r *Replica) dropNews() {
	r.news.told, r.news.waiting = nil, nil
	r.news.some.Store(false)
}

// changesRegion says whether a message to apply has commands that are not mere writes.
func changesRegion(apply *raftpb.Message) bool {
	for _, e := range apply.GetEntries() {
		if data := e.GetData(); e.GetType() != raftpb.EntryNormal || len(data) > 0 && kindOf(data) != commandWrite {
			return true
		}
	}
	return false
}
