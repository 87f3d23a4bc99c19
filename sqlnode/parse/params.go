package parse

import (
	"sort"

	"github.com/pingcap/tidb/pkg/parser/ast"
)

// Params returns the parameter markers of a statement in the order of the text, which is their Index.
func Params(n ast.Node) []*Param {
	c := paramCollector{}
	n.Accept(&c)
	sort.Slice(c.params, func(i, j int) bool { return c.params[i].offset < c.params[j].offset })
	return c.params
}

// numberParams gives every marker its position: a walk meets them in the order of the tree, not of the text.
func numberParams(n ast.Node) {
	for i, p := range Params(n) {
		p.Index = i
	}
}

type paramCollector struct{ params []*Param }

// Enter implements ast.Visitor.
func (c *paramCollector) Enter(n ast.Node) (ast.Node, bool) {
	if p, ok := n.(*Param); ok {
		c.params = append(c.params, p)
	}
	return n, false
}

// Leave implements ast.Visitor.
func (c *paramCollector) Leave(n ast.Node) (ast.Node, bool) { return n, true }
