// Package parse turns SQL text into the TiDB parser's AST, with literals already in our types.
//
// The parser module leaves literals to a driver: this package is that driver (Literal and Param), set up once for the
// process because the module keeps its hooks in package variables. Parsers are pooled; an AST belongs to the caller and
// is not touched again.
//
// A text that nests too deeply is refused before the parser sees it: the parser's lexer and every walk over an AST recurse,
// and a Go stack overflow cannot be recovered from, so one statement could stop the process (see guard.go).
//
// Some statements MySQL knows are not in the module's grammar. After a syntax error the text is offered to a few
// rewrites and explicit refusals (see shim.go).
package parse

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/pingcap/tidb/pkg/parser"
	"github.com/pingcap/tidb/pkg/parser/ast"
	"github.com/pingcap/tidb/pkg/parser/mysql"
	"github.com/pingcap/tidb/pkg/parser/terror"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/sqlerr"
)

// SQLMode is the set of sql_mode flags, as the parser module numbers them.
type SQLMode = mysql.SQLMode

// Parser is a pool of parsers. Safe for concurrent use; one per SQL node is enough.
type Parser struct {
	pool sync.Pool // *parser.Parser
}

// New returns an empty pool.
func New() *Parser {
	p := &Parser{}
	p.pool.New = func() any { return parser.New() }
	return p
}

// Parse parses a text of any number of statements. cs and collation are those of the connection, which string literals
// without introducer get; collation 0 means the default. A text without statement (empty or only comments) gives none.
//
// Errors are *sqlerr.Error, mostly 1064 with MySQL's text; the position in it counts in sql as given.
func (p *Parser) Parse(sql string, mode SQLMode, collation charset.ID) ([]ast.StmtNode, error) {
	if err := checkNesting(sql, mode); err != nil {
		return nil, err
	}
	stmts, err := p.parse(sql, mode, collation)
	if err == nil {
		return stmts, nil
	}
	rewritten, shimErr := shim(sql)
	if shimErr != nil {
		return nil, shimErr
	}
	if rewritten == "" {
		return nil, err
	}
	if stmts, second := p.parse(rewritten, mode, collation); second == nil {
		for _, s := range stmts { // one
			s.SetText(nil, sql) // some say in words what the grammar does not keep
		}
		return stmts, nil
	}
	return nil, err
}

// ParseOne parses a text that must hold exactly one statement, as PREPARE demands; otherwise 1064 (or 1065 for none).
func (p *Parser) ParseOne(sql string, mode SQLMode, collation charset.ID) (ast.StmtNode, error) {
	stmts, err := p.Parse(sql, mode, collation)
	switch {
	case err != nil:
		return nil, err
	case len(stmts) == 0:
		return nil, sqlerr.New(sqlerr.ErrEmptyQuery)
	case len(stmts) > 1:
		return nil, syntaxError(sql, len(stmts[0].OriginalText()))
	}
	return stmts[0], nil
}

func (p *Parser) parse(sql string, mode SQLMode, collation charset.ID) ([]ast.StmtNode, error) {
	ps := p.pool.Get().(*parser.Parser)
	ps.SetSQLMode(mode)
	stmts, _, err := ps.ParseSQL(sql, parser.CharsetConnection(mysql.UTF8MB4Charset), parser.CollationConnection(collationToken(collation)))
	stmts = slices.Clone(stmts)
	if len(sql) <= maxPooledText {
		p.pool.Put(ps)
	}
	if err != nil {
		return nil, convertError(sql, err)
	}
	if strings.IndexByte(sql, '?') >= 0 {
		for _, s := range stmts {
			numberParams(s)
		}
	}
	return stmts, nil
}

// maxPooledText is the longest text after which a parser goes back to the pool: its stacks grow with the text and
// would keep the memory.
const maxPooledText = 256 << 10

// collationToken is what we hand to the module as connection collation. It passes the name on to our driver unread, so
// we give the number: the driver then needs no look-up per literal and can tell the connection's collation from the one
// the grammar invents for a character set introducer.
func collationToken(id charset.ID) parser.CollationConnection {
	if id == 0 || id == charset.Default {
		return defaultCollationToken
	}
	return parser.CollationConnection(strconv.Itoa(int(id)))
}

const defaultCollationToken = "255"

// convertError gives a parser error the number and text MySQL would give it.
func convertError(sql string, err error) error {
	var te *terror.Error
	if errors.As(err, &te) && te.Code() != mysql.ErrParse && te.Code() != mysql.ErrUnknown {
		se := terror.ToSQLError(te)
		return sqlerr.Newf(se.Code, se.Message)
	}
	return syntaxError(sql, errorOffset(sql, err.Error()))
}

// errorOffset finds where in sql the parser stopped. The module only says it by quoting the rest of the text.
func errorOffset(sql, msg string) int {
	if _, tail, ok := strings.Cut(msg, "(total length "); ok {
		num, _, _ := strings.Cut(tail, ")")
		if n, err := strconv.Atoi(num); err == nil && n <= len(sql) {
			return len(sql) - n
		}
	}
	if _, rest, ok := strings.Cut(msg, "near \""); ok {
		for end := len(rest); ; {
			end = strings.LastIndexByte(rest[:end], '"')
			if end < 0 {
				break
			}
			if strings.HasSuffix(sql, rest[:end]) {
				return len(sql) - end
			}
		}
	}
	if _, rest, ok := strings.Cut(msg, "near '"); ok { // unclosed comment: near '/* ...' at line N
		if i := strings.LastIndex(rest, "' at line"); i >= 0 {
			if at := strings.LastIndex(sql, rest[:i]); at >= 0 {
				return at
			}
		}
	}
	return len(sql)
}

// syntaxError is error 1064 at a byte offset of sql.
func syntaxError(sql string, off int) error {
	off = min(off, len(sql))
	for off < len(sql) && (sql[off] == ' ' || sql[off] == '\n' || sql[off] == '\t' || sql[off] == '\r') {
		off++
	}
	line := 1 + strings.Count(sql[:off], "\n")
	return sqlerr.Newf(sqlerr.ErrParse, "You have an error in your SQL syntax; check the manual that corresponds to your MySQL server version "+
		"for the right syntax to use near '"+nearText(sql[off:])+"' at line "+strconv.Itoa(line))
}

// nearText cuts the quoted rest to 80 characters, as MySQL does.
func nearText(rest string) string {
	const limit = 80
	n := 0
	for i := range rest {
		if n == limit {
			return rest[:i]
		}
		n++
	}
	if !utf8.ValidString(rest) {
		return strings.ToValidUTF8(rest, "?")
	}
	return rest
}
