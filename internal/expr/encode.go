package expr

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"strconv"
	"strings"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/decimal"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
)

// Other forms of values: number bases, base64, digests, network addresses, grouped digits.

var encodeTable = []builtin{
	{name: "hex", min: 1, max: 1, typ: typHex, comp: compHex},
	{name: "unhex", min: 1, max: 1, typ: typUnhex, comp: compUnhex},
	{name: "bin", min: 1, max: 1, typ: typConnString(64), comp: compBase(2)},
	{name: "oct", min: 1, max: 1, typ: typConnString(64), comp: compBase(8)},
	{name: "conv", min: 3, max: 3, typ: typConnString(64), comp: compConv},
	{name: "char", min: 1, max: -1, typ: typChar, comp: compChar},
	{name: "format", min: 2, max: 3, typ: typFormat, comp: compFormat},
	{name: "md5", min: 1, max: 1, typ: typConnString(32), comp: compDigest(func(s []byte) []byte { h := md5.Sum(s); return h[:] })},
	{name: "sha1", min: 1, max: 1, typ: typConnString(40), comp: compDigest(func(s []byte) []byte { h := sha1.Sum(s); return h[:] })},
	{name: "sha2", min: 2, max: 2, typ: typConnString(128), comp: compSHA2},
	{name: "to_base64", min: 1, max: 1, typ: typToBase64, comp: compToBase64},
	{name: "from_base64", min: 1, max: 1, typ: typFromBase64, comp: compFromBase64},
	{name: "inet_aton", min: 1, max: 1, typ: typUint(21), comp: compInetAton},
	{name: "inet_ntoa", min: 1, max: 1, typ: typConnString(15), comp: compInetNtoa},
}

func typHex(env *BuildEnv, c *Call) error {
	n := 16
	if t := c.Args[0].Type(); t.IsString() || t.TextForm() {
		n = 2 * byteLen(t)
	}
	c.Typ, c.coer = stringType(n, env.collation()), CoerLiteral
	return nil
}

func compHex(cc *compiler, c *Call) *Program {
	p := cc.prog(c.Args[0])
	if p.Int != nil && !p.Type.TextForm() && p.Type.Tp != types.TypeBit || p.Float != nil || p.Dec != nil {
		return bytesProgram(map1(toIntBits(p), func(env *Env, v int64) ([]byte, bool) {
			return upperASCII(strconv.AppendUint(env.buf(16), uint64(v), 16)), false
		}))
	}
	return bytesProgram(map1(toBytes(p), func(env *Env, s []byte) ([]byte, bool) {
		return upperASCII(hex.AppendEncode(env.buf(2*len(s)), s)), false
	}))
}

// upperASCII changes s itself.
func upperASCII(s []byte) []byte {
	for i, c := range s {
		if c >= 'a' && c <= 'z' {
			s[i] = c - 'a' + 'A'
		}
	}
	return s
}

func typUnhex(_ *BuildEnv, c *Call) error {
	c.Typ, c.coer = stringType((charLen(c.Args[0].Type())+1)/2, charset.Binary), CoerLiteral
	return nil
}

func compUnhex(cc *compiler, c *Call) *Program {
	return bytesProgram(map1(cc.str(c.Args[0]), func(env *Env, s []byte) ([]byte, bool) {
		out := env.buf(len(s)/2 + 1)
		if len(s)%2 == 1 {
			d, ok := hexDigit(s[0])
			if !ok {
				return nil, true
			}
			out, s = append(out, d), s[1:]
		}
		for ; len(s) > 0; s = s[2:] {
			hi, ok1 := hexDigit(s[0])
			lo, ok2 := hexDigit(s[1])
			if !ok1 || !ok2 {
				return nil, true
			}
			out = append(out, hi<<4|lo)
		}
		return out, false
	}))
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

func compBase(base int) func(*compiler, *Call) *Program {
	return func(cc *compiler, c *Call) *Program {
		return bytesProgram(map1(cc.bits(c.Args[0]), func(env *Env, v int64) ([]byte, bool) {
			return strconv.AppendUint(env.buf(64), uint64(v), base), false
		}))
	}
}

func compConv(cc *compiler, c *Call) *Program {
	return bytesProgram(map3(cc.str(c.Args[0]), cc.int(c.Args[1]), cc.int(c.Args[2]), convBase))
}

// convBase is CONV(): a negative base means that numbers have a sign.
func convBase(env *Env, s []byte, from, to int64) ([]byte, bool) {
	signedIn, signedOut := from < 0, to < 0
	from, to = max(from, -from), max(to, -to)
	if from < 2 || from > 36 || to < 2 || to > 36 {
		return nil, true
	}
	text := strings.TrimSpace(string(s))
	neg := strings.HasPrefix(text, "-")
	text = strings.TrimLeft(text, "+-")
	var v uint64
digits:
	for _, r := range strings.ToLower(text) {
		d := int64(36)
		switch {
		case r >= '0' && r <= '9':
			d = int64(r - '0')
		case r >= 'a' && r <= 'z':
			d = int64(r-'a') + 10
		}
		if d >= from {
			break digits
		}
		if v > (1<<64-1-uint64(d))/uint64(from) {
			v = 1<<64 - 1
			break digits
		}
		v = v*uint64(from) + uint64(d)
	}
	if neg {
		if signedIn && v > 1<<63 {
			v = 1 << 63
		}
		v = -v
	} else if signedIn && v > 1<<63-1 {
		v = 1<<63 - 1
	}
	out := env.buf(65)
	if signedOut {
		out = strconv.AppendInt(out, int64(v), int(to))
	} else {
		out = strconv.AppendUint(out, v, int(to))
	}
	return upperASCII(out), false
}

// typChar is CHAR(n, ...): bytes.
func typChar(_ *BuildEnv, c *Call) error {
	c.Typ, c.coer = stringType(4*len(c.Args), charset.Binary), CoerLiteral
	return nil
}

func compChar(cc *compiler, c *Call) *Program {
	fns := make([]Fn[int64], len(c.Args))
	for i, a := range c.Args {
		fns[i] = cc.bits(a)
	}
	return bytesProgram(func(env *Env, b *chunk.Batch, row int) ([]byte, bool) {
		out := env.buf(4 * len(fns))
		for _, f := range fns {
			v, null := f(env, b, row)
			if null {
				continue
			}
			n := uint32(v)
			for shift := 24; shift > 0; shift -= 8 {
				if n>>shift != 0 {
					out = append(out, byte(n>>shift))
				}
			}
			out = append(out, byte(n))
		}
		return out, false
	})
}

func typFormat(env *BuildEnv, c *Call) error {
	n := charLen(c.Args[0].Type())
	c.Typ, c.coer = stringType(n+n/3+32, env.collation()), CoerLiteral
	return nil
}

func compFormat(cc *compiler, c *Call) *Program {
	p := cc.prog(c.Args[0])
	places := cc.int(c.Args[1])
	if p.Float == nil && p.Bytes == nil {
		return bytesProgram(map2(toDec(p), places, func(env *Env, d decimal.Decimal, n int64) ([]byte, bool) {
			d, _ = d.Round(int(min(max(n, 0), 30)))
			return appendGrouped(env.buf(48), d.AppendText(nil)), false
		}))
	}
	return bytesProgram(map2(toFloat(p), places, func(env *Env, f float64, n int64) ([]byte, bool) {
		n = min(max(n, 0), 30)
		return appendGrouped(env.buf(48), strconv.AppendFloat(nil, roundFloat(f, n), 'f', int(n), 64)), false
	}))
}

func compDigest(sum func([]byte) []byte) func(*compiler, *Call) *Program {
	return func(cc *compiler, c *Call) *Program {
		return bytesProgram(map1(cc.str(c.Args[0]), func(env *Env, s []byte) ([]byte, bool) {
			d := sum(s)
			return hex.AppendEncode(env.buf(2*len(d)), d), false
		}))
	}
}

func compSHA2(cc *compiler, c *Call) *Program {
	return bytesProgram(map2(cc.str(c.Args[0]), cc.int(c.Args[1]), func(env *Env, s []byte, bits int64) ([]byte, bool) {
		var d []byte
		switch bits {
		case 224:
			h := sha256.Sum224(s)
			d = h[:]
		case 0, 256:
			h := sha256.Sum256(s)
			d = h[:]
		case 384:
			h := sha512.Sum384(s)
			d = h[:]
		case 512:
			h := sha512.Sum512(s)
			d = h[:]
		default:
			env.warn(sqlerr.ErrWrongParametersToNativeFct, "sha2")
			return nil, true
		}
		return hex.AppendEncode(env.buf(2*len(d)), d), false
	}))
}

func typToBase64(env *BuildEnv, c *Call) error {
	n := (byteLen(c.Args[0].Type()) + 2) / 3 * 4
	c.Typ, c.coer = stringType(n+n/76, env.collation()), CoerLiteral
	return nil
}

func compToBase64(cc *compiler, c *Call) *Program {
	const line = 76
	return bytesProgram(map1(cc.str(c.Args[0]), func(env *Env, s []byte) ([]byte, bool) {
		n := base64.StdEncoding.EncodedLen(len(s))
		if !env.fits(n+n/line, "to_base64") {
			return nil, true
		}
		enc := base64.StdEncoding.AppendEncode(env.buf(n), s)
		if len(enc) <= line {
			return enc, false
		}
		out := env.buf(n + n/line)
		for len(enc) > line {
			out = append(append(out, enc[:line]...), '\n')
			enc = enc[line:]
		}
		return append(out, enc...), false
	}))
}

func typFromBase64(_ *BuildEnv, c *Call) error {
	c.Typ, c.coer = stringType(charLen(c.Args[0].Type())/4*3+3, charset.Binary), CoerLiteral
	return nil
}

func compFromBase64(cc *compiler, c *Call) *Program {
	return bytesProgram(map1(cc.str(c.Args[0]), func(env *Env, s []byte) ([]byte, bool) {
		clean := env.buf(len(s))
		for _, b := range s {
			if !isSpaceByte(b) {
				clean = append(clean, b)
			}
		}
		out, err := base64.StdEncoding.AppendDecode(env.buf(len(clean)), clean)
		return out, err != nil
	}))
}

func compInetAton(cc *compiler, c *Call) *Program {
	return intProgram(map1(cc.str(c.Args[0]), func(env *Env, s []byte) (int64, bool) {
		v, ok := inetAton(s)
		if !ok {
			env.problem(sqlerr.ErrWrongValueForType, "string", string(s), "inet_aton")
		}
		return v, !ok
	}))
}

// inetAton reads a dotted address; missing middle parts are zero, as in '127.1'.
func inetAton(s []byte) (int64, bool) {
	var v, part int64
	dots, digits := 0, 0
	for _, c := range s {
		switch {
		case c >= '0' && c <= '9':
			part = part*10 + int64(c-'0')
			digits++
			if part > 255 {
				return 0, false
			}
		case c == '.' && digits > 0 && dots < 3:
			v, part = v<<8|part, 0
			dots++
			digits = 0
		default:
			return 0, false
		}
	}
	if digits == 0 {
		return 0, false
	}
	if dots < 3 {
		v <<= 8 * (3 - dots)
	}
	return v<<8 | part, true
}

func compInetNtoa(cc *compiler, c *Call) *Program {
	return bytesProgram(map1(cc.bits(c.Args[0]), func(env *Env, v int64) ([]byte, bool) {
		if v < 0 || v > 1<<32-1 {
			env.problem(sqlerr.ErrWrongValueForType, "integer", itoa(int(v)), "inet_ntoa")
			return nil, true
		}
		out := env.buf(15)
		for shift := 24; shift >= 0; shift -= 8 {
			out = strconv.AppendInt(out, v>>shift&255, 10)
			if shift > 0 {
				out = append(out, '.')
			}
		}
		return out, false
	}))
}
