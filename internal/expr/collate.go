package expr

import (
	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
)

// derivation is a collation with the strength of its claim.
type derivation struct {
	coll charset.ID
	coer Coercibility
}

func (d derivation) String() string {
	names := [...]string{"", "EXPLICIT", "NONE", "IMPLICIT", "SYSCONST", "COERCIBLE", "NUMERIC", "IGNORABLE"}
	return charset.Get(d.coll).Name + "," + names[d.coer]
}

// derivationOf is the claim of one argument; numbers and dates as text are in the connection's collation.
func derivationOf(env *BuildEnv, e Expr) derivation {
	t := e.Type()
	coer := CoercibilityOf(e)
	if isNullType(t) || isNullConst(e) {
		return derivation{charset.Binary, CoerIgnorable}
	}
	if t.IsString() || t.TextForm() {
		return derivation{t.Collation, coer}
	}
	if t.Tp == types.TypeBit {
		return derivation{charset.Binary, coer}
	}
	return derivation{env.collation(), CoerNumeric}
}

// mix finds the collation two claims agree on. ok is false when they do not; CoerNone in the result means that it may be
// shown but not compared.
func mix(a, b derivation) (d derivation, ok bool) {
	if a.coer == CoerIgnorable || (a.coer == CoerNumeric && b.coer < CoerNumeric) {
		return b, true
	}
	if b.coer == CoerIgnorable || (b.coer == CoerNumeric && a.coer < CoerNumeric) {
		return a, true
	}
	if a.coll == b.coll {
		return derivation{a.coll, min(a.coer, b.coer)}, true
	}
	if a.coll == charset.Binary || b.coll == charset.Binary {
		return mixBinary(a, b), true
	}
	ca, cb := charset.Get(a.coll), charset.Get(b.coll)
	if ca.Charset != cb.Charset {
		return mixCharsets(a, b)
	}
	switch {
	case a.coer < b.coer:
		return a, true
	case b.coer < a.coer:
		return b, true
	case a.coer == CoerExplicit:
		return a, false
	case ca.Bytewise:
		return a, true
	case cb.Bytewise:
		return b, true
	}
	return derivation{ca.Charset.Bin, CoerNone}, true
}

// mixBinary: bytes win over characters of the same or a weaker claim.
func mixBinary(a, b derivation) derivation {
	if b.coll == charset.Binary {
		a, b = b, a
	}
	if a.coer <= b.coer {
		return a
	}
	return b
}

// mixCharsets agrees on one of two character sets: the wider one, or the stronger claim over a literal.
func mixCharsets(a, b derivation) (derivation, bool) {
	if widens(a, b) {
		return a, true
	}
	if widens(b, a) {
		return b, true
	}
	if a.coer < b.coer && b.coer >= CoerSystem {
		return a, true
	}
	if b.coer < a.coer && a.coer >= CoerSystem {
		return b, true
	}
	return a, false
}

// widens tells whether a's character set holds all of b's and a's claim is good enough to convert b.
func widens(a, b derivation) bool {
	ra, rb := charsetRank(a.coll), charsetRank(b.coll)
	if ra <= rb {
		return false
	}
	return a.coer <= b.coer
}

func charsetRank(id charset.ID) int {
	switch charset.Get(id).Charset.Name {
	case "utf8mb4":
		return 3
	case "utf8mb3":
		return 2
	case "latin1":
		return 1
	}
	return 0
}

// agree derives the common collation of arguments for a result (compare false) or a comparison. Without any string among
// them it is the connection's.
func agree(env *BuildEnv, fn string, compare bool, args ...Expr) (derivation, error) {
	d := derivation{env.collation(), CoerIgnorable}
	ok := true
	for _, a := range args {
		next := derivationOf(env, a)
		if next.coer == CoerIgnorable {
			continue
		}
		if d.coer == CoerIgnorable {
			d = next
			continue
		}
		var good bool
		d, good = mix(d, next)
		ok = ok && good
	}
	if !ok || (compare && d.coer == CoerNone) {
		return d, illegalMix(env, fn, args)
	}
	if d.coer == CoerIgnorable {
		d.coll = env.collation()
	}
	return d, nil
}

func illegalMix(env *BuildEnv, fn string, args []Expr) error {
	switch len(args) {
	case 2:
		a, b := derivationOf(env, args[0]), derivationOf(env, args[1])
		return sqlerr.Newf(sqlerr.ErrCantAggregate2collations,
			"Illegal mix of collations ("+a.String()+") and ("+b.String()+") for operation '"+fn+"'")
	case 3:
		a, b, c := derivationOf(env, args[0]), derivationOf(env, args[1]), derivationOf(env, args[2])
		return sqlerr.Newf(sqlerr.ErrCantAggregate3collations,
			"Illegal mix of collations ("+a.String()+"), ("+b.String()+"), ("+c.String()+") for operation '"+fn+"'")
	}
	return sqlerr.Newf(sqlerr.ErrCantAggregateNcollations, "Illegal mix of collations for operation '"+fn+"'")
}

// setString makes the call's type a string of at most n characters in the collation its arguments agree on.
func setString(env *BuildEnv, c *Call, n int, args ...Expr) error {
	d, err := agree(env, c.Fn, false, args...)
	if err != nil {
		return err
	}
	c.Typ = stringType(n, d.coll)
	c.coer = d.coer
	if c.coer >= CoerNumeric {
		c.coer = CoerLiteral
	}
	return nil
}
