package wire

import (
	"github.com/go-mysql-org/go-mysql/mysql"
)

// OK is the content of an OK packet.
type OK struct {
	Affected uint64
	InsertID uint64
	Status   uint16
	Warnings int // sent capped at 65535
	Info     string
}

// Error is the content of an ERR packet. State has five characters.
type Error struct {
	Code  uint16
	State string
	Msg   string
}

// Column describes one column of a result set (ColumnDefinition41).
type Column struct {
	Schema, Table, OrgTable, Name, OrgName string
	Charset                                uint16 // collation id; 63 for what is not text
	Length                                 uint32 // display width in bytes
	Type                                   byte   // MYSQL_TYPE_*
	Flags                                  uint16
	Decimals                               byte
}

// WriteOK answers a command that has no result set.
func (c *Conn) WriteOK(ok OK) { c.writeOK(mysql.OK_HEADER, ok) }

func (c *Conn) writeOK(header byte, ok OK) {
	c.begin()
	b := append(c.wbuf, header)
	b = appendLenInt(b, ok.Affected)
	b = appendLenInt(b, ok.InsertID)
	b = append(b, byte(ok.Status), byte(ok.Status>>8))
	w := min(ok.Warnings, 65535)
	b = append(b, byte(w), byte(w>>8))
	if ok.Info != "" {
		// Clients without SESSION_TRACK read the rest of the packet, but all of
		// them accept the length in front; libmysql has always sent it so.
		b = appendLenString(b, ok.Info)
	}
	c.wbuf = b
	c.end()
}

// WriteError answers a command with an error, also in the middle of a result set.
func (c *Conn) WriteError(e Error) {
	c.begin()
	b := append(c.wbuf, mysql.ERR_HEADER, byte(e.Code), byte(e.Code>>8))
	if c.caps&mysql.CLIENT_PROTOCOL_41 != 0 || c.caps == 0 {
		state := e.State
		if len(state) != 5 {
			state = "HY000"
		}
		b = append(b, '#')
		b = append(b, state...)
	}
	msg := e.Msg
	if len(msg) > 8192 {
		msg = msg[:8192]
	}
	c.wbuf = append(b, msg...)
	c.end()
}

// writeEOF writes the EOF packet of clients that have not given it up.
func (c *Conn) writeEOF(status uint16, warnings int) {
	w := min(warnings, 65535)
	c.begin()
	c.wbuf = append(c.wbuf, mysql.EOF_HEADER, byte(w), byte(w>>8), byte(status), byte(status>>8))
	c.end()
}

// WriteColumns starts a result set: the number of columns and their definitions.
func (c *Conn) WriteColumns(cols []Column, status uint16) {
	c.begin()
	c.wbuf = appendLenInt(c.wbuf, uint64(len(cols)))
	c.end()
	c.writeDefinitions(cols, status)
}

// writeDefinitions writes definitions and, for old clients, the EOF behind them.
func (c *Conn) writeDefinitions(cols []Column, status uint16) {
	for i := range cols {
		c.begin()
		c.wbuf = appendColumn(c.wbuf, &cols[i])
		c.end()
	}
	if c.caps&mysql.CLIENT_DEPRECATE_EOF == 0 {
		c.writeEOF(status, 0)
	}
}

// WriteEnd ends a result set.
func (c *Conn) WriteEnd(status uint16, warnings int) {
	if c.caps&mysql.CLIENT_DEPRECATE_EOF != 0 {
		c.writeOK(mysql.EOF_HEADER, OK{Status: status, Warnings: warnings})
		return
	}
	c.writeEOF(status, warnings)
}

// WriteFieldList answers COM_FIELD_LIST: definitions with a default value, then EOF.
func (c *Conn) WriteFieldList(cols []Column, status uint16) {
	for i := range cols {
		c.begin()
		c.wbuf = append(appendColumn(c.wbuf, &cols[i]), 0xfb)
		c.end()
	}
	c.WriteEnd(status, 0)
}

// WriteText answers a command with bare text (COM_STATISTICS).
func (c *Conn) WriteText(s string) {
	c.begin()
	c.wbuf = append(c.wbuf, s...)
	c.end()
}

func appendColumn(b []byte, col *Column) []byte {
	b = appendLenString(b, "def")
	b = appendLenString(b, col.Schema)
	b = appendLenString(b, col.Table)
	b = appendLenString(b, col.OrgTable)
	b = appendLenString(b, col.Name)
	b = appendLenString(b, col.OrgName)
	b = append(b, 0x0c, byte(col.Charset), byte(col.Charset>>8))
	b = append(b, byte(col.Length), byte(col.Length>>8), byte(col.Length>>16), byte(col.Length>>24))
	return append(b, col.Type, byte(col.Flags), byte(col.Flags>>8), col.Decimals, 0, 0)
}

// WritePrepared answers COM_STMT_PREPARE.
func (c *Conn) WritePrepared(id uint32, params, cols []Column, status uint16, warnings int) {
	w := min(warnings, 65535)
	c.begin()
	c.wbuf = append(c.wbuf, mysql.OK_HEADER, byte(id), byte(id>>8), byte(id>>16), byte(id>>24),
		byte(len(cols)), byte(len(cols)>>8), byte(len(params)), byte(len(params)>>8),
		0, byte(w), byte(w>>8))
	c.end()
	if len(params) > 0 {
		c.writeDefinitions(params, status)
	}
	if len(cols) > 0 {
		c.writeDefinitions(cols, status)
	}
}
