// Package distscan reads ranges of a table or an index, wherever they are stored, and decodes them into batches.
//
// It is the seam between operators and the KV tier: everything a statement scans goes through a Scan. Today a Scan pulls
// blocks of pairs through txn.Reader and decodes them here, so filters and aggregates run on the SQL node only. A
// coprocessor, which runs the lower operators of a plan next to the data, replaces what is behind Next; those who call it
// do not change. Two things must hold for that:
//
//   - ranges are delivered in key order (reverse key order when Desc), so that rows of later regions never come before
//     those of earlier ones;
//   - a transaction that has written to the ranges sees its own writes: they are merged by the Reader, on this node, so a
//     scan with such writes cannot be pushed down.
//
// Sketch for 100 rows of 5 columns in one region: one request, one block; per row one virtual call and one walk over the
// record's columns straight into the lanes of the batch, nothing allocated.
package distscan

import (
	"context"
	"errors"
	"io"

	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/kvnode/kvclient/txn"
	"github.com/cairndb/cairn/sqlnode/plan"
)

// Range is a range of keys [Start, End).
type Range = plan.KeyRange

// Decoder turns a pair into a row.
type Decoder interface {
	// AppendTo appends one row to b. key and value are not kept.
	AppendTo(key, value []byte, b *chunk.Batch) error
}

// Options describes a scan.
type Options struct {
	Reader txn.Reader
	// Ranges are ascending and disjoint. They are kept until the scan ends.
	Ranges []Range
	// Desc delivers the greatest key first.
	Desc bool
	// KeyOnly leaves values empty.
	KeyOnly bool
	// Hint is about how many pairs will be wanted; 0 = all. More can be had.
	Hint int
	// Decoder is needed for Next.
	Decoder Decoder
}

const (
	firstRows = 32
	// hintGrowth is the factor by which a scan reads more each time its hint turned out too small.
	hintGrowth = 4
)

// Scan delivers the pairs of some ranges. For one goroutine; it needs no closing.
type Scan struct {
	o       Options
	at      int          // ranges begun
	scanner *txn.Scanner // of the range at work, nil before and after it
	limit   int          // pairs asked of scanner; 0 = all
	got     int          // pairs it gave
	total   int          // pairs that all have given
	rest    Range        // what scanner was asked for
	last    []byte       // last key it gave, kept when limit > 0
	hint    int
	block   txn.Block
	pos     int // next pair of block
	rows    int // rows of the next batch
}

// New returns a scan. Nothing is read before the first Pull or Next.
func New(o Options) *Scan {
	return &Scan{o: o, hint: o.Hint, rows: firstRows}
}

// Next resets b and fills it with the next rows: 32 at first, twice as many each time, up to chunk.MaxRows; fewer where more than
// the hint would have to be asked for. No rows means the end.
func (s *Scan) Next(ctx context.Context, b *chunk.Batch) error {
	b.Reset()
	for n := s.rows; n > 0; {
		if s.pos == s.block.Len() {
			if b.NumRows() > 0 && s.hinted() {
				break
			}
			more, err := s.advance(ctx)
			if err != nil {
				return err
			}
			if !more {
				break
			}
		}
		end := min(s.block.Len(), s.pos+n)
		n -= end - s.pos
		for ; s.pos < end; s.pos++ {
			if err := s.o.Decoder.AppendTo(s.block.Key(s.pos), s.block.Value(s.pos), b); err != nil {
				return err
			}
		}
	}
	s.rows = min(2*s.rows, chunk.MaxRows)
	return nil
}

// hinted reports that all pairs that will be wanted, as far as is known, were given.
func (s *Scan) hinted() bool {
	return s.limit > 0 && (s.got >= s.limit || s.total >= s.o.Hint)
}

// Pull calls add for the next max pairs, or as many as there are, and returns their number. Key and value are valid during
// the call only.
func (s *Scan) Pull(ctx context.Context, max int, add func(key, value []byte) error) (n int, err error) {
	for n < max {
		if s.pos == s.block.Len() {
			more, err := s.advance(ctx)
			if err != nil || !more {
				return n, err
			}
		}
		if err := add(s.block.Key(s.pos), s.block.Value(s.pos)); err != nil {
			return n, err
		}
		s.pos++
		n++
	}
	return n, nil
}

// advance gets the next block; false at the end of the last range.
func (s *Scan) advance(ctx context.Context) (bool, error) {
	for {
		if s.scanner == nil && !s.begin(ctx) {
			return false, nil
		}
		block, err := s.scanner.NextBlock(ctx)
		if err == nil {
			s.block, s.pos = block, 0
			s.got += block.Len()
			s.total += block.Len()
			if s.limit > 0 {
				s.last = append(s.last[:0], block.Key(block.Len()-1)...)
			}
			return true, nil
		}
		if !errors.Is(err, io.EOF) {
			return false, err
		}
		s.block, s.pos, s.scanner = txn.Block{}, 0, nil
	}
}

// begin starts the scanner of the next range, or of what a limited scanner left over; false when nothing is left.
func (s *Scan) begin(ctx context.Context) bool {
	if s.limit > 0 && s.got >= s.limit {
		// The hint was too small: go on after the last key.
		s.hint = max(s.hint*hintGrowth, firstRows)
		last := append(make([]byte, 0, len(s.last)+1), s.last...)
		if s.o.Desc {
			s.rest.End = last
		} else {
			s.rest.Start = append(last, 0)
		}
	} else {
		if s.at == len(s.o.Ranges) {
			return false
		}
		s.rest = s.o.Ranges[s.at]
		if s.o.Desc {
			s.rest = s.o.Ranges[len(s.o.Ranges)-1-s.at]
		}
		s.at++
	}
	s.limit, s.got = s.hint, 0
	s.scanner = s.o.Reader.Scan(ctx, s.rest.Start, s.rest.End, txn.ScanOptions{
		Reverse: s.o.Desc, Limit: s.limit, KeyOnly: s.o.KeyOnly,
	})
	return true
}
