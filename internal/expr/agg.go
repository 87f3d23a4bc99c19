package expr

import (
	"strings"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/decimal"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
)

// Agg is an aggregate function over the rows of a group.
type Agg struct {
	// Fn is the name in lower case; "count" without Args is COUNT(*).
	Fn       string
	Distinct bool
	Args     []Expr
	// OrderBy and Sep are GROUP_CONCAT's.
	OrderBy []AggOrder
	Sep     string
	Typ     types.Type

	coll charset.ID // MIN, MAX, GROUP_CONCAT
}

// AggOrder is one key of GROUP_CONCAT's ORDER BY.
type AggOrder struct {
	Expr Expr
	Desc bool
}

// aggKind is an aggregate's line in the table.
type aggKind struct {
	min, max int
	typ      func(*BuildEnv, *Agg) error
}

var aggTable = map[string]aggKind{
	"count":        {0, -1, aggCount},
	"sum":          {1, 1, aggSum},
	"avg":          {1, 1, aggAvg},
	"min":          {1, 1, aggSame},
	"max":          {1, 1, aggSame},
	"any_value":    {1, 1, aggSame},
	"group_concat": {1, -1, aggGroupConcat},
	"bit_and":      {1, 1, aggBits},
	"bit_or":       {1, 1, aggBits},
	"bit_xor":      {1, 1, aggBits},
	"std":          {1, 1, aggDouble},
	"stddev":       {1, 1, aggDouble},
	"stddev_pop":   {1, 1, aggDouble},
	"stddev_samp":  {1, 1, aggDouble},
	"variance":     {1, 1, aggDouble},
	"var_pop":      {1, 1, aggDouble},
	"var_samp":     {1, 1, aggDouble},
}

// IsAgg tells whether name, in lower case, is an aggregate function. ANY_VALUE is not counted: outside of a grouped query
// it is an ordinary function.
func IsAgg(name string) bool {
	_, ok := aggTable[name]
	return (ok && name != "any_value") || name == "json_arrayagg" || name == "json_objectagg"
}

// NewAgg builds an aggregate and derives its type.
func NewAgg(env *BuildEnv, fn string, distinct bool, args []Expr, orderBy []AggOrder, sep string) (*Agg, error) {
	k, ok := aggTable[fn]
	if !ok {
		if IsAgg(fn) {
			return nil, sqlerr.New(sqlerr.ErrNotSupportedYet, fn)
		}
		return nil, sqlerr.New(sqlerr.ErrSpDoesNotExist, "FUNCTION", fn)
	}
	if len(args) < k.min || (k.max >= 0 && len(args) > k.max) || (fn == "count" && len(args) > 1 && !distinct) {
		return nil, sqlerr.New(sqlerr.ErrWrongParamcountToNativeFct, fn)
	}
	if distinct && len(args) == 0 {
		return nil, sqlerr.New(sqlerr.ErrWrongParamcountToNativeFct, fn)
	}
	a := &Agg{Fn: fn, Distinct: distinct, Args: args, OrderBy: orderBy, Sep: sep}
	if err := k.typ(env, a); err != nil {
		return nil, err
	}
	return a, nil
}

// String is the canonical text, e.g. count(distinct a, b).
func (a *Agg) String() string {
	var sb strings.Builder
	sb.WriteString(a.Fn)
	sb.WriteByte('(')
	if a.Distinct {
		sb.WriteString("distinct ")
	}
	if len(a.Args) == 0 {
		sb.WriteByte('*')
	}
	writeList(&sb, a.Args)
	for i, o := range a.OrderBy {
		if i == 0 {
			sb.WriteString(" order by ")
		} else {
			sb.WriteString(", ")
		}
		sb.WriteString(o.Expr.String())
		if o.Desc {
			sb.WriteString(" desc")
		}
	}
	if a.Fn == "group_concat" {
		sb.WriteString(" separator " + string(appendQuote(nil, []byte(a.Sep))))
	}
	sb.WriteByte(')')
	return sb.String()
}

// EqualAgg tells whether two aggregates compute the same.
func EqualAgg(a, b *Agg) bool {
	if a.Fn != b.Fn || a.Distinct != b.Distinct || len(a.Args) != len(b.Args) || len(a.OrderBy) != len(b.OrderBy) ||
		a.Sep != b.Sep {
		return false
	}
	for i := range a.Args {
		if !Equal(a.Args[i], b.Args[i]) {
			return false
		}
	}
	for i := range a.OrderBy {
		if a.OrderBy[i].Desc != b.OrderBy[i].Desc || !Equal(a.OrderBy[i].Expr, b.OrderBy[i].Expr) {
			return false
		}
	}
	return true
}

// TransformAgg rebuilds an aggregate with its expressions changed as Transform does.
func TransformAgg(a *Agg, change func(Expr) Expr) *Agg {
	n := *a
	n.Args = make([]Expr, len(a.Args))
	for i, e := range a.Args {
		n.Args[i] = Transform(e, change)
	}
	n.OrderBy = make([]AggOrder, len(a.OrderBy))
	for i, o := range a.OrderBy {
		n.OrderBy[i] = AggOrder{Transform(o.Expr, change), o.Desc}
	}
	return &n
}

func aggCount(_ *BuildEnv, a *Agg) error {
	a.Typ = types.NewInt()
	a.Typ.Flen = 21
	a.Typ.Flags |= types.FlagNotNull
	return nil
}

// sumDigits is how many digits a sum may grow by: 10^22 rows are never seen.
const sumDigits = 22

func aggSum(_ *BuildEnv, a *Agg) error {
	n := numberOf(&Column{Typ: a.Args[0].Type()})
	if n.class == types.ClassFloat {
		a.Typ = types.NewFloat()
		return nil
	}
	a.Typ = types.NewDecimal(min(n.precision+sumDigits, decimal.MaxDigits), n.scale)
	return nil
}

func aggAvg(env *BuildEnv, a *Agg) error {
	n := numberOf(&Column{Typ: a.Args[0].Type()})
	if n.class == types.ClassFloat {
		a.Typ = types.NewFloat()
		return nil
	}
	incr := env.divIncr()
	scale := min(n.scale+incr, decimal.MaxScale)
	a.Typ = types.NewDecimal(min(max(n.precision+incr, scale), decimal.MaxDigits), scale)
	return nil
}

func aggSame(_ *BuildEnv, a *Agg) error {
	t := a.Args[0].Type()
	if t.TextForm() {
		t = types.NewString(t.DisplayLength(), t.Collation)
	}
	t.Flags &= types.FlagUnsigned | types.FlagBinary | types.FlagBlob | types.FlagZerofill
	a.Typ, a.coll = t, t.Collation
	return nil
}

func aggGroupConcat(env *BuildEnv, a *Agg) error {
	d, err := agree(env, a.Fn, false, a.Args...)
	if err != nil {
		return err
	}
	a.coll = d.coll
	a.Typ = types.NewString(1024, d.coll)
	a.Typ.Tp, a.Typ.Flen = types.TypeBlob, types.UnspecifiedLength
	return nil
}

func aggBits(_ *BuildEnv, a *Agg) error {
	a.Typ = types.NewUint()
	a.Typ.Flen = 21
	a.Typ.Flags |= types.FlagNotNull
	return nil
}

func aggDouble(_ *BuildEnv, a *Agg) error {
	a.Typ = types.NewFloat()
	return nil
}
