package keys

// rawByte begins the keys of raw pairs, which have no transactions; userByte those of programs that use
// transactions without SQL.
const (
	rawByte  = 'r'
	userByte = 'u'
)

// AppendRaw appends the key of a raw pair whose user calls it name.
func AppendRaw(dst, name []byte) []byte { return append(append(dst, rawByte), name...) }

// RawEnd is the end of all raw keys, exclusive.
func RawEnd() []byte { return []byte{rawByte + 1} }

// IsRaw reports whether key is that of a raw pair.
func IsRaw(key []byte) bool { return len(key) > 0 && key[0] == rawByte }

// AppendUser appends the key of a program's pair that the program calls name.
func AppendUser(dst, name []byte) []byte { return append(append(dst, userByte), name...) }

// UserEnd is the end of all keys of programs, exclusive.
func UserEnd() []byte { return []byte{userByte + 1} }
