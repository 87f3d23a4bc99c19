// Package catalog holds the schema objects of the cluster: databases, tables, columns, indexes.
//
// A Snapshot is one immutable version of the whole schema; everything reachable from it may be read by any goroutine
// without locks and is never changed. A Catalog keeps the newest snapshot, follows the schema version stored in the
// key-value tier (see docs/formats/meta.md), and tells the other SQL nodes which versions its open transactions use,
// so that a schema change can wait for everybody:
//
//  1. every transaction works on the snapshot it got from Pin and calls release when it is finished;
//  2. every node publishes, under a lease, the version it has loaded and the oldest version still pinned;
//  3. a schema change publishes a version with Apply and waits with WaitLoaded (everybody sees it) or WaitDrained
//     (nobody uses an older one);
//  4. a node whose lease has run out must not commit, nor show what it reads: Valid says so.
//
// Database and table names are case-sensitive, column and index names are not.
package catalog

import (
	"strings"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/types"
)

// HandleKind says what identifies a row inside its table.
type HandleKind uint8

const (
	// HandleInt: the single integer PRIMARY KEY column is the handle; it is not stored in the row value.
	HandleInt HandleKind = iota
	// HandleCommon: the handle is the encoded PRIMARY KEY; all its columns are stored in the row value too.
	HandleCommon
	// HandleRowID: no PRIMARY KEY; the handle is a hidden integer given out by the table's row id allocator.
	HandleRowID
)

// State is the F1 state of an index. Only public ones are visible to readers.
type State uint8

const (
	// StatePublic is read and written. It is the zero value.
	StatePublic State = iota
	// StateDeleteOnly entries are removed but not added.
	StateDeleteOnly
	// StateWriteOnly entries are maintained but not read.
	StateWriteOnly
)

// String names the state as it is shown to people.
func (s State) String() string {
	switch s {
	case StateDeleteOnly:
		return "delete only"
	case StateWriteOnly:
		return "write only"
	default:
		return "public"
	}
}

// Database is one schema. Immutable.
type Database struct {
	ID        int64
	Name      string
	Collation charset.ID
	// System databases are virtual or read-only (information_schema, performance_schema, mysql).
	System bool
}

// Default is the DEFAULT clause of a column.
type Default struct {
	// Value is the typed literal; Null for DEFAULT NULL. For TIMESTAMP it is in UTC. Unused when Now is set.
	Value types.Value
	// Now means CURRENT_TIMESTAMP with Fsp digits.
	Now bool
	Fsp int
}

// Column is one column of a table. Immutable.
type Column struct {
	ID     int64
	Name   string
	Offset int // position in Table.Columns
	Type   types.Type
	// Default is nil when the column has no DEFAULT clause (a nullable column then defaults to NULL).
	Default       *Default
	HasDefault    bool
	AutoIncrement bool
	OnUpdateNow   bool // ON UPDATE CURRENT_TIMESTAMP(Type.Decimal)
	Comment       string
	// OriginDefault is the value of rows written before the column was added.
	OriginDefault types.Value
	// ImplicitAutoIncrement and similar flags are in Type.Flags (MySQL bits).
}

// NotNull says whether the column refuses NULL.
func (c *Column) NotNull() bool { return c.Type.Flags&types.FlagNotNull != 0 }

// IndexColumn is one part of an index.
type IndexColumn struct {
	Offset int  // into Table.Columns
	Length int  // prefix length in characters (bytes for binary strings), -1 for the whole value
	Desc   bool // remembered for SHOW; entries are stored ascending
}

// Index is one index. The PRIMARY KEY has Primary set and no entries of its own: its key is the row key.
type Index struct {
	ID        int64
	Name      string
	Columns   []IndexColumn
	Unique    bool
	Primary   bool
	Invisible bool
	Comment   string
	State     State
}

// Table is one base table or virtual table. Immutable.
type Table struct {
	ID   int64
	DBID int64
	DB   string
	Name string

	Columns []*Column
	// Indexes are the public indexes in definition order, PRIMARY first.
	Indexes []*Index
	// WriteIndexes are the indexes with entries to maintain, whatever their state; PRIMARY is not among them.
	WriteIndexes []*Index
	PK           *Index // nil if none
	Handle       HandleKind
	AutoInc      *Column // nil if none

	Collation     charset.ID
	Comment       string
	Engine        string // always InnoDB for base tables
	AutoIncOption int64  // AUTO_INCREMENT=n given at creation, 0 if none
	RowFormat     string

	// Epoch changes with every schema change of this table: plans and cached decoders are valid for one epoch.
	Epoch uint64
	// Frozen tables refuse writes for the moment in which a column is added or dropped: writers must retry with a
	// newer snapshot.
	Frozen bool
	// Owner is the node that runs a change of several steps on this table, "" if none does. No other change may begin.
	Owner string
	// Virtual tables have no rows in the key-value tier; sysview makes them.
	Virtual bool

	CreateTime int64 // Unix seconds

	// MaxColumnID and MaxIndexID are the greatest ids ever used in this table: ids are not used again.
	MaxColumnID, MaxIndexID int64

	byName map[string]*Column
}

// Column finds a column by name, in any letter case; nil if there is none.
func (t *Table) Column(name string) *Column {
	if c := t.byName[name]; c != nil {
		return c
	}
	if c := t.byName[strings.ToLower(name)]; c != nil {
		return c
	}
	return nil
}

// Index finds a public index by name, in any letter case; nil if there is none.
func (t *Table) Index(name string) *Index {
	for _, ix := range t.Indexes {
		if strings.EqualFold(ix.Name, name) {
			return ix
		}
	}
	return nil
}

// IndexByID finds an index in any state; nil if there is none.
func (t *Table) IndexByID(id int64) *Index {
	for _, ix := range t.WriteIndexes {
		if ix.ID == id {
			return ix
		}
	}
	if t.PK != nil && t.PK.ID == id {
		return t.PK
	}
	return nil
}

// HandleColumn is the column whose value is the handle of a HandleInt table, nil otherwise.
func (t *Table) HandleColumn() *Column {
	if t.Handle == HandleInt && t.PK != nil {
		return t.Columns[t.PK.Columns[0].Offset]
	}
	return nil
}

// finish computes what is derived from the other fields. Called once, before the table is published.
func (t *Table) finish() {
	t.byName = make(map[string]*Column, 2*len(t.Columns))
	for i, c := range t.Columns {
		c.Offset = i
		c.HasDefault = c.Default != nil
		t.byName[strings.ToLower(c.Name)] = c
		t.byName[c.Name] = c
		if c.AutoIncrement {
			t.AutoInc = c
		}
	}
	t.markKeys()
	t.Handle = HandleRowID
	if t.PK == nil {
		return
	}
	t.Handle = HandleCommon
	if len(t.PK.Columns) == 1 {
		if fitsHandle(t.Columns[t.PK.Columns[0].Offset].Type) {
			t.Handle = HandleInt
		}
	}
}

// markKeys sets the key flags of the columns as clients see them in the result set metadata and in COLUMN_KEY.
func (t *Table) markKeys() {
	const keyFlags = types.FlagPri | types.FlagUni | types.FlagMul
	for _, c := range t.Columns {
		c.Type.Flags &^= keyFlags
	}
	for _, ix := range t.Indexes {
		for i, ic := range ix.Columns {
			c := t.Columns[ic.Offset]
			switch {
			case ix.Primary:
				c.Type.Flags |= types.FlagPri | types.FlagNotNull
			case i > 0:
			case ix.Unique && len(ix.Columns) == 1:
				c.Type.Flags |= types.FlagUni
			default:
				c.Type.Flags |= types.FlagMul
			}
		}
	}
}

// KeyRole is the COLUMN_KEY text of a column: PRI before UNI before MUL, empty if it begins no index.
// A table without PRIMARY KEY shows its first unique NOT NULL index as PRI, as MySQL does.
func (t *Table) KeyRole(c *Column) string {
	switch {
	case c.Type.Flags&types.FlagPri != 0:
		return "PRI"
	case t.promoted(c):
		return "PRI"
	case c.Type.Flags&types.FlagUni != 0:
		return "UNI"
	case c.Type.Flags&types.FlagMul != 0:
		return "MUL"
	default:
		return ""
	}
}

func (t *Table) promoted(c *Column) bool {
	if t.PK != nil {
		return false
	}
	for _, ix := range t.Indexes {
		if !ix.Unique || !t.allNotNull(ix) {
			continue
		}
		for _, ic := range ix.Columns {
			if t.Columns[ic.Offset] == c {
				return true
			}
		}
		return false
	}
	return false
}

func (t *Table) allNotNull(ix *Index) bool {
	for _, ic := range ix.Columns {
		if !t.Columns[ic.Offset].NotNull() || ic.Length >= 0 {
			return false
		}
	}
	return true
}

// fitsHandle says whether all values of an integer type fit into a signed 64-bit handle in their own order. BIGINT
// UNSIGNED does not, so such a PRIMARY KEY is a common handle.
func fitsHandle(t types.Type) bool {
	switch t.Tp {
	case types.TypeTiny, types.TypeShort, types.TypeInt24, types.TypeLong:
		return true
	case types.TypeLonglong:
		return t.Flags&types.FlagUnsigned == 0
	}
	return false
}

// clone copies a table deeply enough that columns and indexes of the copy may be changed. Derived fields are dropped.
func (t *Table) clone() *Table {
	c := *t
	c.Columns = make([]*Column, len(t.Columns))
	for i, col := range t.Columns {
		cc := *col
		c.Columns[i] = &cc
	}
	c.Indexes, c.WriteIndexes, c.PK, c.AutoInc, c.byName = nil, nil, nil, nil, nil
	for _, ix := range t.AllIndexes() {
		ci := *ix
		ci.Columns = append([]IndexColumn(nil), ix.Columns...)
		c.AddIndex(&ci)
	}
	return &c
}

// Edit returns a copy of t to change and hand to Change.PutTable. Columns and indexes of the copy may be changed;
// lookup by name does not work on it.
func (t *Table) Edit() *Table { return t.clone() }

// AllIndexes lists the indexes in any state, PRIMARY first, then by id.
func (t *Table) AllIndexes() []*Index {
	out := make([]*Index, 0, len(t.WriteIndexes)+1)
	if t.PK != nil {
		out = append(out, t.PK)
	}
	return append(out, t.WriteIndexes...)
}

// AddIndex files an index where its kind and state say. For tables that are being made or edited.
func (t *Table) AddIndex(ix *Index) {
	if ix.Primary {
		t.PK = ix
		t.Indexes = append([]*Index{ix}, t.Indexes...)
		return
	}
	t.WriteIndexes = append(t.WriteIndexes, ix)
	if ix.State == StatePublic {
		t.Indexes = append(t.Indexes, ix)
	}
}

// RemoveIndex takes an index away. For tables that are being edited.
func (t *Table) RemoveIndex(id int64) {
	other := func(ix *Index) bool { return ix.ID != id }
	t.WriteIndexes = keep(t.WriteIndexes, other)
	t.Indexes = keep(t.Indexes, other)
}

func keep(list []*Index, pred func(*Index) bool) []*Index {
	var out []*Index
	for _, ix := range list {
		if pred(ix) {
			out = append(out, ix)
		}
	}
	return out
}
