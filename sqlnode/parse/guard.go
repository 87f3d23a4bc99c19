package parse

import (
	"strings"

	"github.com/pingcap/tidb/pkg/parser/tidb"

	"github.com/cairndb/cairn/internal/sqlerr"
)

// Limits of the guard. The parser keeps its own stack on the heap, but its lexer recurses once per comment that follows
// a comment, and every walk over the AST (the parser's own, the binder's, the compiler's) recurses once per level. A Go
// stack may grow to 1 GB; a level costs well below 10 kB in all walks together, so these limits keep a factor of ten.
const (
	// freeText is the length below which a text cannot do harm whatever it holds.
	freeText = 4 << 10
	// maxDepth bounds the estimated height of the tree: operators chained without parentheses make a tree as high as
	// the chain is long.
	maxDepth = 20_000
	// nestWeight is what an opening parenthesis or CASE counts: it may begin a subquery, whose level is dearer.
	nestWeight = 10
	// maxComments bounds comments in a row.
	maxComments = 10_000
	// stringWeight is what each of several adjacent string literals counts: they are concatenated one by one.
	stringWeight = 20
)

// checkNesting refuses a text whose AST would be too high, by one cheap pass that follows the lexer's rules for strings
// and comments. It over-estimates: the height is the sum, over the open parentheses, of the operators since the last
// comma.
func checkNesting(sql string, mode SQLMode) error {
	if len(sql) <= freeText {
		return nil
	}
	g := guard{s: sql, noBackslash: mode.HasNoBackslashEscapesMode()}
	g.levels = append(g.levels[:0], level{})
	if g.run() {
		return nil
	}
	if g.comments > maxComments {
		return syntaxError(sql, g.pos)
	}
	return sqlerr.Newf(sqlerr.ErrStackOverrunNeedMore, "Thread stack overrun: the statement nests too deeply near '"+nearText(sql[min(g.pos, len(sql)):])+"'")
}

// level is one open parenthesis or CASE.
type level struct {
	chain  int  // weight of operators since the last separator
	tables bool // inside FROM or UPDATE: commas join tables and so add height
	isCase bool // closed by END, not by a parenthesis
}

type guard struct {
	s           string
	pos         int
	noBackslash bool

	levels   []level
	depth    int // sum of the chains and weights of all open levels
	comments int // comments in a row
	strings  int // string literals in a row
	bang     bool
	// opensTable tells that a table may begin here: a parenthesis now holds a list of tables.
	opensTable bool
}

// run scans the whole text; false as soon as a limit is passed.
func (g *guard) run() bool {
	for g.pos < len(g.s) {
		c := g.s[g.pos]
		if c <= ' ' || c == 0x85 || c == 0xA0 { // the lexer's white space at the start of a token
			g.pos++
			continue
		}
		if g.comment(c) {
			if g.comments > maxComments {
				return false
			}
			continue
		}
		g.comments = 0
		g.token(c)
		if g.depth > maxDepth {
			return false
		}
	}
	return true
}

// comment skips a comment, or the opening or closing of one whose contents are code; false if there is none here.
func (g *guard) comment(c byte) bool {
	rest := g.s[g.pos:]
	switch {
	case c == '#':
		g.skipLine()
	case c == '-' && strings.HasPrefix(rest, "--") && (len(rest) == 2 || isSpace(rest[2])):
		g.skipLine()
	case c == '*' && g.bang && strings.HasPrefix(rest, "*/"):
		g.bang = false
		g.pos += 2
	case c == '/' && strings.HasPrefix(rest, "/*"):
		g.block(rest)
	default:
		return false
	}
	g.comments++
	return true
}

func (g *guard) block(rest string) {
	switch {
	case strings.HasPrefix(rest, "/*!"):
		g.bang = true
		g.pos += 3
	case strings.HasPrefix(rest, "/*T!"):
		if features := featureIDs(rest[4:]); tidb.CanParseFeature(features...) {
			g.bang = true
			g.pos += 4
			return
		}
		g.skipBlock(rest, 4)
	default:
		g.skipBlock(rest, 2)
	}
}

// skipBlock skips to the end of a comment whose text begins at from.
func (g *guard) skipBlock(rest string, from int) {
	if end := strings.Index(rest[from:], "*/"); end >= 0 {
		g.pos += from + end + 2
		return
	}
	g.pos = len(g.s)
}

// featureIDs reads the list of /*T![a,b]; nil if there is no well-formed one, as the lexer does.
func featureIDs(s string) []string {
	if !strings.HasPrefix(s, "[") {
		return nil
	}
	end := strings.IndexByte(s, ']')
	if end < 0 {
		return nil
	}
	ids := strings.Split(s[1:end], ",")
	for _, id := range ids {
		if id == "" {
			return nil
		}
		for i := range len(id) {
			if !isWord(id[i]) {
				return nil
			}
		}
	}
	return ids
}

func (g *guard) skipLine() {
	if i := strings.IndexByte(g.s[g.pos:], '\n'); i >= 0 {
		g.pos += i
		return
	}
	g.pos = len(g.s)
}

// token consumes one token that is no comment.
func (g *guard) token(c byte) {
	if c != '\'' && c != '"' {
		g.strings = 0
	}
	opens := g.opensTable
	g.opensTable = false
	switch {
	case c == '\'' || c == '"':
		g.quoted(c, !g.noBackslash)
		if g.strings++; g.strings > 1 {
			g.add(stringWeight)
		}
	case c == '`':
		g.quoted(c, false)
	case isWord(c):
		g.word()
	default:
		g.pos++
		g.punctuation(c, opens)
	}
}

func (g *guard) punctuation(c byte, opensTable bool) {
	switch c {
	case '(', '{', '[':
		inTables := opensTable && g.top().tables
		g.push(level{tables: inTables})
		g.opensTable = inTables
	case ')', '}', ']':
		g.pop(false)
	case ',':
		if g.top().tables {
			g.add(1)
			g.opensTable = true
			return
		}
		g.separate()
	case ';':
		g.levels = append(g.levels[:0], level{})
		g.depth = 0
	case '.', '@', '?', ':':
	default:
		g.add(1)
	}
}

// quoted skips a quoted token. A doubled quote is seen as two tokens, which does not change where quoting ends; an
// adjacent pair counts as concatenation only when something stands between them.
func (g *guard) quoted(q byte, escapes bool) {
	i := g.pos + 1
	for i < len(g.s) {
		c := g.s[i]
		switch {
		case c == '\\' && escapes:
			i += 2
			continue
		case c == q:
			if i+1 < len(g.s) && g.s[i+1] == q {
				i += 2
				continue
			}
			g.pos = i + 1
			return
		}
		i++
	}
	g.pos = len(g.s)
}

func (g *guard) word() {
	start := g.pos
	for g.pos < len(g.s) && isWord(g.s[g.pos]) {
		g.pos++
	}
	w := g.s[start:g.pos]
	if len(w) < 2 || len(w) > 9 || w[0] >= 0x80 || w[0] <= '9' {
		return
	}
	var buf [9]byte
	up := buf[:len(w)]
	for i := range len(w) {
		c := w[i]
		if 'a' <= c && c <= 'z' {
			c -= 'a' - 'A'
		}
		up[i] = c
	}
	switch string(up) {
	case "AND", "OR", "XOR", "NOT", "LIKE", "IN", "IS", "BETWEEN", "DIV", "MOD", "REGEXP", "RLIKE", "COLLATE", "BINARY",
		"UNION", "EXCEPT", "INTERSECT", "ILIKE", "MEMBER", "INTERVAL", "EXISTS", "WHEN", "THEN", "ELSE", "BEGIN", "IF",
		"WHILE", "LOOP", "REPEAT", "ESCAPE", "SOUNDS":
		g.add(1)
	case "JOIN":
		g.top().tables, g.opensTable = true, true
		g.add(1)
	case "FROM", "UPDATE", "USING":
		g.top().tables, g.opensTable = true, true
	case "SELECT", "WHERE", "SET", "GROUP", "ORDER", "HAVING", "LIMIT", "VALUES", "WINDOW":
		g.top().tables = false
	case "CASE":
		g.push(level{isCase: true})
	case "END":
		g.pop(true)
	}
}

func (g *guard) top() *level { return &g.levels[len(g.levels)-1] }

func (g *guard) add(n int) {
	g.top().chain += n
	g.depth += n
}

// separate ends a list element: the next one does not stand on it.
func (g *guard) separate() {
	top := g.top()
	g.depth -= top.chain
	top.chain = 0
}

func (g *guard) push(l level) {
	g.depth += nestWeight
	g.levels = append(g.levels, l)
}

// pop closes the innermost level if it is of the right kind; an unbalanced text is the parser's business.
func (g *guard) pop(isCase bool) {
	top := g.top()
	if len(g.levels) == 1 || top.isCase != isCase {
		return
	}
	g.depth -= top.chain + nestWeight
	g.levels = g.levels[:len(g.levels)-1]
}

func isWord(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '$' || c >= 0x80
}

func isSpace(c byte) bool { return c == ' ' || '\t' <= c && c <= '\r' || c == 0x85 || c == 0xA0 }
