package plan

import (
	"fmt"
	"strings"

	"github.com/cairndb/cairn/sqlnode/catalog"
)

// LockMode is the row lock a reader takes.
type LockMode uint8

// Lock modes.
const (
	LockNone   LockMode = iota
	LockShare           // FOR SHARE, LOCK IN SHARE MODE
	LockUpdate          // FOR UPDATE; also the readers under UPDATE and DELETE
)

// LockWait says what to do about rows that others have locked. The zero value waits as long as the session does.
type LockWait struct {
	NoWait  bool
	Skip    bool   // leave the rows out
	Seconds uint64 // FOR UPDATE WAIT n; 0 = as long as the session waits
}

func (w LockWait) text() string {
	switch {
	case w.NoWait:
		return " nowait"
	case w.Skip:
		return " skip locked"
	case w.Seconds > 0:
		return fmt.Sprintf(" wait %d", w.Seconds)
	}
	return ""
}

// LockRows locks the stored rows its input's rows are made of, as they come, and passes on the rows that are locked. It stands above
// everything that drops or orders rows but LIMIT.
type LockRows struct {
	Base
	Child  Node
	Tables []LockedTable
	Wait   LockWait
	// Limit, when not zero, is how many rows will be asked for: so many are locked and no more.
	Limit Scalar
}

// LockedTable is one table whose rows LockRows locks.
type LockedTable struct {
	Table *catalog.Table
	Alias string
	Mode  LockMode
	// Handle are the positions in the child's output of the primary key's columns, or of the hidden row id. NULL there means that an outer join
	// found no row.
	Handle []int
}

// Children implements Node.
func (n *LockRows) Children() []Node { return []Node{n.Child} }

func (n *LockRows) explain() (string, string, string) {
	names := make([]string, len(n.Tables))
	mode := "for update"
	for i, t := range n.Tables {
		names[i] = t.Alias
		if t.Mode == LockShare {
			mode = "for share"
		}
	}
	return "SelectLock", "", mode + n.Wait.text() + " of " + strings.Join(names, ", ")
}
