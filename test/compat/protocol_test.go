package compat

import (
	"testing"

	"github.com/go-mysql-org/go-mysql/client"
	"github.com/go-mysql-org/go-mysql/mysql"

	"github.com/cairndb/cairn/test/server"
)

// Commands that database/sql has no way to send.
func TestProtocolCommands(t *testing.T) {
	s := server.Start(t)
	exec(t, pool(t, s, ""), "CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(10) DEFAULT 'x')")
	c, err := client.Connect(s.Addr, "root", "", database)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	t.Run("COM_FIELD_LIST", func(t *testing.T) {
		fields, err := c.FieldList("t", "")
		if err != nil || len(fields) != 2 || string(fields[1].Name) != "v" {
			t.Errorf("got %v, %v", fields, err)
		}
	})
	t.Run("COM_STATISTICS", func(t *testing.T) {
		if p := command(t, c, mysql.COM_STATISTICS, nil); len(p) < 10 || string(p[:8]) != "Uptime: " {
			t.Errorf("got %q", p)
		}
	})
	t.Run("COM_RESET_CONNECTION", func(t *testing.T) {
		do(t, c, "SET @a = 1")
		do(t, c, "BEGIN")
		do(t, c, "INSERT INTO t (id) VALUES (1)")
		stmt, err := c.Prepare("SELECT ?")
		if err != nil {
			t.Fatal(err)
		}
		if p := command(t, c, mysql.COM_RESET_CONNECTION, nil); p[0] != mysql.OK_HEADER {
			t.Fatalf("got % x", p)
		}
		if r := do(t, c, "SELECT @a IS NULL, DATABASE()"); value(t, r, 0) != "1" || value(t, r, 1) != database {
			t.Errorf("a session variable or the database changed: %v", r.Values)
		}
		if r := do(t, c, "SELECT COUNT(*) FROM t"); value(t, r, 0) != "0" {
			t.Error("the transaction was not rolled back")
		}
		if _, err := stmt.Execute(1); err == nil {
			t.Error("a prepared statement survived")
		}
	})
	t.Run("COM_CHANGE_USER", func(t *testing.T) { changeUser(t, c) })
	t.Run("COM_INIT_DB", func(t *testing.T) {
		if err := c.UseDB("nothing"); mysql.ErrorCode(err.Error()) != 1049 {
			t.Errorf("got %v", err)
		}
		if err := c.UseDB(database); err != nil {
			t.Error(err)
		}
	})
	t.Run("an unknown command", func(t *testing.T) {
		if p := command(t, c, 200, nil); p[0] != mysql.ERR_HEADER || uint16(p[1])|uint16(p[2])<<8 != 1047 {
			t.Errorf("got % x", p)
		}
		do(t, c, "SELECT 1")
	})
	t.Run("COM_PING", func(t *testing.T) {
		if err := c.Ping(); err != nil {
			t.Error(err)
		}
	})
}

func changeUser(t *testing.T, c *client.Conn) {
	do(t, c, "SET @a = 1")
	data := []byte("root\x00\x00compat\x00\xff\x00mysql_native_password\x00")
	p := command(t, c, mysql.COM_CHANGE_USER, data)
	if p[0] == mysql.EOF_HEADER { // asked to prove itself: there is no password
		if err := c.WritePacket(make([]byte, 4)); err != nil {
			t.Fatal(err)
		}
		var err error
		if p, err = c.ReadPacket(); err != nil {
			t.Fatal(err)
		}
	}
	if p[0] != mysql.OK_HEADER {
		t.Fatalf("got %q", p)
	}
	if r := do(t, c, "SELECT @a IS NULL, DATABASE(), CURRENT_USER()"); value(t, r, 0) != "1" || value(t, r, 1) != database {
		t.Errorf("got %v", r.Values)
	}
}

// command sends a command and returns the first packet of its answer.
func command(t *testing.T, c *client.Conn, cmd byte, data []byte) []byte {
	t.Helper()
	c.ResetSequence()
	if err := c.WritePacket(append(append(make([]byte, 4), cmd), data...)); err != nil {
		t.Fatal(err)
	}
	p, err := c.ReadPacket()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func do(t *testing.T, c *client.Conn, query string) *mysql.Result {
	t.Helper()
	r, err := c.Execute(query)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return r
}

func value(t *testing.T, r *mysql.Result, col int) string {
	t.Helper()
	s, err := r.GetString(0, col)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
