package wire

import (
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-mysql-org/go-mysql/mysql"
	driver "github.com/go-sql-driver/mysql"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/decimal"
	"github.com/cairndb/cairn/internal/types"
)

func typeOf(tp byte, flags uint32, scale int32) types.Type {
	return types.Type{Tp: tp, Flags: flags, Flen: types.UnspecifiedLength, Decimal: scale, Collation: charset.Binary}
}

func dec(t testing.TB, s string) types.Value {
	t.Helper()
	d, status := decimal.Parse([]byte(s))
	if status != 0 {
		t.Fatalf("%s: status %v", s, status)
	}
	return types.Dec(d)
}

// cell is a value of a column and its text in MySQL.
type cell struct {
	name string
	typ  types.Type
	val  types.Value
	want string
}

func cells(t testing.TB) []cell {
	text := types.NewString(400, charset.Default)
	return []cell{
		{"tiny", typeOf(types.TypeTiny, 0, 0), types.Int(-128), "-128"},
		{"unsigned tiny", typeOf(types.TypeTiny, types.FlagUnsigned, 0), types.Uint(255), "255"},
		{"short", typeOf(types.TypeShort, 0, 0), types.Int(-32768), "-32768"},
		{"medium", typeOf(types.TypeInt24, 0, 0), types.Int(-8388608), "-8388608"},
		{"long", typeOf(types.TypeLong, 0, 0), types.Int(math.MinInt32), "-2147483648"},
		{"longlong", typeOf(types.TypeLonglong, 0, 0), types.Int(math.MinInt64), "-9223372036854775808"},
		{"unsigned longlong", typeOf(types.TypeLonglong, types.FlagUnsigned, 0), types.Uint(math.MaxUint64), "18446744073709551615"},
		{"year", typeOf(types.TypeYear, types.FlagUnsigned, 0), types.Uint(2024), "2024"},
		{"double", typeOf(types.TypeDouble, 0, -1), types.Float(-1.5), "-1.5"},
		{"big double", typeOf(types.TypeDouble, 0, -1), types.Float(1e20), "1e+20"}, // as the driver writes it
		{"float", typeOf(types.TypeFloat, 0, -1), types.Float(0.25), "0.25"},
		{"decimal", types.NewDecimal(65, 30), dec(t, "12345678901234567890123456789012345.123456789012345678901234567890"), "12345678901234567890123456789012345.123456789012345678901234567890"},
		{"date", types.NewTemporal(types.TypeDate, 0), types.TimeVal(types.MakeDate(2024, 2, 29)), "2024-02-29"},
		{"datetime", types.NewTemporal(types.TypeDatetime, 0), types.TimeVal(types.MakeTime(2024, 2, 29, 23, 59, 58, 0)), "2024-02-29 23:59:58"},
		{"midnight", types.NewTemporal(types.TypeDatetime, 0), types.TimeVal(types.MakeDate(2024, 2, 29)), "2024-02-29 00:00:00"},
		{"microseconds", types.NewTemporal(types.TypeDatetime, 6), types.TimeVal(types.MakeTime(2024, 2, 29, 23, 59, 58, 123456)), "2024-02-29 23:59:58.123456"},
		{"zero datetime", types.NewTemporal(types.TypeDatetime, 0), types.TimeVal(0), "0000-00-00 00:00:00"},
		{"time", types.NewTemporal(types.TypeDuration, 0), types.Dur(types.MakeDuration(true, 838, 59, 59, 0)), "-838:59:59"},
		{"time with microseconds", types.NewTemporal(types.TypeDuration, 6), types.Dur(types.MakeDuration(false, 1, 2, 3, 4)), "01:02:03.000004"},
		{"zero time", types.NewTemporal(types.TypeDuration, 0), types.Dur(0), "00:00:00"},
		{"text", text, types.String("pebble"), "pebble"},
		{"empty text", text, types.String(""), ""},
		{"long text", text, types.String(strings.Repeat("é", 200)), strings.Repeat("é", 200)},
		{"very long text", text, types.String(strings.Repeat("x", 70000)), strings.Repeat("x", 70000)},
	}
}

// resultServer answers every statement with the same rows.
type resultServer struct {
	cols  []Column
	typs  []types.Type
	batch *chunk.Batch
}

func newResultServer(cs []cell, rows int) *resultServer {
	s := &resultServer{}
	var vals, nulls []types.Value
	for _, c := range cs {
		col := Column{Schema: "db", Table: "t", OrgTable: "t", Name: c.name, OrgName: c.name}
		col.Type, col.Length, col.Flags, col.Decimals, col.Charset = Definition(c.typ)
		s.cols = append(s.cols, col)
		s.typs = append(s.typs, c.typ)
		vals = append(vals, c.val)
		nulls = append(nulls, types.Null())
	}
	s.batch = chunk.NewBatch(s.typs, 2)
	for i := range rows {
		if i%2 == 0 {
			s.batch.AppendRow(vals...)
		} else {
			s.batch.AppendRow(nulls...)
		}
	}
	return s
}

func (s *resultServer) serve(nc net.Conn) {
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(10 * time.Second))
	c := NewConn(nc, 1<<20, time.Second)
	if _, err := c.Handshake("127.0.0.1", HandshakeOptions{Version: "8.0.11", Credentials: testAccounts(), Auth: NewAuthCache()}); err != nil {
		return
	}
	c.WriteOK(OK{})
	for c.Flush() == nil {
		cmd, err := c.ReadCommand()
		if err != nil {
			return
		}
		switch cmd.Type {
		case mysql.COM_QUERY, mysql.COM_STMT_EXECUTE:
			c.WriteColumns(s.cols, 2)
			if c.WriteRows(s.batch, s.typs, cmd.Type == mysql.COM_STMT_EXECUTE) != nil {
				return
			}
			c.WriteEnd(2, 0)
		case mysql.COM_STMT_PREPARE:
			c.WritePrepared(1, nil, s.cols, 2, 0)
		case mysql.COM_STMT_CLOSE:
		default:
			c.WriteOK(OK{})
		}
	}
}

// connect returns a client of s.
func (s *resultServer) connect(t *testing.T) *sql.DB {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if nc, err := ln.Accept(); err == nil {
			s.serve(nc)
		}
	}()
	cfg := driver.NewConfig()
	cfg.Net, cfg.Addr, cfg.User = "tcp", ln.Addr().String(), "empty"
	connector, err := driver.NewConnector(cfg)
	if err != nil {
		t.Fatal(err)
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(1)
	t.Cleanup(func() {
		_ = db.Close()
		_ = ln.Close()
		<-done
	})
	return db
}

func queryText(t *testing.T, query func() (*sql.Rows, error), width int) (out [][]string) {
	t.Helper()
	rows, err := query()
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	raw := make([]sql.RawBytes, width)
	dest := make([]any, width)
	for i := range raw {
		dest[i] = &raw[i]
	}
	for rows.Next() {
		if err := rows.Scan(dest...); err != nil {
			t.Fatal(err)
		}
		row := make([]string, width)
		for i, v := range raw {
			row[i] = string(v)
			if v == nil {
				row[i] = "NULL"
			}
		}
		out = append(out, row)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// A client reads from both protocols what MySQL would have sent.
func TestRowsOfBothProtocols(t *testing.T) {
	cs := cells(t)
	db := newResultServer(cs, 3).connect(t)
	stmt, err := db.Prepare("SELECT")
	if err != nil {
		t.Fatal(err)
	}
	defer stmt.Close()
	for name, query := range map[string]func() (*sql.Rows, error){
		"text":   func() (*sql.Rows, error) { return db.Query("SELECT") },
		"binary": func() (*sql.Rows, error) { return stmt.Query() },
	} {
		t.Run(name, func(t *testing.T) {
			rows := queryText(t, query, len(cs))
			if len(rows) != 3 {
				t.Fatalf("want 3 rows, got %d", len(rows))
			}
			for i, c := range cs {
				want := c.want
				if rows[0][i] != want || rows[2][i] != want {
					t.Errorf("%s: want %.40q, got %.40q and %.40q", c.name, want, rows[0][i], rows[2][i])
				}
				if rows[1][i] != "NULL" {
					t.Errorf("%s: want NULL, got %.40q", c.name, rows[1][i])
				}
			}
		})
	}
}

func TestEmptyResultHasColumns(t *testing.T) {
	cs := cells(t)
	db := newResultServer(cs, 0).connect(t)
	rows, err := db.Query("SELECT")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	names, err := rows.Columns()
	if err != nil || len(names) != len(cs) || names[0] != cs[0].name {
		t.Fatalf("columns %v, %v", names, err)
	}
	if rows.Next() {
		t.Fatal("a row")
	}
}

func TestOnlySelectedRowsAreWritten(t *testing.T) {
	typs := []types.Type{types.NewInt()}
	b := chunk.NewBatch(typs, 4)
	for i := range 4 {
		b.AppendRow(types.Int(int64(i)))
	}
	b.Sel = []uint16{1, 3}
	c, s := scripted(nil, 0)
	if err := c.WriteRows(b, typs, false); err != nil {
		t.Fatal(err)
	}
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	if got, want := s.out.String(), "\x02\x00\x00\x00\x011\x02\x00\x00\x01\x013"; got != want {
		t.Fatalf("want %q, got %q", want, got)
	}
}

func TestErrorPacket(t *testing.T) {
	c, s := scripted(nil, 0)
	c.WriteError(Error{Code: 1064, State: "42000", Msg: "near 'x'"})
	c.WriteError(Error{Code: 1105, State: "", Msg: strings.Repeat("x", 10000)})
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	r, _ := scripted(s.out.Bytes(), 1<<20)
	p, err := r.ReadPacket()
	if want := "\xff\x28\x04#42000near 'x'"; err != nil || string(p) != want {
		t.Fatalf("want %q, got %q, %v", want, p, err)
	}
	if p, err = r.ReadPacket(); err != nil || !strings.HasPrefix(string(p), "\xff\x51\x04#HY000x") || len(p) != 9+8192 {
		t.Fatalf("got %.20q, %d bytes, %v", p, len(p), err)
	}
}

func TestOKPacketCapsWarnings(t *testing.T) {
	c, s := scripted(nil, 0)
	c.WriteOK(OK{Affected: 300, InsertID: 1 << 40, Status: 2, Warnings: 100000, Info: "Rows matched: 1"})
	_ = c.Flush()
	r := &reader{b: s.out.Bytes()[5:]}
	if a, id := r.lenInt(), r.lenInt(); a != 300 || id != 1<<40 {
		t.Fatalf("affected %d, insert id %d", a, id)
	}
	if st, w := r.uint(2), r.uint(2); st != 2 || w != 65535 {
		t.Fatalf("status %d, warnings %d", st, w)
	}
	if info := r.lenString(); string(info) != "Rows matched: 1" || r.bad {
		t.Fatalf("info %q", info)
	}
}

// A client that hangs up stops the producer of a result.
func TestRowsStopAtABrokenConnection(t *testing.T) {
	typs := []types.Type{types.NewString(1000, charset.Default)}
	b := chunk.NewBatch(typs, 100)
	for range 100 {
		b.AppendRow(types.String(strings.Repeat("x", 1000)))
	}
	c := NewConn(&brokenPipe{}, 100, 0)
	if err := c.WriteRows(b, typs, false); err == nil || errors.Is(err, ErrMalformed) {
		t.Fatalf("got %v", err)
	}
}

// The row of sysbench: id, k, c CHAR(120), pad CHAR(60).
func sysbenchBatch() (*chunk.Batch, []types.Type) {
	typs := []types.Type{typeOf(types.TypeLong, 0, 0), typeOf(types.TypeLong, 0, 0), types.NewString(120, charset.Default), types.NewString(60, charset.Default)}
	b := chunk.NewBatch(typs, chunk.MaxRows)
	for i := range chunk.MaxRows {
		b.AppendRow(types.Int(int64(i)), types.Int(25000), types.String(strings.Repeat("0123456789-", 11)[:119]), types.String(strings.Repeat("0123456789-", 6)[:59]))
	}
	return b, typs
}

type discard struct{ script }

func (*discard) Write(p []byte) (int, error) { return len(p), nil }

func BenchmarkRows(b *testing.B) {
	batch, typs := sysbenchBatch()
	for _, bin := range []bool{false, true} {
		b.Run(fmt.Sprintf("binary=%v", bin), func(b *testing.B) {
			c := NewConn(&discard{}, 0, 0)
			b.ReportAllocs()
			for b.Loop() {
				if err := c.WriteRows(batch, typs, bin); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*chunk.MaxRows), "ns/row")
		})
	}
}

func BenchmarkExecuteArgs(b *testing.B) {
	st := Statement{Params: 4}
	e := execution{[]byte{0}, slices.Repeat([]byte{types.TypeLong, 0}, 4), nil}
	for i := range uint32(4) {
		e.data = binary.LittleEndian.AppendUint32(e.data, i)
	}
	first, err := st.Execute(e.bytes(), nil)
	if err != nil {
		b.Fatal(err)
	}
	e.types = nil
	data := e.bytes()
	vals := first.Values
	b.ReportAllocs()
	for b.Loop() {
		got, err := st.Execute(data, vals)
		if err != nil {
			b.Fatal(err)
		}
		vals = got.Values
	}
}
