package sysview

import (
	"fmt"
	"strings"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/sqlnode/catalog"
)

// Quote is a name in back-quotes.
func Quote(name string) string { return "`" + strings.ReplaceAll(name, "`", "``") + "`" }

// quoteText is a string literal.
func quoteText(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, "'", "''", "\n", `\n`, "\r", `\r`, "\x00", `\0`).Replace(s) + "'"
}

// CreateDatabase is the text of SHOW CREATE DATABASE.
func CreateDatabase(d *catalog.Database, ifNotExists bool) string {
	clause := ""
	if ifNotExists {
		clause = "/*!32312 IF NOT EXISTS*/ "
	}
	c := charset.Get(d.Collation)
	text := "CREATE DATABASE " + clause + Quote(d.Name) + " /*!40100 DEFAULT CHARACTER SET " + c.Charset.Name
	if !c.IsDefault || c.Charset.Name == "utf8mb4" {
		text += " COLLATE " + c.Name
	}
	return text + " */"
}

// CreateTable is the text of SHOW CREATE TABLE. nextAutoID is the value the
// AUTO_INCREMENT clause shows; it is left out when it is 0 or 1.
func CreateTable(t *catalog.Table, nextAutoID int64) string {
	var b strings.Builder
	fmt.Fprintf(&b, "CREATE TABLE %s (\n", Quote(t.Name))
	for i, c := range t.Columns {
		if i > 0 {
			b.WriteString(",\n")
		}
		b.WriteString("  " + columnClause(t, c))
	}
	for _, ix := range t.Indexes {
		b.WriteString(",\n  " + indexClause(t, ix))
	}
	b.WriteString("\n) ENGINE=InnoDB")
	if t.AutoInc != nil && nextAutoID > 1 {
		fmt.Fprintf(&b, " AUTO_INCREMENT=%d", nextAutoID)
	}
	c := charset.Get(t.Collation)
	fmt.Fprintf(&b, " DEFAULT CHARSET=%s", c.Charset.Name)
	if !c.IsDefault || c.Charset.Name == "utf8mb4" {
		b.WriteString(" COLLATE=" + c.Name)
	}
	if t.RowFormat != "" {
		b.WriteString(" ROW_FORMAT=" + strings.ToUpper(t.RowFormat))
	}
	if t.Comment != "" {
		b.WriteString(" COMMENT=" + quoteText(t.Comment))
	}
	return b.String()
}

func columnClause(t *catalog.Table, c *catalog.Column) string {
	text := Quote(c.Name) + " " + ColumnType(c.Type)
	if c.Type.Collation != charset.Binary {
		// The character set is told when the collation is not the table's, the collation when it is not the character
		// set's default; utf8mb4's default changed with MySQL 8, so that one is told too.
		coll := charset.Get(c.Type.Collation)
		if coll.ID != t.Collation {
			text += " CHARACTER SET " + coll.Charset.Name
		}
		if !coll.IsDefault || coll.ID == charset.UTF8MB40900AICI && coll.ID != t.Collation {
			text += " COLLATE " + coll.Name
		}
	}
	if c.NotNull() {
		text += " NOT NULL"
	} else if c.Type.Tp == types.TypeTimestamp {
		text += " NULL"
	}
	text += defaultClause(c)
	if c.OnUpdateNow {
		text += " ON UPDATE " + currentTimestamp(c.Type.FSP())
	}
	if c.AutoIncrement {
		text += " AUTO_INCREMENT"
	}
	if c.Comment != "" {
		text += " COMMENT " + quoteText(c.Comment)
	}
	return text
}

func defaultClause(c *catalog.Column) string {
	value, now, ok := DefaultText(c)
	switch {
	case ok && (now || c.Type.Tp == types.TypeBit):
		return " DEFAULT " + value
	case ok:
		return " DEFAULT " + quoteText(value)
	case c.NotNull() || c.AutoIncrement || c.Type.IsBlob():
		return ""
	}
	return " DEFAULT NULL"
}

func indexClause(t *catalog.Table, ix *catalog.Index) string {
	text := "KEY " + Quote(ix.Name)
	switch {
	case ix.Primary:
		text = "PRIMARY KEY"
	case ix.Unique:
		text = "UNIQUE " + text
	}
	cols := make([]string, len(ix.Columns))
	for i, ic := range ix.Columns {
		cols[i] = Quote(t.Columns[ic.Offset].Name)
		if ic.Length >= 0 {
			cols[i] += fmt.Sprintf("(%d)", ic.Length)
		}
		if ic.Desc {
			cols[i] += " DESC"
		}
	}
	text += " (" + strings.Join(cols, ",") + ")"
	if ix.Comment != "" {
		text += " COMMENT " + quoteText(ix.Comment)
	}
	if ix.Invisible {
		text += " /*!80000 INVISIBLE */"
	}
	return text
}
