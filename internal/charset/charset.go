// Package charset knows character sets and collations: how strings compare, sort, hash and match LIKE.
//
// # How strings are held
//
// Everywhere in memory and in storage a character string is UTF-8, whatever the character set of its column; a binary
// string (Binary) is bytes. The character set of a column limits which characters it may hold (Charset.Check) and the
// connection's character sets are applied at the edge, by ToUTF8 and FromUTF8.
//
// # Trailing spaces
//
// PAD SPACE collations (all but binary and the utf8mb4_0900 family) ignore trailing spaces in Compare, Equal,
// AppendSortKey and Hash. LIKE does not ignore them. Padding is done by trimming, so a string ending in a character
// below space sorts after its own prefix; Compare and the sort key agree on that.
//
// The tables of weights are Vitess's; this package adds the padding, fast paths for ASCII and the names.
package charset

import (
	"sort"
	"strings"
	"sync"

	"vitess.io/vitess/go/mysql/collations"
	vtcharset "vitess.io/vitess/go/mysql/collations/charset"
	"vitess.io/vitess/go/mysql/collations/colldata"
)

// ID is the number of a collation, as MySQL's protocol and INFORMATION_SCHEMA.COLLATIONS give it.
type ID uint16

// Collations that code names. Default is what a database gets when nobody says otherwise.
const (
	Latin1Swedish     ID = 8
	ASCIIGeneral      ID = 11
	UTF8MB3General    ID = 33
	UTF8MB4General    ID = 45
	UTF8MB4Bin        ID = 46
	Latin1Bin         ID = 47
	Binary            ID = 63
	ASCIIBin          ID = 65
	UTF8MB3Bin        ID = 83
	UTF8MB4Unicode    ID = 224
	UTF8MB4Unicode520 ID = 246
	UTF8MB40900AICI   ID = 255
	UTF8MB40900Bin    ID = 309

	Default = UTF8MB40900AICI
)

// Charset is one supported character set.
type Charset struct {
	Name        string
	Description string
	// Default and Bin are its default collation and its _bin collation.
	Default, Bin ID
	// MaxLen is the greatest number of bytes of one character in this character set.
	MaxLen int

	coding vtcharset.Charset
}

// Collation is one supported collation. It is immutable and safe for concurrent use.
type Collation struct {
	ID      ID
	Name    string
	Charset *Charset
	// IsDefault tells that this is the default collation of its character set.
	IsDefault bool
	// PadSpace tells that trailing spaces do not count in comparisons.
	PadSpace bool
	// Bytewise tells that the sort key of a string is the string itself (trimmed when PadSpace), so that a key can be
	// turned back into its string but for trailing spaces.
	Bytewise bool

	method  method
	impl    colldata.Collation
	weights func() *weights // tables of the fast paths, nil when there is none
}

// MaxLen is the greatest number of bytes of one character.
func (c *Collation) MaxLen() int { return c.Charset.MaxLen }

// IsBinary tells that c is the collation of binary strings.
func (c *Collation) IsBinary() bool { return c.ID == Binary }

// SortLen is the Sortlen column of SHOW COLLATION.
func (c *Collation) SortLen() int {
	switch {
	case strings.Contains(c.Name, "_0900_") && !c.Bytewise:
		return 0
	case c.method == methodRoot || c.method == methodLibrary:
		return 8
	}
	return 1
}

// PadAttribute is the Pad_attribute column of SHOW COLLATION.
func (c *Collation) PadAttribute() string {
	if c.PadSpace {
		return "PAD SPACE"
	}
	return "NO PAD"
}

// method selects the code that compares.
type method uint8

const (
	methodBytes   method = iota // memcmp
	methodGeneral               // one 16-bit weight for each character, from a table
	methodEight                 // one 8-bit weight for each character of an eight-bit character set
	methodRoot                  // Unicode collation without tailoring: table for ASCII, else the library
	methodLibrary               // whatever the library does
)

// registry holds everything known, built at first use.
type registry struct {
	charsets   []*Charset // by name
	byCharset  map[string]*Charset
	collations []*Collation // by id
	byName     map[string]*Collation
	byID       [1024]*Collation
}

var theRegistry = sync.OnceValue(buildRegistry)

func buildRegistry() *registry {
	r := &registry{byCharset: map[string]*Charset{}, byName: map[string]*Collation{}}
	env := collations.NewEnvironment("8.0.40")
	r.charsets = []*Charset{
		{Name: "ascii", Description: "US ASCII", Default: ASCIIGeneral, Bin: ASCIIBin, MaxLen: 1},
		{Name: "binary", Description: "Binary pseudo charset", Default: Binary, Bin: Binary, MaxLen: 1},
		{Name: "latin1", Description: "cp1252 West European", Default: Latin1Swedish, Bin: Latin1Bin, MaxLen: 1},
		{Name: "utf8mb3", Description: "UTF-8 Unicode", Default: UTF8MB3General, Bin: UTF8MB3Bin, MaxLen: 3},
		{Name: "utf8mb4", Description: "UTF-8 Unicode", Default: Default, Bin: UTF8MB4Bin, MaxLen: 4},
	}
	for _, cs := range r.charsets {
		r.byCharset[cs.Name] = cs
		cs.coding = colldata.Lookup(collations.ID(cs.Default)).Charset()
	}
	r.byCharset["utf8"] = r.byCharset["utf8mb3"]
	for _, id := range env.AllCollationIDs() {
		name := env.LookupName(id)
		if rest, ok := strings.CutPrefix(name, "utf8_"); ok {
			name = "utf8mb3_" + rest
		}
		cs, impl := r.byCharset[charsetPrefix(name)], colldata.Lookup(id)
		if cs == nil || impl == nil || int(id) >= len(r.byID) {
			continue
		}
		c := newCollation(ID(id), name, cs, impl)
		r.collations = append(r.collations, c)
		r.byName[name] = c
		r.byID[id] = c
	}
	return r
}

// charsetPrefix gives the character set a collation is named after.
func charsetPrefix(collation string) string {
	name, _, _ := strings.Cut(collation, "_")
	return name
}

func newCollation(id ID, name string, cs *Charset, impl colldata.Collation) *Collation {
	c := &Collation{
		ID: id, Name: name, Charset: cs, impl: impl,
		IsDefault: id == cs.Default,
		PadSpace:  id != Binary && !strings.HasPrefix(name, "utf8mb4_0900") && !strings.Contains(name, "_0900_"),
		Bytewise:  impl.IsBinary(),
	}
	switch {
	case c.Bytewise:
		c.method = methodBytes
	case strings.HasSuffix(name, "_general_ci") && cs.MaxLen > 1:
		c.method = methodGeneral
		c.weights = sync.OnceValue(func() *weights { return buildGeneral(impl) })
	case cs.MaxLen == 1:
		c.method = methodEight
		c.weights = sync.OnceValue(func() *weights { return buildEight(impl) })
	case isRoot(id):
		c.method = methodRoot
		c.weights = sync.OnceValue(func() *weights { return buildASCII(impl) })
	default:
		c.method = methodLibrary
	}
	return c
}

// isRoot tells whether a Unicode collation has no tailoring and only primary weights, so that every ASCII character
// stands for itself.
func isRoot(id ID) bool {
	switch id {
	case UTF8MB40900AICI, UTF8MB4Unicode, UTF8MB4Unicode520, 192, 214:
		return true
	}
	return false
}

// ByID returns a collation, nil when it is not supported.
func ByID(id ID) *Collation {
	if int(id) >= len(registry{}.byID) {
		return nil
	}
	return theRegistry().byID[id]
}

// Get returns a collation that must exist: of an unknown id it gives Binary, which is safe to compare with.
func Get(id ID) *Collation {
	if c := ByID(id); c != nil {
		return c
	}
	return theRegistry().byID[Binary]
}

// Lookup finds a collation by name, in any case; utf8_x means utf8mb3_x.
func Lookup(name string) (*Collation, bool) {
	name = strings.ToLower(name)
	if rest, ok := strings.CutPrefix(name, "utf8_"); ok {
		name = "utf8mb3_" + rest
	}
	c, ok := theRegistry().byName[name]
	return c, ok
}

// LookupCharset finds a character set by name, in any case; utf8 means utf8mb3.
func LookupCharset(name string) (*Charset, bool) {
	cs, ok := theRegistry().byCharset[strings.ToLower(name)]
	return cs, ok
}

// Charsets lists the character sets by name.
func Charsets() []*Charset { return append([]*Charset(nil), theRegistry().charsets...) }

// Collations lists the collations by name, as SHOW COLLATION does.
func Collations() []*Collation {
	all := append([]*Collation(nil), theRegistry().collations...)
	sort.Slice(all, func(i, j int) bool { return all[i].Name < all[j].Name })
	return all
}

// DefaultCollation is the collation of a text in this character set when nobody names one.
func (cs *Charset) DefaultCollation() *Collation { return Get(cs.Default) }
