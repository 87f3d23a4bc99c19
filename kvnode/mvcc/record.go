package mvcc

import "encoding/binary"

// recordReader takes fields off the front of a record. After a short read bad is
// set and every later read gives zeros, so callers check once at the end.
type recordReader struct {
	b   []byte
	bad bool
}

func (r *recordReader) fail() {
	r.bad, r.b = true, nil
}

func (r *recordReader) byte() byte {
	if len(r.b) == 0 {
		r.fail()
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *recordReader) uint64() uint64 {
	if len(r.b) < 8 {
		r.fail()
		return 0
	}
	v := binary.BigEndian.Uint64(r.b)
	r.b = r.b[8:]
	return v
}

func (r *recordReader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *recordReader) bytes() []byte {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.fail()
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

func (r *recordReader) byteSlices() [][]byte {
	n := r.uvarint()
	if n > uint64(len(r.b)) { // each takes at least its length byte
		r.fail()
		return nil
	}
	var list [][]byte
	for ; n > 0 && !r.bad; n-- {
		list = append(list, r.bytes())
	}
	return list
}

func (r *recordReader) uint64s() []uint64 {
	n := r.uvarint()
	if n > uint64(len(r.b)/8) {
		r.fail()
		return nil
	}
	list := make([]uint64, 0, n)
	for ; n > 0; n-- {
		list = append(list, r.uint64())
	}
	return list
}

func appendBytes(dst, b []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(b))), b...)
}
