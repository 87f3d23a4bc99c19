package catalog

import (
	"sort"

	"github.com/cairndb/cairn/internal/charset"
)

// Snapshot is one version of the schema. Immutable; safe for concurrent use.
type Snapshot struct {
	// Version is the schema version; it grows by one with every published change.
	Version int64

	dbs   map[string]*dbEntry
	byID  map[int64]*Table
	names []string // sorted database names
}

type dbEntry struct {
	db     *Database
	tables map[string]*Table
	sorted []*Table // by name
}

// Database finds a database by its exact name; nil if there is none.
func (s *Snapshot) Database(name string) *Database {
	if e := s.entry(name); e != nil {
		return e.db
	}
	return nil
}

// entry looks a database up. The system schemas answer in any letter case, because clients write INFORMATION_SCHEMA.
func (s *Snapshot) entry(name string) *dbEntry {
	if e := s.dbs[name]; e != nil {
		return e
	}
	if canonical := canonicalSystemDB(name); canonical != "" {
		return s.dbs[canonical]
	}
	return nil
}

// Table finds a table by exact database and table name; nil if there is none. Tables of information_schema answer in
// any letter case.
func (s *Snapshot) Table(db, table string) *Table {
	e := s.entry(db)
	if e == nil {
		return nil
	}
	if t := e.tables[table]; t != nil {
		return t
	}
	if e.db.System {
		return e.tables[canonicalSystemTable(e.db.Name, table)]
	}
	return nil
}

// TableByID finds a base table by id; nil if there is none.
func (s *Snapshot) TableByID(id int64) *Table { return s.byID[id] }

// Databases lists the databases by name. The caller must not change the slice's elements.
func (s *Snapshot) Databases() []*Database {
	out := make([]*Database, 0, len(s.names))
	for _, n := range s.names {
		out = append(out, s.dbs[n].db)
	}
	return out
}

// Tables lists the tables of a database by name; nil if there is no such database. Read-only for the caller.
func (s *Snapshot) Tables(db string) []*Table {
	if e := s.entry(db); e != nil {
		return e.sorted
	}
	return nil
}

// Builder makes a Snapshot. The zero value is not usable: call NewBuilder.
type Builder struct {
	snap *Snapshot
}

// NewBuilder starts a snapshot of the given version that has the system databases only.
func NewBuilder(version int64) *Builder {
	b := &Builder{snap: &Snapshot{Version: version, dbs: map[string]*dbEntry{}, byID: map[int64]*Table{}}}
	for _, name := range systemDBs {
		b.AddDatabase(&Database{Name: name, Collation: charset.Default, System: true})
	}
	return b
}

// AddDatabase adds or replaces a database.
func (b *Builder) AddDatabase(db *Database) *Builder {
	b.snap.dbs[db.Name] = &dbEntry{db: db, tables: map[string]*Table{}}
	return b
}

// AddTable adds a table to the database t.DB, which must have been added. The builder takes ownership of t and fills
// its derived fields unless they were filled before (a table may be shared by several snapshots).
func (b *Builder) AddTable(t *Table) *Builder {
	e := b.snap.dbs[t.DB]
	if e == nil {
		panic("catalog: table " + t.Name + " added to unknown database " + t.DB)
	}
	if t.byName == nil {
		t.finish()
	}
	e.tables[t.Name] = t
	if !t.Virtual {
		b.snap.byID[t.ID] = t
	}
	return b
}

// Build finishes the snapshot. The builder must not be used afterwards.
func (b *Builder) Build() *Snapshot {
	s := b.snap
	for name, e := range s.dbs {
		s.names = append(s.names, name)
		e.sorted = make([]*Table, 0, len(e.tables))
		for _, t := range e.tables {
			e.sorted = append(e.sorted, t)
		}
		sort.Slice(e.sorted, func(i, j int) bool { return e.sorted[i].Name < e.sorted[j].Name })
	}
	sort.Strings(s.names)
	return s
}
