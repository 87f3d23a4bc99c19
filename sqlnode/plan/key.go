package plan

import (
	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/codec"
	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/internal/keys"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/sqlnode/catalog"
)

// KeyColumn is one column of a key.
type KeyColumn struct {
	Offset  int // into Table.Columns
	Type    types.Type
	NotNull bool
	Prefix  int // characters (bytes for binary strings) kept in the key; -1 = all
	domain  domain
}

// KeyBuilder makes keys of one table's handle or of one index from values. Immutable.
type KeyBuilder struct {
	Table *catalog.Table
	Index *catalog.Index // nil = the table's handle
	Cols  []KeyColumn
}

// NewKeyBuilder describes the keys of an index, or of the handle when ix is nil or the primary key. A table with hidden row ids has a
// handle without columns: only its whole range can be described.
func NewKeyBuilder(t *catalog.Table, ix *catalog.Index) *KeyBuilder {
	k := &KeyBuilder{Table: t}
	src := ix
	if ix == nil || ix.Primary {
		src = t.PK
	} else {
		k.Index = ix
	}
	if src == nil || (k.Index == nil && t.Handle == catalog.HandleRowID) {
		return k
	}
	k.Cols = make([]KeyColumn, len(src.Columns))
	for i, ic := range src.Columns {
		c := t.Columns[ic.Offset]
		k.Cols[i] = KeyColumn{Offset: ic.Offset, Type: c.Type, NotNull: c.NotNull() || src.Primary, Prefix: ic.Length, domain: domainOf(c.Type)}
	}
	return k
}

// IntHandle says that the key is an integer handle, which is encoded without a NULL flag.
func (k *KeyBuilder) IntHandle() bool { return k.Index == nil && k.Table.Handle == catalog.HandleInt }

// prefix appends what all keys of the space begin with.
func (k *KeyBuilder) prefix(dst []byte) []byte {
	if k.Index == nil {
		return keys.AppendRowPrefix(dst, k.Table.ID)
	}
	return keys.AppendIndexPrefix(dst, k.Table.ID, k.Index.ID)
}

// Whole is the range of all keys. The result belongs to the caller.
func (k *KeyBuilder) Whole() KeyRange {
	start := k.prefix(nil)
	return KeyRange{Start: start, End: keys.PrefixEnd(start)}
}

// appendColumn appends the encoding of v, a value of column i's kind as stored or NULL.
func (k *KeyBuilder) appendColumn(dst []byte, i int, v types.Value) []byte {
	c := &k.Cols[i]
	if k.IntHandle() {
		if c.domain == domainUint {
			return codec.AppendUint(dst, v.Uint()) // see wrapUnsigned
		}
		return codec.AppendInt(dst, v.Int())
	}
	if c.Prefix >= 0 && v.Kind() == types.KindString {
		v = types.Str(cutPrefix(v.Bytes(), c.Prefix, c.Type.Collation))
	}
	return types.AppendKey(dst, v, c.Type)
}

func cutPrefix(s []byte, n int, coll charset.ID) []byte {
	if coll == charset.Binary {
		return s[:min(n, len(s))]
	}
	return charset.RunePrefix(s, n)
}

// Accepts says whether values of type t may bound key column i, and whether the resulting range holds exactly the rows that satisfy the
// comparison (else it is a superset and the comparison must be kept as a filter). lit says that the value's collation yields to the
// column's.
func (k *KeyBuilder) Accepts(i int, t types.Type, lit bool) (ok, exact bool) {
	c := &k.Cols[i]
	ok, exact = c.domain.accepts(c.Type, t, lit)
	if c.Prefix >= 0 {
		ok, exact = ok && prefixSafe(c.Type.Collation), false
	}
	return ok, exact
}

// prefixSafe says that cutting strings after n characters keeps their order in the collation: every character has one weight of its own.
func prefixSafe(id charset.ID) bool {
	c := charset.ByID(id)
	return c != nil && c.Bytewise
}

// Point appends the key of the entry whose columns equal vals, one per key column and for which Accepts was exact. ok is false when no
// entry can be equal (NULL, out of range). vals are evaluated over row of b.
func (k *KeyBuilder) Point(dst []byte, env *expr.Env, vals []Scalar, b *chunk.Batch, row int) (key []byte, ok bool, err error) {
	dst = k.prefix(dst)
	for i := range vals {
		v := vals[i].Value(env, b, row)
		if env.Err != nil {
			return nil, false, env.Err
		}
		if v.IsNull() {
			return dst, false, nil
		}
		c, err := k.cut(env, i, v, vals[i].Expr.Type())
		if err != nil || c.kind != cutExact {
			return dst, false, err
		}
		if k.IntHandle() {
			dst = codec.AppendInt(dst, c.lo.Int())
			continue
		}
		dst = k.appendColumn(dst, i, c.lo)
	}
	return dst, true, nil
}

// Range is the range of keys whose first len(vals) columns equal vals; ok as for Point.
func (k *KeyBuilder) Range(env *expr.Env, vals []Scalar, b *chunk.Batch, row int) (r KeyRange, ok bool, err error) {
	start, ok, err := k.Point(nil, env, vals, b, row)
	if !ok || err != nil {
		return KeyRange{}, ok, err
	}
	return KeyRange{Start: start, End: keys.PrefixEnd(start)}, true, nil
}

// BuildKey appends the full key of the row or of the unique index entry. ok is false when no row can be found.
func (p *PointGet) BuildKey(dst []byte, env *expr.Env) (key []byte, ok bool, err error) {
	return p.Builder.Point(dst, env, p.Key, nil, 0)
}

// BuildKeys computes the keys of all rows looked for, without those that cannot exist; duplicates are kept. In key order when KeepOrder.
func (p *BatchPointGet) BuildKeys(env *expr.Env) ([][]byte, error) {
	out := make([][]byte, 0, len(p.Keys))
	for _, vals := range p.Keys {
		key, ok, err := p.Builder.Point(nil, env, vals, nil, 0)
		if err != nil {
			return nil, err
		}
		if ok {
			out = append(out, key)
		}
	}
	if p.KeepOrder {
		sortKeys(out, p.Desc)
	}
	return out, nil
}

// BytewiseOrder says that strings of the type order by their bytes, so that a common beginning is a range.
func BytewiseOrder(t types.Type) bool {
	c := charset.ByID(t.Collation)
	return c != nil && c.Bytewise && !c.PadSpace
}

// AfterPrefix is the smallest string greater than all that begin with prefix, for types with BytewiseOrder; nil when there is none.
func AfterPrefix(prefix []byte) []byte { return keys.PrefixEnd(prefix) }

// Covers says that an entry of index ix gives the value of the column at offset: the key keeps it readable, or the handle does.
func Covers(t *catalog.Table, ix *catalog.Index, offset int) bool {
	for _, ic := range ix.Columns {
		if ic.Offset == offset {
			return readable(t, ic)
		}
	}
	if t.PK == nil {
		return false
	}
	for _, ic := range t.PK.Columns {
		if ic.Offset == offset {
			return readable(t, ic)
		}
	}
	return false
}

func readable(t *catalog.Table, ic catalog.IndexColumn) bool {
	return ic.Length < 0 && types.KeyInvertible(t.Columns[ic.Offset].Type)
}
