package binder

import (
	"strings"

	"github.com/cairndb/cairn/sqlnode/parse"
	"github.com/pingcap/tidb/pkg/parser/ast"
)

// fieldName is the label of a select item as MySQL prints it: the alias, the value of a string literal, or the text of the expression.
func fieldName(f *ast.SelectField) string {
	if f.AsName.O != "" {
		return f.AsName.O
	}
	if l, ok := unparen(f.Expr).(*parse.Literal); ok && l.Form == parse.FormPlain && l.Typ.IsString() {
		s := l.GetString()
		if n := l.GetProjectionOffset(); n >= 0 && n <= len(s) {
			s = s[:n]
		}
		return strings.TrimLeft(s, " \t\r\n")
	}
	return strings.TrimSpace(f.Text())
}
