package sysview

import (
	"context"
	"fmt"
	"strings"

	"github.com/pingcap/tidb/pkg/parser"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/sqlnode/catalog"
)

// typeNames are the words of DATA_TYPE.
var typeNames = map[byte]string{
	types.TypeTiny: "tinyint", types.TypeShort: "smallint", types.TypeInt24: "mediumint", types.TypeLong: "int", types.TypeLonglong: "bigint",
	types.TypeFloat: "float", types.TypeDouble: "double", types.TypeNewDecimal: "decimal",
	types.TypeTimestamp: "timestamp", types.TypeDate: "date", types.TypeDuration: "time", types.TypeDatetime: "datetime", types.TypeYear: "year",
	types.TypeBit: "bit", types.TypeJSON: "json", types.TypeEnum: "enum", types.TypeSet: "set",
}

// stringNames are the words of string types, for characters and for bytes.
var stringNames = map[byte][2]string{
	types.TypeString: {"char", "binary"}, types.TypeVarchar: {"varchar", "varbinary"}, types.TypeVarString: {"varchar", "varbinary"},
	types.TypeTinyBlob: {"tinytext", "tinyblob"}, types.TypeBlob: {"text", "blob"},
	types.TypeMediumBlob: {"mediumtext", "mediumblob"}, types.TypeLongBlob: {"longtext", "longblob"},
}

// dataType is the bare name of a type.
func dataType(t types.Type) string {
	if pair, ok := stringNames[t.Tp]; ok {
		if t.IsCharacter() {
			return pair[0]
		}
		return pair[1]
	}
	return typeNames[t.Tp]
}

// ColumnType is the full type text: COLUMN_TYPE and the Type of SHOW COLUMNS.
func ColumnType(t types.Type) string {
	name := dataType(t)
	switch t.Tp {
	case types.TypeTiny, types.TypeShort, types.TypeInt24, types.TypeLong, types.TypeLonglong:
		name += integerWidth(t)
		return name + numericFlags(t)
	case types.TypeNewDecimal:
		return fmt.Sprintf("%s(%d,%d)%s", name, t.Flen, max(t.Decimal, 0), numericFlags(t))
	case types.TypeFloat, types.TypeDouble:
		if t.Flen > 0 && t.Decimal >= 0 {
			name = fmt.Sprintf("%s(%d,%d)", name, t.Flen, t.Decimal)
		}
		return name + numericFlags(t)
	case types.TypeYear:
		return "year(4)"
	case types.TypeBit, types.TypeString, types.TypeVarchar, types.TypeVarString:
		return fmt.Sprintf("%s(%d)", name, t.Flen)
	case types.TypeDatetime, types.TypeTimestamp, types.TypeDuration:
		if t.FSP() > 0 {
			return fmt.Sprintf("%s(%d)", name, t.FSP())
		}
	case types.TypeEnum, types.TypeSet:
		quoted := make([]string, len(t.Elems))
		for i, e := range t.Elems {
			quoted[i] = "'" + strings.ReplaceAll(e, "'", "''") + "'"
		}
		return name + "(" + strings.Join(quoted, ",") + ")"
	}
	return name
}

// integerWidth is the display width, as MySQL before 8.0.19 shows it.
func integerWidth(t types.Type) string {
	if t.Flen > 0 {
		return fmt.Sprintf("(%d)", t.Flen)
	}
	return fmt.Sprintf("(%d)", t.DisplayLength())
}

func numericFlags(t types.Type) string {
	text := ""
	if t.Flags&types.FlagUnsigned != 0 {
		text += " unsigned"
	}
	if t.Flags&types.FlagZerofill != 0 {
		text += " zerofill"
	}
	return text
}

// DefaultText is the default of a column as text; ok is false when it has none
// or the default is NULL. now says that it is CURRENT_TIMESTAMP.
func DefaultText(c *catalog.Column) (text string, now, ok bool) {
	d := c.Default
	switch {
	case d == nil || (!d.Now && d.Value.IsNull()):
		return "", false, false
	case d.Now:
		return currentTimestamp(d.Fsp), true, true
	}
	if c.Type.Tp == types.TypeBit {
		return fmt.Sprintf("b'%b'", d.Value.Uint()), false, true
	}
	return string(types.AppendText(nil, d.Value, c.Type)), false, true
}

func currentTimestamp(fsp int) string {
	if fsp > 0 {
		return fmt.Sprintf("CURRENT_TIMESTAMP(%d)", fsp)
	}
	return "CURRENT_TIMESTAMP"
}

// Extra is the EXTRA text of a column.
func Extra(c *catalog.Column) string {
	var parts []string
	if c.AutoIncrement {
		parts = append(parts, "auto_increment")
	}
	if _, now, ok := DefaultText(c); ok && now {
		parts = append(parts, "DEFAULT_GENERATED")
	}
	if c.OnUpdateNow {
		parts = append(parts, "on update "+currentTimestamp(c.Type.FSP()))
	}
	return strings.Join(parts, " ")
}

// description is what COLUMNS says of a column besides its name.
type description struct {
	defaultText, charLen, octetLen, precision, scale, fsp, charset, collation types.Value
	dataType, extra                                                           string
}

func describe(c *catalog.Column) description {
	t := c.Type
	d := description{
		charLen: null(), octetLen: null(), precision: null(), scale: null(), fsp: null(), charset: null(), collation: null(),
		defaultText: null(), dataType: dataType(t), extra: Extra(c),
	}
	if text, _, ok := DefaultText(c); ok {
		d.defaultText = str(text)
	}
	switch {
	case t.IsNumeric() && t.Tp != types.TypeBit && t.Tp != types.TypeYear:
		d.precision, d.scale = numericSize(t)
	case t.Tp == types.TypeBit:
		d.precision = unum(uint64(t.Flen))
	case t.Tp == types.TypeDatetime || t.Tp == types.TypeTimestamp || t.Tp == types.TypeDuration:
		d.fsp = unum(uint64(t.FSP()))
	case t.IsString() || t.Tp == types.TypeEnum || t.Tp == types.TypeSet:
		d.stringSize(t)
	}
	return d
}

// integerDigits is the NUMERIC_PRECISION of integer types.
var integerDigits = map[byte]uint64{types.TypeTiny: 3, types.TypeShort: 5, types.TypeInt24: 7, types.TypeLong: 10, types.TypeLonglong: 19}

func numericSize(t types.Type) (precision, scale types.Value) {
	switch t.Tp {
	case types.TypeNewDecimal:
		return unum(uint64(t.Flen)), unum(uint64(max(t.Decimal, 0)))
	case types.TypeFloat:
		return unum(12), null()
	case types.TypeDouble:
		return unum(22), null()
	}
	n := integerDigits[t.Tp]
	if t.Tp == types.TypeLonglong && t.Unsigned() {
		n = 20
	}
	return unum(n), unum(0)
}

func (d *description) stringSize(t types.Type) {
	chars := int64(t.DisplayLength())
	octets := chars
	if t.Collation != charset.Binary {
		c := charset.Get(t.Collation)
		d.charset, d.collation = str(c.Charset.Name), str(c.Name)
		if !t.IsBlob() {
			octets = chars * int64(c.MaxLen())
		}
	}
	d.charLen, d.octetLen = num(chars), num(octets)
}

// indexDescription is what STATISTICS and SHOW INDEX say of one index column.
type indexDescription struct {
	nonUnique, name, seq, column, order, subPart, nullable types.Value
}

func indexName(ix *catalog.Index) string {
	if ix.Primary {
		return "PRIMARY"
	}
	return ix.Name
}

func indexRow(t *catalog.Table, ix *catalog.Index, i int) indexDescription {
	ic := ix.Columns[i]
	c := t.Columns[ic.Offset]
	r := indexDescription{nonUnique: num(1), name: str(indexName(ix)), seq: num(int64(i + 1)), column: str(c.Name),
		order: str("A"), subPart: null(), nullable: str("")}
	if ix.Unique || ix.Primary {
		r.nonUnique = num(0)
	}
	if ic.Desc {
		r.order = str("D")
	}
	if ic.Length >= 0 {
		r.subPart = num(int64(ic.Length))
	}
	if !c.NotNull() {
		r.nullable = str("YES")
	}
	return r
}

func keywords(_ context.Context, _ *Source, add func(...types.Value) error) error {
	for _, k := range parser.Keywords {
		reserved := int64(0)
		if k.Reserved {
			reserved = 1
		}
		if err := add(str(k.Word), num(reserved)); err != nil {
			return err
		}
	}
	return nil
}

// IndexRows are the rows of SHOW INDEX.
func IndexRows(t *catalog.Table) [][]types.Value {
	var out [][]types.Value
	for _, ix := range t.Indexes {
		for i := range ix.Columns {
			r := indexRow(t, ix, i)
			out = append(out, []types.Value{str(t.Name), r.nonUnique, r.name, r.seq, r.column, r.order, num(0), r.subPart,
				null(), r.nullable, str("BTREE"), str(""), str(ix.Comment), yes(!ix.Invisible), null()})
		}
	}
	return out
}
