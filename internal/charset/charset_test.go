package charset

import (
	"bytes"
	"math/rand"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestNames(t *testing.T) {
	for name, id := range map[string]ID{
		"utf8mb4_0900_ai_ci": 255, "utf8mb4_general_ci": 45, "UTF8MB4_BIN": 46, "utf8_general_ci": 33, "utf8mb3_bin": 83,
		"latin1_swedish_ci": 8, "binary": 63, "ascii_general_ci": 11, "utf8mb4_0900_bin": 309, "utf8mb4_unicode_ci": 224,
		"latin1_bin": 47, "ascii_bin": 65, "utf8mb4_0900_as_cs": 278,
	} {
		c, ok := Lookup(name)
		require.True(t, ok, name)
		require.Equal(t, id, c.ID, name)
		require.Same(t, c, ByID(id))
	}
	_, ok := Lookup("gbk_chinese_ci")
	require.False(t, ok)
	require.Nil(t, ByID(60000))
	require.Nil(t, ByID(28))
	require.Equal(t, Binary, Get(28).ID)
	cs, ok := LookupCharset("UTF8")
	require.True(t, ok)
	require.Equal(t, "utf8mb3", cs.Name)
	require.Equal(t, Default, Charsets()[4].DefaultCollation().ID)
	require.Greater(t, len(Collations()), 100)
	for id, n := range map[ID]int{255: 0, 45: 1, 46: 1, 224: 8, 8: 1, 309: 1, 63: 1, 278: 0} {
		require.Equal(t, n, Get(id).SortLen(), Get(id).Name)
	}
	require.Equal(t, "NO PAD", Get(Default).PadAttribute())
}

func TestPadSpace(t *testing.T) {
	for id, pad := range map[ID]bool{
		255: false, 309: false, 63: false, 278: false, 45: true, 46: true, 33: true, 8: true, 47: true, 224: true, 246: true, 65: true,
	} {
		c := Get(id)
		require.Equal(t, pad, c.PadSpace, c.Name)
		require.Equal(t, pad, c.Equal([]byte("a  "), []byte("a")), c.Name)
		require.Equal(t, pad, c.Hash([]byte("a  ")) == c.Hash([]byte("a")), c.Name)
		require.Equal(t, pad, bytes.Equal(c.AppendSortKey(nil, []byte("a ")), c.AppendSortKey(nil, []byte("a"))), c.Name)
	}
}

func TestEquality(t *testing.T) {
	for _, c := range []struct {
		coll string
		a, b string
		want bool
	}{
		{"utf8mb4_0900_ai_ci", "a", "A", true},
		{"utf8mb4_0900_ai_ci", "á", "A", true},
		{"utf8mb4_0900_ai_ci", "ß", "ss", true},
		{"utf8mb4_0900_as_cs", "a", "A", false},
		{"utf8mb4_general_ci", "á", "A", true},
		{"utf8mb4_general_ci", "ß", "s", true},
		{"utf8mb4_general_ci", "ß", "ss", false},
		{"utf8mb4_unicode_ci", "ß", "ss", true},
		{"utf8mb4_bin", "a", "A", false},
		{"latin1_swedish_ci", "Ü", "y", true},
		{"latin1_swedish_ci", "é", "E", true},
		{"ascii_general_ci", "abc", "ABC", true},
		{"binary", "a", "a ", false},
	} {
		coll, ok := Lookup(c.coll)
		require.True(t, ok, c.coll)
		require.Equal(t, c.want, coll.Equal([]byte(c.a), []byte(c.b)), "%s: %q = %q", c.coll, c.a, c.b)
	}
}

// alphabet has characters of every width, control characters, combining marks and expansions.
var alphabet = []rune("aAbBzZ019 _-.'\x00\x01\t\x7fäÄßœéÉ\u0301\u0308ǆЖжאあア中😀😁ŒæÆ·lL")

func randomText(r *rand.Rand, ascii bool) []byte {
	var b bytes.Buffer
	for n := r.Intn(12); n > 0; n-- {
		c := alphabet[r.Intn(len(alphabet))]
		if ascii {
			c = rune(r.Intn(128))
		}
		b.WriteRune(c)
	}
	return b.Bytes()
}

func sign(n int) int {
	switch {
	case n < 0:
		return -1
	case n > 0:
		return 1
	}
	return 0
}

// TestTwinFastPaths compares the fast paths with the library, and keys with comparisons.
func TestTwinFastPaths(t *testing.T) {
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewSource(seed))
	for _, id := range []ID{255, 224, 246, 192, 214, 45, 33, 46, 83, 309, 278, 63} {
		c := Get(id)
		for i := range 5000 {
			a, b := randomText(r, i%2 == 0), randomText(r, i%3 != 0)
			if r.Intn(3) == 0 {
				b = []byte(strings.ToUpper(string(a)))
			}
			got := sign(c.Compare(a, b))
			require.Equal(t, -got, sign(c.Compare(b, a)), "%s: %q %q", c.Name, a, b)
			keyA, keyB := c.AppendSortKey(nil, a), c.AppendSortKey(nil, b)
			require.Equal(t, got, bytes.Compare(keyA, keyB), "%s: key %q %q", c.Name, a, b)
			require.Equal(t, got == 0, c.Equal(a, b))
			if got == 0 {
				require.Equal(t, c.Hash(a), c.Hash(b))
			}
			ta, tb := c.trim(a), c.trim(b)
			if c.Charset.MaxLen == 3 && (c.Charset.Check(a) < len(a) || c.Charset.Check(b) < len(b)) {
				continue // the library takes characters the set does not have for malformed
			}
			require.Equal(t, sign(c.impl.Collate(ta, tb, false)), got, "%s: library %q %q", c.Name, a, b)
			if !c.Bytewise {
				require.Equal(t, c.impl.WeightString(nil, ta, 0), keyA, "%s: library key %q", c.Name, a)
			}
		}
	}
}

func TestTwinEightBit(t *testing.T) {
	for _, id := range []ID{5, 8, 11, 15, 48, 49, 94} {
		c := Get(id)
		require.Equal(t, id, c.ID)
		for x := range 256 {
			for y := range 256 {
				ux, okX := c.Charset.ToUTF8(nil, []byte{byte(x)})
				uy, okY := c.Charset.ToUTF8(nil, []byte{byte(y)})
				if !okX || !okY || x == ' ' || y == ' ' {
					continue
				}
				want := sign(c.impl.Collate([]byte{byte(x)}, []byte{byte(y)}, false))
				require.Equal(t, want, sign(c.Compare(ux, uy)), "%s: %x %x", c.Name, x, y)
			}
		}
	}
}

func TestLike(t *testing.T) {
	for _, c := range []struct {
		coll, s, pattern string
		want             bool
	}{
		{"utf8mb4_0900_ai_ci", "David!", "David_", true},
		{"utf8mb4_0900_ai_ci", "david!", "%D%v%", true},
		{"utf8mb4_0900_ai_ci", "abc", "", false},
		{"utf8mb4_0900_ai_ci", "", "", true},
		{"utf8mb4_0900_ai_ci", "", "%", true},
		{"utf8mb4_0900_ai_ci", "", "_", false},
		{"utf8mb4_0900_ai_ci", "ä", "A", true},
		{"utf8mb4_0900_ai_ci", "ä", "_", true},
		{"utf8mb4_0900_ai_ci", "中文字", "中%", true},
		{"utf8mb4_0900_ai_ci", "中文字", "__", false},
		{"utf8mb4_0900_ai_ci", "a%c", `a\%c`, true},
		{"utf8mb4_0900_ai_ci", "abc", `a\%c`, false},
		{"utf8mb4_0900_ai_ci", `a\`, `a\`, true},
		{"utf8mb4_0900_ai_ci", "mississippi", "m%iss%ip%", true},
		{"utf8mb4_0900_ai_ci", "mississippi", "m%iss%ipx%", false},
		{"utf8mb4_0900_ai_ci", "ss", "ß", false},
		{"utf8mb4_general_ci", "Straße", "stra_e", true},
		{"utf8mb4_general_ci", "a ", "a", false},
		{"utf8mb4_bin", "abc", "ABC", false},
		{"utf8mb4_bin", "abc", "ab%", true},
		{"utf8mb4_bin", "äbc", "_bc", true},
		{"binary", "äbc", "_bc", false},
		{"binary", "ä", "__", true},
		{"latin1_swedish_ci", "ÜBER", "über", true},
		{"utf8mb4_0900_ai_ci", "aaaaaaaaaaaaaaaaaaaaaaaaaaab", "%a%a%a%a%a%a%c", false},
	} {
		coll, _ := Lookup(c.coll)
		require.Equal(t, c.want, coll.Like([]byte(c.pattern), '\\').Match([]byte(c.s)), "%s: %q like %q", c.coll, c.s, c.pattern)
	}
	prefix, whole := Get(Default).Like([]byte(`a\_b%c`), '\\').LiteralPrefix()
	require.Equal(t, "a_b", string(prefix))
	require.False(t, whole)
	require.True(t, Get(Default).Like([]byte("a|%b"), '|').Match([]byte("A%B")))
	require.True(t, Get(Default).Like([]byte(`a\b`), 0).Match([]byte(`a\b`)))
}

// TestTwinLike compares with a matcher that tries everything.
func TestTwinLike(t *testing.T) {
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewSource(seed))
	var slow func(c *Collation, p, s []rune) bool
	slow = func(c *Collation, p, s []rune) bool {
		switch {
		case len(p) == 0:
			return len(s) == 0
		case p[0] == '%':
			return slow(c, p[1:], s) || len(s) > 0 && slow(c, p, s[1:])
		case len(s) == 0:
			return false
		case p[0] == '_' || p[0] == s[0]:
			return slow(c, p[1:], s[1:])
		}
		return c.equalRunes(p[0], s[0]) && slow(c, p[1:], s[1:])
	}
	letters := []rune("abAB%_äÄé ")
	pick := func(n int) []rune {
		out := make([]rune, r.Intn(n))
		for i := range out {
			out[i] = letters[r.Intn(len(letters))]
		}
		return out
	}
	for _, id := range []ID{255, 45, 46, 8, 278} {
		c := Get(id)
		for range 5000 {
			p, s := pick(6), pick(8)
			got := c.Like([]byte(string(p)), 0).Match([]byte(string(s)))
			require.Equal(t, slow(c, p, s), got, "%s: %q like %q", c.Name, string(s), string(p))
		}
	}
}

func TestTranscoding(t *testing.T) {
	latin1, _ := LookupCharset("latin1")
	mb3, _ := LookupCharset("utf8mb3")
	ascii, _ := LookupCharset("ascii")
	out, ok := latin1.FromUTF8(nil, []byte("Zürich €"))
	require.True(t, ok)
	require.Equal(t, []byte("Z\xfcrich \x80"), out)
	back, ok := latin1.ToUTF8(nil, out)
	require.True(t, ok)
	require.Equal(t, "Zürich €", string(back))
	out, ok = latin1.FromUTF8(nil, []byte("中"))
	require.False(t, ok)
	require.Equal(t, "?", string(out))
	require.Equal(t, 1, mb3.Check([]byte("a😀")))
	require.Equal(t, 1, ascii.Check([]byte("aé")))
	require.Equal(t, 3, latin1.Check([]byte("aé")))
	require.Equal(t, 2, latin1.EncodedLen([]byte("aé")))
	u8, _ := LookupCharset("utf8mb4")
	require.Equal(t, 1, u8.Check([]byte("a\xff")))
	_, ok = u8.ToUTF8(nil, []byte("a\xff"))
	require.False(t, ok)
	require.Equal(t, "ÄB", string(Get(Default).AppendUpper(nil, []byte("äb"))))
	require.Equal(t, "äb", string(Get(Default).AppendLower(nil, []byte("ÄB"))))
	require.Equal(t, "Ab", string(Get(Binary).AppendLower(nil, []byte("Ab"))))
	require.Equal(t, "中文", string(RunePrefix([]byte("中文字"), 2)))
	require.Equal(t, 3, RuneLen([]byte("中文字")))
}

func FuzzCompare(f *testing.F) {
	f.Add([]byte("abc"), []byte("ABC"))
	f.Add([]byte("a\xff"), []byte("ä"))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		for _, id := range []ID{255, 45, 46, 8, 31, 63, 224} {
			c := Get(id)
			require.Equal(t, -sign(c.Compare(a, b)), sign(c.Compare(b, a)))
			c.AppendSortKey(nil, a)
			c.Like(a, '\\').Match(b)
		}
	})
}

var benchA, benchB = []byte("The quick brown fox jumps over the lazy dog"), []byte("the quick brown FOX jumps over the lazy cat")

func benchmarkCompare(b *testing.B, id ID) {
	c := Get(id)
	for b.Loop() {
		c.Compare(benchA, benchB)
	}
}

func BenchmarkCompare0900(b *testing.B)    { benchmarkCompare(b, UTF8MB40900AICI) }
func BenchmarkCompareGeneral(b *testing.B) { benchmarkCompare(b, UTF8MB4General) }
func BenchmarkCompareUnicode(b *testing.B) { benchmarkCompare(b, UTF8MB4Unicode) }

func BenchmarkSortKey0900(b *testing.B) {
	c := Get(Default)
	var buf []byte
	for b.Loop() {
		buf = c.AppendSortKey(buf[:0], benchA)
	}
}

func BenchmarkHash0900(b *testing.B) {
	c := Get(Default)
	for b.Loop() {
		c.Hash(benchA)
	}
}

func BenchmarkLike(b *testing.B) {
	p := Get(Default).Like([]byte("%lazy%"), '\\')
	for b.Loop() {
		p.Match(benchA)
	}
}
