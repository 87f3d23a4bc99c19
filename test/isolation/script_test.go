package isolation

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
)

// TestScripts judges the histories of testdata. A transaction is a line
//
//	NAME [aborted|unknown] [ts=START..COMMIT] [time=FROM-TO,FROM-TO]: OP; OP; ...
//
// where the times are of its start and its commit, and an operation is
//
//	r KEY VERSION      w KEY VERSION      del KEY VERSION      (VERSION of a read of nothing: -)
//	read KEY [ELEMENT,...]      append KEY ELEMENT             (of lists)
//
// with @commit or @N behind it for the moment that it shows; and "order KEY VERSION..." (for lists: "final")
// says what there is in the end. Without it, versions are in the order of the lines.
//
// The commands are check, timestamps, and lists.
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			var found []Anomaly
			switch d.Cmd {
			case "check":
				found = Check(parseHistory(t, d.Input))
			case "timestamps":
				found = CheckTimestamps(parseHistory(t, d.Input))
			case "lists":
				found = parseLists(t, d.Input).Check()
			default:
				d.Fatalf(t, "unknown command %s", d.Cmd)
			}
			if len(found) == 0 {
				return "possible\n"
			}
			var b strings.Builder
			for _, a := range found {
				fmt.Fprintln(&b, a)
			}
			return b.String()
		})
	})
}

func parseHistory(t testing.TB, text string) *History {
	h := &History{Order: map[string][]Version{}}
	given := map[string]bool{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if key, rest, ok := orderLine(line, "order "); ok {
			given[key] = true
			h.Order[key] = versions(t, rest)
			continue
		}
		txn, ops := parseTxn(t, line)
		last := map[string]Version{}
		var keys []string
		for _, f := range ops {
			o := Op{Key: f[1], Write: f[0] != "r" && f[0] != "scan", Absent: f[0] == "del", Range: f[0] == "scan"}
			if f[2] == "-" {
				o.Absent = true
			} else {
				o.Version = version(t, f[2])
			}
			o.At = point(t, f[3:])
			txn.Ops = append(txn.Ops, o)
			if o.Write && txn.Outcome == Committed {
				if last[o.Key] == 0 {
					keys = append(keys, o.Key)
				}
				last[o.Key] = o.Version
			}
		}
		for _, k := range keys {
			if !given[k] {
				h.Order[k] = append(h.Order[k], last[k])
			}
		}
		h.Txns = append(h.Txns, txn)
	}
	return h
}

func parseLists(t testing.TB, text string) *Lists {
	l := &Lists{Final: map[string][]Version{}}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if key, rest, ok := orderLine(line, "final "); ok {
			l.Final[key] = versions(t, rest)
			continue
		}
		txn, ops := parseTxn(t, line)
		list := ListTxn{Name: txn.Name, Outcome: txn.Outcome, Start: txn.Start, Commit: txn.Commit}
		for _, f := range ops {
			o := ListOp{Key: f[1]}
			rest := f[2:]
			if f[0] == "append" {
				o.Append = version(t, f[2])
				rest = f[3:]
			} else if len(rest) > 0 && rest[0][0] != '@' {
				o.Read = versions(t, strings.Split(rest[0], ","))
				rest = rest[1:]
			}
			o.At = point(t, rest)
			list.Ops = append(list.Ops, o)
		}
		l.Txns = append(l.Txns, list)
	}
	return l
}

func orderLine(line, prefix string) (key string, rest []string, ok bool) {
	after, ok := strings.CutPrefix(line, prefix)
	if !ok {
		return "", nil, false
	}
	f := strings.Fields(after)
	return f[0], f[1:], true
}

// parseTxn reads everything of a line but what its operations, given as words, mean.
func parseTxn(t testing.TB, line string) (txn Txn, ops [][]string) {
	head, tail, ok := strings.Cut(line, ":")
	if !ok {
		t.Fatalf("no transaction: %s", line)
	}
	for i, w := range strings.Fields(head) {
		var n int
		var err error
		switch {
		case i == 0:
			txn.Name, n = w, 1
		case w == "aborted":
			txn.Outcome, n = Aborted, 1
		case w == "unknown":
			txn.Outcome, n = Unknown, 1
		default:
			if n, err = fmt.Sscanf(w, "ts=%d..%d", &txn.StartTS, &txn.CommitTS); err != nil {
				n, err = fmt.Sscanf(w, "time=%d-%d,%d-%d", &txn.Start.From, &txn.Start.To, &txn.Commit.From, &txn.Commit.To)
			}
		}
		if n == 0 || err != nil {
			t.Fatalf("%s: %s", w, line)
		}
	}
	for op := range strings.SplitSeq(tail, ";") {
		if f := strings.Fields(op); len(f) > 0 {
			ops = append(ops, f)
		}
	}
	return txn, ops
}

func version(t testing.TB, s string) Version {
	v, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return Version(v)
}

func versions(t testing.TB, words []string) (out []Version) {
	for _, w := range words {
		out = append(out, version(t, w))
	}
	return out
}

func point(t testing.TB, words []string) Point {
	if len(words) == 0 {
		return AtStart
	}
	if words[0] == "@commit" {
		return AtCommit
	}
	n, err := strconv.Atoi(strings.TrimPrefix(words[0], "@"))
	if err != nil {
		t.Fatal(err)
	}
	return Point(n)
}
