// Package isolation judges histories of transactions: whether what they saw of each
// other is possible under the isolation they were promised.
//
// # How
//
// A transaction has two moments: its start, which its snapshot shows, and its commit,
// at which its writes appear. Every read says something about the order of such
// moments: whoever wrote the version that was read had committed before the moment the
// read shows, and whoever wrote the next version had not. A history is possible if all moments can be put in
// an order that agrees with all of that: if the graph of what must come before what has no
// cycle. What a transaction was promised decides which moments its operations show:
//
//	snapshot isolation  reads and writes: the start
//	serializable        reads and writes: the commit
//	read committed      reads: later moments of their own; writes: the commit
//	locking reads       the commit: what they found stays as it is until then
//
// That a write shows the start means that nobody else has written the key in between (first
// committer wins). Transactions of different levels may be in one history. Where times
// are given, moments that do not overlap come in their order, too: no stale snapshots.
//
// Of Adya's phenomena, G0, G1c, G-single and all other cycles but those of two adjacent
// anti-dependencies are cycles here for snapshot isolation, and those as well (G2) where reads show the commit.
// A range that was read counts as a read of every key in it, also of those that were not there, so
// G2 includes phantoms. G1a, G1b, writes that were lost or came from nowhere, and transactions that disagree
// with themselves need no graph.
//
// # Versions
//
// The order of the versions of each key is not guessed: it is what the database has at the
// end (Order), or, for lists that are only appended to, their elements (Lists).
package isolation

import "fmt"

// Version names what one write made of one key. No two writes of a history, of
// whatever keys, have the same. 0 is every key before the first write: absent.
type Version uint64

// Outcome of a transaction, as its client knows it.
type Outcome int

const (
	// Committed: the client was told so.
	Committed Outcome = iota
	// Aborted: the client was told that nothing has happened.
	Aborted
	// Unknown: all of it has happened, or nothing. Order tells which.
	Unknown
)

// Point is the moment of a transaction that an operation shows. Points n > 0 are moments
// of their own after the start, in their order, and before the commit.
type Point int

const (
	// AtStart is the moment of the snapshot.
	AtStart Point = 0
	// AtCommit is the moment at which the writes appear. In a transaction that was aborted
	// every operation at commit shows a moment of its own.
	AtCommit Point = -1
)

// Span is the time in which a moment was: between a call and its return. The zero Span says nothing;
// so does a To of 0, about what comes after.
type Span struct{ From, To int64 }

// Txn is one transaction.
type Txn struct {
	Name    string // in reports
	Outcome Outcome
	Ops     []Op // in the order of the client

	Start, Commit Span
	// StartTS, CommitTS are the timestamps the database gave; 0 = not known. Only
	// CheckTimestamps, and reads of absent keys, make use of them.
	StartTS, CommitTS uint64
}

// Op is one read or write of one key.
type Op struct {
	Write bool
	Key   string
	// Version read or written.
	Version Version
	// Absent: a delete, or a read that found nothing. Such a read does not know whose
	// absence it saw; its Version is ignored.
	Absent bool
	At     Point
	// Range: the key was read as part of a range.
	Range bool
	// TS is the timestamp a read at a point other than the start and the commit was made at; 0 = not known.
	TS uint64
}

// History is what happened.
type History struct {
	Txns []Txn
	// Order lists the versions that were installed for each key, oldest first: of each
	// transaction that committed, its last write of the key. Version 0 is not listed.
	Order map[string][]Version
}

// Anomaly is something that must not be.
type Anomaly struct {
	// Name is Adya's, or plain words.
	Name string
	// Text says who did what, in lines.
	Text string
}

func (a Anomaly) String() string { return a.Name + ":\n" + a.Text }

func (o Op) String() string {
	what := "r"
	switch {
	case o.Write && o.Absent:
		what = "del"
	case o.Write:
		what = "w"
	}
	version := fmt.Sprint(o.Version)
	if !o.Write && o.Absent {
		version = "-"
	}
	switch {
	case o.At == AtCommit:
		return fmt.Sprintf("%s %s %s @commit", what, o.Key, version)
	case o.At != AtStart:
		return fmt.Sprintf("%s %s %s @%d", what, o.Key, version, o.At)
	}
	return fmt.Sprintf("%s %s %s", what, o.Key, version)
}

func (t *Txn) String() string {
	s := t.Name
	switch t.Outcome {
	case Aborted:
		s += " aborted"
	case Unknown:
		s += " unknown"
	}
	if t.StartTS != 0 || t.CommitTS != 0 {
		s += fmt.Sprintf(" ts=%d..%d", t.StartTS, t.CommitTS)
	}
	if t.Start != (Span{}) || t.Commit != (Span{}) {
		s += fmt.Sprintf(" time=%d-%d,%d-%d", t.Start.From, t.Start.To, t.Commit.From, t.Commit.To)
	}
	s += ":"
	for i, o := range t.Ops {
		if i > 0 {
			s += ";"
		}
		if i == maxOpsShown {
			return s + fmt.Sprintf(" and %d more", len(t.Ops)-i)
		}
		s += " " + o.String()
	}
	return s
}

// maxOpsShown bounds what a report says of one transaction.
const maxOpsShown = 60
