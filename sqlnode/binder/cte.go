package binder

import (
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/pingcap/tidb/pkg/parser/ast"
)

// maxExpansions bounds how many common table expressions a statement may refer to, counting those inside of others: each reference is bound
// as a derived table of its own.
const maxExpansions = 200

// cte is a common table expression in scope. It sees those before it.
type cte struct {
	def   *ast.CommonTableExpression
	depth int // number of expressions in scope before it
}

// with brings the expressions of a WITH clause into scope; the caller calls leave when the statement it belongs to is bound.
func (b *binder) with(w *ast.WithClause) (leave func(), err error) {
	saved := b.ctes
	leave = func() { b.ctes = saved }
	if w == nil {
		return leave, nil
	}
	scope := append([]*cte(nil), saved...)
	for i, def := range w.CTEs {
		for _, o := range w.CTEs[:i] {
			if o.Name.L == def.Name.L {
				return leave, sqlerr.New(sqlerr.ErrNonuniqTable, def.Name.O)
			}
		}
		scope = append(scope, &cte{def: def, depth: len(scope)})
	}
	b.ctes = scope
	return leave, nil
}

// findCTE looks a name up among the common table expressions, the innermost first.
func (b *binder) findCTE(name string) (*cte, error) {
	for i := len(b.ctes) - 1; i >= 0; i-- {
		if b.ctes[i].def.Name.O == name {
			return b.ctes[i], nil
		}
	}
	for _, c := range b.expanding {
		if c.def.Name.O == name && c.def.IsRecursive {
			return nil, notSupported("recursive common table expressions")
		}
	}
	return nil, nil
}

// bindCTE binds a reference to a common table expression, as a derived table.
func (b *binder) bindCTE(c *cte, alias string, parent *scope, err error) (fromResult, error) {
	if err != nil {
		return fromResult{}, err
	}
	if b.expansions++; b.expansions > maxExpansions {
		return fromResult{}, notSupported("so many references to common table expressions")
	}
	if alias == "" {
		alias = c.def.Name.O
	}
	saved, open := b.ctes, b.expanding
	b.ctes, b.expanding = b.ctes[:c.depth], append(b.expanding, c)
	defer func() { b.ctes, b.expanding = saved, open }()
	q, err := b.bindQuery(c.def.Query, nil)
	if err != nil {
		return fromResult{}, err
	}
	return derived(q, alias, c.def.ColNameList, parent)
}
