package keys

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/cairndb/cairn/internal/codec"
)

// Text writes a key for people, and for Parse to read again:
//
//	t42                  the prefix of table 42
//	t42_r                the prefix of its rows
//	t42_r7               the row with the integer handle 7
//	t42_r{8000f1}        a row with another handle, in hex
//	t42_i3               the prefix of index 3
//	t42_i3_{0180ff}      an entry of the index, its columns in hex
//	m:schema/1           metadata of this name
//	{ff00}               any other key, in hex
//
// The empty key is written {}.
func Text(key []byte) string {
	if text := tableText(key); text != "" {
		return text
	}
	if name, err := DecodeMeta(key); err == nil && printable(name) {
		return string(metaByte) + ":" + name
	}
	return braces(key)
}

func tableText(key []byte) string {
	id, rest, err := DecodeTable(key)
	if err != nil {
		return ""
	}
	text := fmt.Sprintf("t%d", id)
	if len(rest) == 0 {
		return text
	}
	if rest[0] == rowByte {
		return text + "_r" + handleText(rest[1:])
	}
	if _, index, rest, err := DecodeIndex(key); err == nil {
		text += fmt.Sprintf("_i%d", index)
		if len(rest) > 0 {
			text += "_" + braces(rest)
		}
		return text
	}
	return ""
}

func handleText(handle []byte) string {
	if len(handle) == 0 {
		return ""
	}
	if n, rest, err := codec.DecodeInt(handle); err == nil && len(rest) == 0 {
		return strconv.FormatInt(n, 10)
	}
	return braces(handle)
}

func braces(b []byte) string { return "{" + hex.EncodeToString(b) + "}" }

func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

// ErrNotText tells that a text is none that Text writes.
var ErrNotText = errors.New("not a key; write it as t42, t42_r7, t42_i3_{0180ff} or {hex}")

// Parse reads what Text writes, and the form t_42_r_7 of SHOW TABLE ... REGIONS.
func Parse(text string) ([]byte, error) {
	key, ok := parse(text)
	if !ok {
		return nil, fmt.Errorf("%q: %w", text, ErrNotText)
	}
	return key, nil
}

func parse(text string) ([]byte, bool) {
	if b, ok := unbrace(text); ok {
		return b, true
	}
	if name, ok := strings.CutPrefix(text, string(metaByte)+":"); ok {
		return Meta(name), true
	}
	head, rest, more := strings.Cut(fromShow(text), "_")
	table, ok := number(head, tableByte)
	if !ok {
		return nil, false
	}
	if !more {
		return AppendTablePrefix(nil, table), true
	}
	if handle, ok := strings.CutPrefix(rest, string(rowByte)); ok {
		b, ok := parseHandle(handle)
		return AppendRow(nil, table, b), ok
	}
	head, rest, more = strings.Cut(rest, "_")
	index, ok := number(head, indexByte)
	if !ok {
		return nil, false
	}
	var columns []byte
	if more {
		if columns, ok = unbrace(rest); !ok {
			return nil, false
		}
	}
	return AppendIndex(nil, table, index, columns, nil), true
}

// fromShow rewrites t_42_i_3_0180ff as t42_i3_{0180ff}; other texts stay as they are.
func fromShow(text string) string {
	f := strings.Split(text, "_")
	if len(f) < 2 || f[0] != string(tableByte) {
		return text
	}
	out := f[0] + f[1]
	switch {
	case len(f) > 3 && f[2] == string(rowByte) && f[3] != "":
		if _, err := strconv.ParseInt(f[3], 10, 64); err != nil {
			return out + "_r{" + f[3] + "}"
		}
		return out + "_r" + f[3]
	case len(f) > 2 && f[2] == string(rowByte):
		return out + "_r"
	case len(f) > 4 && f[2] == string(indexByte) && f[4] != "":
		return out + "_i" + f[3] + "_{" + f[4] + "}"
	case len(f) > 3 && f[2] == string(indexByte):
		return out + "_i" + f[3]
	case len(f) == 2 || f[2] == "":
		return out
	}
	return text
}

func parseHandle(text string) ([]byte, bool) {
	if text == "" {
		return nil, true
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return IntHandle(n), true
	}
	return unbrace(text)
}

// number reads the integer after one letter.
func number(text string, letter byte) (int64, bool) {
	digits, ok := strings.CutPrefix(text, string(letter))
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	return n, err == nil
}

func unbrace(text string) ([]byte, bool) {
	inner, open := strings.CutPrefix(text, "{")
	inner, closed := strings.CutSuffix(inner, "}")
	if !open || !closed {
		return nil, false
	}
	b, err := hex.DecodeString(inner)
	return b, err == nil
}
