package expr

import (
	"github.com/cairndb/cairn/internal/types"
)

// What the optimizer asks of trees.

// Walk visits e and everything below it, parents first. It does not go below a node for which visit returns false.
func Walk(e Expr, visit func(Expr) bool) {
	if !visit(e) {
		return
	}
	if c, ok := e.(*Call); ok {
		for _, a := range c.Args {
			Walk(a, visit)
		}
	}
}

// Transform rebuilds a tree, children first: change gets each node with its children already changed and returns what is
// to stand in its place. The given tree stays as it is, and parts that did not change are shared. A replacement must have
// the same type class as what it replaces: the calls above keep the types and comparisons they were built with.
func Transform(e Expr, change func(Expr) Expr) Expr {
	c, ok := e.(*Call)
	if !ok {
		return change(e)
	}
	var args []Expr
	for i, a := range c.Args {
		n := Transform(a, change)
		if n != a && args == nil {
			args = append(make([]Expr, 0, len(c.Args)), c.Args[:i]...)
		}
		if args != nil {
			args = append(args, n)
		}
	}
	if args != nil {
		e = c.WithArgs(args)
	}
	return change(e)
}

// WithArgs is the same call with other arguments of the same types.
func (c *Call) WithArgs(args []Expr) *Call {
	n := *c
	n.Args = args
	return &n
}

// Columns appends the columns e uses to dst, each once for every use.
func Columns(dst []*Column, e Expr) []*Column {
	Walk(e, func(e Expr) bool {
		if c, ok := e.(*Column); ok {
			dst = append(dst, c)
		}
		return true
	})
	return dst
}

// RemapColumns moves every column to the place to gives for its index; columns for which it gives a negative place stay.
func RemapColumns(e Expr, to func(index int) int) Expr {
	return Transform(e, func(e Expr) Expr {
		c, ok := e.(*Column)
		if !ok {
			return e
		}
		i := to(c.Index)
		if i < 0 || i == c.Index {
			return e
		}
		n := *c
		n.Index = i
		return &n
	})
}

// Equal tells whether two trees compute the same: the same calls over the same columns, parameters and constants.
// Volatile calls equal nothing, not even themselves.
func Equal(a, b Expr) bool {
	switch a := a.(type) {
	case *Column:
		b, ok := b.(*Column)
		return ok && a.Index == b.Index
	case *Param:
		b, ok := b.(*Param)
		return ok && a.Index == b.Index
	case *Const:
		b, ok := b.(*Const)
		return ok && sameConst(a, b)
	case *Call:
		b, ok := b.(*Call)
		if !ok || a.b != b.b || a.Fn != b.Fn || len(a.Args) != len(b.Args) || a.b.flags&fVolatile != 0 {
			return false
		}
		if !sameType(a.Typ, b.Typ) && (a.Typ.Tp != b.Typ.Tp || a.Typ.Unsigned() != b.Typ.Unsigned() ||
			a.Typ.Collation != b.Typ.Collation || a.Typ.Flen != b.Typ.Flen || a.Typ.Decimal != b.Typ.Decimal) {
			return false
		}
		for i := range a.Args {
			if !Equal(a.Args[i], b.Args[i]) {
				return false
			}
		}
		return true
	}
	return a == b
}

func sameConst(a, b *Const) bool {
	if a.Val.Kind() != b.Val.Kind() || a.Typ.Tp != b.Typ.Tp {
		return false
	}
	switch a.Val.Kind() {
	case types.KindNull:
		return true
	case types.KindString, types.KindJSON:
		return a.Typ.Collation == b.Typ.Collation && a.Val.Text() == b.Val.Text()
	case types.KindDecimal:
		x, y := a.Val.Decimal(), b.Val.Decimal()
		return x.Scale() == y.Scale() && x.Cmp(y) == 0
	}
	return a.Val.Lane() == b.Val.Lane()
}

// hasFlag tells whether any call below e has one of the flags.
func hasFlag(e Expr, f flags) bool {
	found := false
	Walk(e, func(e Expr) bool {
		if c, ok := e.(*Call); ok && c.b != nil && c.b.flags&f != 0 {
			found = true
		}
		return !found
	})
	return found
}

// IsConst tells that e has one value throughout an execution: it uses no column and nothing volatile. It may depend on
// parameters, the time and the session.
func IsConst(e Expr) bool { return isConstant(e) }

// IsDeterministic tells that e gives the same for the same row whenever it is evaluated within a statement: nothing
// volatile is in it.
func IsDeterministic(e Expr) bool { return !hasFlag(e, fVolatile) }

// NeedsSession tells that e depends on the session (user, database, insert id).
func NeedsSession(e Expr) bool { return hasFlag(e, fSession) }

// NeedsNow tells that e depends on the time of the statement.
func NeedsNow(e Expr) bool { return hasFlag(e, fNow) }

// HasParams tells that e uses parameters.
func HasParams(e Expr) bool {
	found := false
	Walk(e, func(e Expr) bool {
		if _, ok := e.(*Param); ok {
			found = true
		}
		return !found
	})
	return found
}

// NotNull tells that e is never NULL, given that columns are NULL only when their types allow it.
func NotNull(e Expr) bool {
	if k, ok := e.(*Const); ok {
		return !k.Val.IsNull()
	}
	return e.Type().NotNull()
}

// RejectsNull tells that the condition e is not true when all columns for which is answers true are NULL: with such a
// condition above it an outer join is an inner join.
func RejectsNull(e Expr, is func(*Column) bool) bool {
	c, ok := e.(*Call)
	if !ok {
		return nullWhen(e, is)
	}
	switch c.Fn {
	case "and":
		for _, a := range c.Args {
			if RejectsNull(a, is) {
				return true
			}
		}
		return false
	case "or":
		for _, a := range c.Args {
			if !RejectsNull(a, is) {
				return false
			}
		}
		return true
	case "is not null", "is true":
		return nullWhen(c.Args[0], is)
	}
	return nullWhen(e, is)
}

// nullWhen tells that e is NULL when those columns are.
func nullWhen(e Expr, is func(*Column) bool) bool {
	switch e := e.(type) {
	case *Column:
		return is(e)
	case *Call:
		switch e.Fn {
		case "and", "or", "case", "if", "ifnull", "coalesce", "<=>", "is null", "is not null", "isnull", "is true",
			"is not true", "is false", "is not false", "concat_ws", "field", "interval", "quote", "elt", "char",
			"collation", "charset", "coercibility", "nullif", "last_insert_id", "rand", "between", "not between",
			"in", "not in", "sleep",
			"get_lock", "release_lock", "is_free_lock", "is_used_lock":
			if e.Fn == "in" || e.Fn == "not in" || e.Fn == "between" || e.Fn == "not between" || e.Fn == "nullif" {
				return nullWhen(e.Args[0], is)
			}
			return false
		}
		for _, a := range e.Args {
			if nullWhen(a, is) {
				return true
			}
		}
	}
	return false
}

// Conjuncts splits a condition at its ANDs and appends the parts to dst.
func Conjuncts(dst []Expr, e Expr) []Expr {
	if c, ok := e.(*Call); ok && c.Fn == "and" {
		for _, a := range c.Args {
			dst = Conjuncts(dst, a)
		}
		return dst
	}
	return append(dst, e)
}

// Fold replaces what can be computed now by its value. Parameters, volatile functions, the session and the time are left
// alone, and so is whatever would warn or fail: it does that when it is executed.
func Fold(env *Env, e Expr) Expr { return fold(env, e, fVolatile|fSession|fNow, false) }

// FoldAll is Fold with the time, the session and the parameters of env taken as constants too: for a plan that is
// executed once.
func FoldAll(env *Env, e Expr) Expr { return fold(env, e, fVolatile, true) }

func fold(env *Env, e Expr, keep flags, params bool) Expr {
	return Transform(e, func(e Expr) Expr {
		switch n := e.(type) {
		case *Param:
			if params && n.Index < len(env.Params) {
				return foldOne(env, e, keep)
			}
		case *Call:
			if n.b == nil || n.b.flags&keep != 0 {
				return e
			}
			if s := foldLogic(n); s != nil {
				return s
			}
			for _, a := range n.Args {
				if _, ok := a.(*Const); !ok {
					return e
				}
			}
			return foldOne(env, e, keep)
		}
		return e
	})
}

// foldOne evaluates e, unless that leaves a trace.
func foldOne(env *Env, e Expr, keep flags) Expr {
	p, err := Compile(e)
	if err != nil {
		return e
	}
	quiet := true
	try := &Env{Loc: env.Loc, Mode: env.Mode, Now: env.Now, Clock: env.Clock, Params: env.Params, Session: env.Session,
		MaxAllowedPacket: env.MaxAllowedPacket, Warn: warnFlag(&quiet), timeless: keep&fNow != 0}
	v := p.Value(try, nil, 0)
	if !quiet || try.Err != nil {
		return e
	}
	k := &Const{Val: v.Clone(), Typ: e.Type(), Coer: CoercibilityOf(e)}
	if v.IsNull() {
		k.Typ.Flags &^= types.FlagNotNull
	}
	return k
}

// foldLogic decides AND, OR, IF and CASE whose conditions are constants though other arguments are not; nil when it does
// not.
func foldLogic(c *Call) Expr {
	switch c.Fn {
	case "and", "or":
		stop := c.Fn == "or" // the constant that decides it all
		var rest []Expr
		for _, a := range c.Args {
			truth, null, known := constTruth(a)
			if !known || null {
				rest = append(rest, a)
				continue
			}
			if truth == stop {
				if !decidable(c.Args) {
					return nil
				}
				return &Const{Val: types.Bool(stop), Typ: c.Typ}
			}
		}
		switch {
		case len(rest) == len(c.Args):
			return nil
		case len(rest) == 0:
			return &Const{Val: types.Bool(!stop), Typ: c.Typ}
		case len(rest) > 1:
			return c.WithArgs(rest)
		case isCondition(rest[0]):
			return rest[0]
		}
	case "if":
		if truth, null, known := constTruth(c.Args[0]); known {
			return pickArg(c, c.Args[1+int(boolInt(!truth || null))])
		}
	}
	return nil
}

// decidable tells that no argument has to be evaluated for its effect.
func decidable(args []Expr) bool {
	for _, a := range args {
		if hasFlag(a, fVolatile) {
			return false
		}
	}
	return true
}

// pickArg is an argument in the place of its call, when it has the call's type.
func pickArg(c *Call, a Expr) Expr {
	if sameType(a.Type(), c.Typ) {
		return a
	}
	return nil
}

// isCondition tells that e is 0, 1 or NULL.
func isCondition(e Expr) bool {
	c, ok := e.(*Call)
	if !ok {
		return false
	}
	switch c.Fn {
	case "and", "or", "xor", "not", "=", "!=", "<", "<=", ">", ">=", "<=>", "in", "not in", "between", "not between",
		"like", "not like", "regexp", "not regexp", "is null", "is not null", "isnull", "is true", "is not true",
		"is false", "is not false":
		return true
	}
	return false
}

func constTruth(e Expr) (truth, null, known bool) {
	k, ok := e.(*Const)
	if !ok {
		return false, false, false
	}
	if k.Val.IsNull() {
		return false, true, true
	}
	quiet := true
	env := &Env{Warn: warnFlag(&quiet)}
	v, null := truthOf(constProgram(k.Val, k.Typ))(env, nil, 0)
	return v != 0, null, quiet && env.Err == nil
}
