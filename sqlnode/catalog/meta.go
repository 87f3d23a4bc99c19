package catalog

import (
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/decimal"
	"github.com/cairndb/cairn/internal/types"
)

// Names of the metadata keys; docs/formats/meta.md draws them.
const (
	versionName = "schema/version"
	nextIDName  = "schema/id"
	dbPrefix    = "schema/db/"
	tablePrefix = "schema/table/"
	rangePrefix = "schema/range/"
	nodePrefix  = "node/"
)

func dbName(id int64) string    { return fmt.Sprintf("%s%020d", dbPrefix, id) }
func tableName(id int64) string { return fmt.Sprintf("%s%020d", tablePrefix, id) }
func rangeName(id int64) string { return fmt.Sprintf("%s%020d", rangePrefix, id) }

type databaseJSON struct {
	ID        int64  `json:"id"`
	Name      string `json:"name"`
	Collation string `json:"collation"`
}

type tableJSON struct {
	ID          int64        `json:"id"`
	DBID        int64        `json:"db_id"`
	Name        string       `json:"name"`
	Columns     []columnJSON `json:"columns"`
	Indexes     []indexJSON  `json:"indexes,omitempty"`
	Collation   string       `json:"collation"`
	Comment     string       `json:"comment,omitempty"`
	RowFormat   string       `json:"row_format,omitempty"`
	AutoInc     int64        `json:"auto_increment,omitempty"`
	Epoch       uint64       `json:"epoch"`
	Frozen      bool         `json:"frozen,omitempty"`
	Owner       string       `json:"owner,omitempty"`
	CreateTime  int64        `json:"create_time"`
	MaxColumnID int64        `json:"max_column_id"`
	MaxIndexID  int64        `json:"max_index_id"`
}

type columnJSON struct {
	ID          int64        `json:"id"`
	Name        string       `json:"name"`
	Type        typeJSON     `json:"type"`
	Default     *defaultJSON `json:"default,omitempty"`
	Origin      *valueJSON   `json:"origin_default,omitempty"`
	AutoInc     bool         `json:"auto_increment,omitempty"`
	OnUpdateNow bool         `json:"on_update_now,omitempty"`
	Comment     string       `json:"comment,omitempty"`
}

type typeJSON struct {
	Tp        byte     `json:"tp"`
	Flags     uint32   `json:"flags,omitempty"`
	Flen      int32    `json:"flen"`
	Decimal   int32    `json:"decimal"`
	Collation string   `json:"collation"`
	Elems     []string `json:"elems,omitempty"`
}

type defaultJSON struct {
	Value *valueJSON `json:"value,omitempty"` // absent: NULL or now
	Now   bool       `json:"now,omitempty"`
	Fsp   int        `json:"fsp,omitempty"`
}

// valueJSON is a value by kind: numbers and decimals as text, strings as bytes (base64), times and durations packed.
type valueJSON struct {
	Kind  string `json:"kind"`
	Text  string `json:"text,omitempty"`
	Bytes []byte `json:"bytes,omitempty"`
}

type indexJSON struct {
	ID        int64             `json:"id"`
	Name      string            `json:"name"`
	Columns   []indexColumnJSON `json:"columns"`
	Unique    bool              `json:"unique,omitempty"`
	Primary   bool              `json:"primary,omitempty"`
	Invisible bool              `json:"invisible,omitempty"`
	Comment   string            `json:"comment,omitempty"`
	State     State             `json:"state,omitempty"`
}

type indexColumnJSON struct {
	Column int64 `json:"column"` // id
	Length int   `json:"length"`
	Desc   bool  `json:"desc,omitempty"`
}

func encodeDatabase(db *Database) []byte {
	return mustJSON(databaseJSON{ID: db.ID, Name: db.Name, Collation: charset.Get(db.Collation).Name})
}

func decodeDatabase(b []byte) (*Database, error) {
	var j databaseJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return nil, fmt.Errorf("catalog: database record: %w", err)
	}
	coll, err := collationID(j.Collation)
	return &Database{ID: j.ID, Name: j.Name, Collation: coll}, err
}

func encodeTable(t *Table) []byte {
	j := tableJSON{
		ID: t.ID, DBID: t.DBID, Name: t.Name, Collation: charset.Get(t.Collation).Name, Comment: t.Comment, RowFormat: t.RowFormat,
		AutoInc: t.AutoIncOption, Epoch: t.Epoch, Frozen: t.Frozen, Owner: t.Owner, CreateTime: t.CreateTime, MaxColumnID: t.MaxColumnID, MaxIndexID: t.MaxIndexID,
	}
	for _, c := range t.Columns {
		j.Columns = append(j.Columns, encodeColumn(c))
	}
	for _, ix := range t.AllIndexes() {
		ij := indexJSON{ID: ix.ID, Name: ix.Name, Unique: ix.Unique, Primary: ix.Primary, Invisible: ix.Invisible, Comment: ix.Comment, State: ix.State}
		for _, ic := range ix.Columns {
			ij.Columns = append(ij.Columns, indexColumnJSON{Column: t.Columns[ic.Offset].ID, Length: ic.Length, Desc: ic.Desc})
		}
		j.Indexes = append(j.Indexes, ij)
	}
	return mustJSON(j)
}

func encodeColumn(c *Column) columnJSON {
	j := columnJSON{ID: c.ID, Name: c.Name, AutoInc: c.AutoIncrement, OnUpdateNow: c.OnUpdateNow, Comment: c.Comment, Type: typeJSON{
		Tp: c.Type.Tp, Flags: c.Type.Flags, Flen: c.Type.Flen, Decimal: c.Type.Decimal, Collation: charset.Get(c.Type.Collation).Name, Elems: c.Type.Elems,
	}}
	if c.Default != nil {
		j.Default = &defaultJSON{Now: c.Default.Now, Fsp: c.Default.Fsp, Value: encodeValue(c.Default.Value)}
	}
	j.Origin = encodeValue(c.OriginDefault)
	return j
}

// decodeTable reads a table record; dbName completes it. The table is finished, ready for a snapshot.
func decodeTable(b []byte, db string) (*Table, error) {
	var j tableJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return nil, fmt.Errorf("catalog: table record: %w", err)
	}
	coll, err := collationID(j.Collation)
	if err != nil {
		return nil, err
	}
	t := &Table{
		ID: j.ID, DBID: j.DBID, DB: db, Name: j.Name, Collation: coll, Comment: j.Comment, Engine: "InnoDB", RowFormat: j.RowFormat,
		AutoIncOption: j.AutoInc, Epoch: j.Epoch, Frozen: j.Frozen, Owner: j.Owner, CreateTime: j.CreateTime, MaxColumnID: j.MaxColumnID, MaxIndexID: j.MaxIndexID,
	}
	byID := make(map[int64]int, len(j.Columns))
	for i := range j.Columns {
		c, err := decodeColumn(&j.Columns[i])
		if err != nil {
			return nil, fmt.Errorf("catalog: table %s.%s: %w", db, j.Name, err)
		}
		byID[c.ID] = i
		t.Columns = append(t.Columns, c)
	}
	for _, ij := range j.Indexes {
		ix := &Index{ID: ij.ID, Name: ij.Name, Unique: ij.Unique, Primary: ij.Primary, Invisible: ij.Invisible, Comment: ij.Comment, State: ij.State}
		for _, ic := range ij.Columns {
			off, ok := byID[ic.Column]
			if !ok {
				return nil, fmt.Errorf("catalog: index %s of table %s.%s has no column %d", ix.Name, db, j.Name, ic.Column)
			}
			ix.Columns = append(ix.Columns, IndexColumn{Offset: off, Length: ic.Length, Desc: ic.Desc})
		}
		t.AddIndex(ix)
	}
	t.finish()
	return t, nil
}

func decodeColumn(j *columnJSON) (*Column, error) {
	coll, err := collationID(j.Type.Collation)
	if err != nil {
		return nil, err
	}
	c := &Column{ID: j.ID, Name: j.Name, AutoIncrement: j.AutoInc, OnUpdateNow: j.OnUpdateNow, Comment: j.Comment, Type: types.Type{
		Tp: j.Type.Tp, Flags: j.Type.Flags, Flen: j.Type.Flen, Decimal: j.Type.Decimal, Collation: coll, Elems: j.Type.Elems,
	}}
	if c.OriginDefault, err = decodeValue(j.Origin); err != nil {
		return nil, err
	}
	if j.Default != nil {
		c.Default = &Default{Now: j.Default.Now, Fsp: j.Default.Fsp}
		c.Default.Value, err = decodeValue(j.Default.Value)
	}
	return c, err
}

func encodeValue(v types.Value) *valueJSON {
	j := &valueJSON{Kind: v.Kind().String()}
	switch v.Kind() {
	case types.KindNull:
		return nil
	case types.KindInt:
		j.Text = strconv.FormatInt(v.Int(), 10)
	case types.KindUint, types.KindTime, types.KindDuration, types.KindFloat:
		j.Text = strconv.FormatUint(v.Lane(), 10)
	case types.KindDecimal:
		j.Text = v.Decimal().String()
	default:
		j.Bytes = v.Bytes()
	}
	return j
}

func decodeValue(j *valueJSON) (types.Value, error) {
	if j == nil {
		return types.Null(), nil
	}
	kind := types.KindNull
	for k := types.KindInt; k <= types.KindJSON; k++ {
		if k.String() == j.Kind {
			kind = k
		}
	}
	var err error
	switch kind {
	case types.KindInt:
		var n int64
		n, err = strconv.ParseInt(j.Text, 10, 64)
		return types.Int(n), err
	case types.KindUint, types.KindTime, types.KindDuration, types.KindFloat:
		var n uint64
		n, err = strconv.ParseUint(j.Text, 10, 64)
		return types.FromLane(kind, n), err
	case types.KindDecimal:
		d, ok := decimal.FromString(j.Text)
		if !ok {
			return types.Null(), fmt.Errorf("bad decimal %q", j.Text)
		}
		return types.Dec(d), nil
	case types.KindString:
		return types.Str(j.Bytes), nil
	case types.KindJSON:
		return types.JSON(j.Bytes), nil
	}
	return types.Null(), fmt.Errorf("unknown kind of value %q", j.Kind)
}

func collationID(name string) (charset.ID, error) {
	c, ok := charset.Lookup(name)
	if !ok {
		return 0, fmt.Errorf("catalog: unknown collation %q", name)
	}
	return c.ID, nil
}

// mustJSON encodes our own structs, which cannot fail.
func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("catalog: encode %T: %v", v, err))
	}
	return b
}
