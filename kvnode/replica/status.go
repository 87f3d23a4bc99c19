package replica

import "context"

// Status is where a replica's log and state machine stand.
type Status struct {
	Term, Commit, Applied uint64
	// First and Last are the log's indexes; First is Last+1 when it is empty.
	First, Last uint64
	Leading     bool
	Quiet       bool // does without ticks
	// Paused: a snapshot is being installed, which Term and Commit are ahead of, or a merge waits for its source.
	Paused bool
}

// Status asks the replica. False when it has ended, or ctx ends before it answers: it
// does not while a snapshot is being installed.
func (r *Replica) Status(ctx context.Context) (Status, bool) {
	answer := make(chan Status, 1)
	asked := r.do(func() {
		if r.over {
			close(answer)
			return
		}
		st := r.rn.BasicStatus()
		s := Status{Term: st.GetTerm(), Commit: st.GetCommit(), Applied: r.applied.Load(), Leading: r.leading, Quiet: r.quiet, Paused: r.paused()}
		s.First, _ = r.storage.FirstIndex()
		s.Last, _ = r.storage.LastIndex()
		answer <- s
	})
	if !asked {
		return Status{}, false
	}
	select {
	case s, ok := <-answer:
		return s, ok
	case <-ctx.Done():
		return Status{}, false
	}
}
