package admin

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cairndb/cairn/internal/keys"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/pd/pdclient"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/pdpb"
	"github.com/cairndb/cairn/sqlnode/catalog"
	"github.com/cairndb/cairn/sqlnode/table"
)

const (
	// maxSplit is the most regions one statement makes.
	maxSplit = 1000
	// knownWithin bounds the wait for PD to hear of new regions, scatterWithin that
	// for their replicas to be spread.
	knownWithin   = 10 * time.Second
	scatterWithin = 30 * time.Second
	pollEvery     = 20 * time.Millisecond
)

// Constant is a value of the statement, with the type it was written in.
type Constant struct {
	Value types.Value
	Type  types.Type
}

// Split is SPLIT TABLE: at the values of Lists, or, without any, between Lower and
// Upper into Num parts of equal distance.
type Split struct {
	Table        *catalog.Table
	Index        *catalog.Index // nil = the rows
	Lower, Upper []Constant
	Num          int64
	Lists        [][]Constant
	Conv         types.ConvContext
}

// Keys returns where to split, ascending and different: the values, what separates the
// index, or the rows, from the rest of the table, and the table from others. Errors are 8212.
func (s *Split) Keys() (out [][]byte, err error) {
	if s.Index != nil && s.Index.Primary {
		s.Index = nil // it is the rows
	}
	s.Conv.Strict = true
	start, end := keys.TablePrefix(s.Table.ID)
	out = append(out, start, end)
	if s.Index != nil {
		start, end = keys.IndexPrefix(s.Table.ID, s.Index.ID)
		out = append(out, start, end)
	} else if len(s.Table.WriteIndexes) > 0 {
		out = append(out, keys.AppendRowPrefix(nil, s.Table.ID))
	}
	if len(s.Lists) > maxSplit || s.Num > maxSplit {
		return nil, splitError("Split table region num exceeded the limit %d", maxSplit)
	}
	switch {
	case len(s.Lists) > 0:
		for _, list := range s.Lists {
			key, err := s.key(list)
			if err != nil {
				return nil, err
			}
			out = append(out, key)
		}
	case s.Num <= 0:
		return nil, splitError("Split table region num should be greater than 0")
	default:
		between, err := s.between()
		if err != nil {
			return nil, err
		}
		out = append(out, between...)
	}
	slices.SortFunc(out, bytes.Compare)
	return slices.CompactFunc(out, bytes.Equal), nil
}

func splitError(text string, args ...any) error {
	return sqlerr.New(sqlerr.ErrInvalidSplitRegionRanges, fmt.Sprintf(text, args...))
}

// columns are the columns a value list is about, with their index prefix lengths.
// None: the integer handle.
func (s *Split) columns() []catalog.IndexColumn {
	switch {
	case s.Index != nil:
		return s.Index.Columns
	case s.Table.Handle == catalog.HandleCommon:
		return s.Table.PK.Columns
	}
	return nil
}

// key makes the key of a value list. An index takes fewer values than it has columns.
func (s *Split) key(list []Constant) ([]byte, error) {
	cols := s.columns()
	if cols == nil {
		n, err := s.handle(list)
		if err != nil {
			return nil, err
		}
		return keys.AppendIntRow(nil, s.Table.ID, n), nil
	}
	if len(list) == 0 || len(list) > len(cols) || s.Index == nil && len(list) != len(cols) {
		return nil, splitError("Split table `%s` has %d values for %d columns", s.Table.Name, len(list), len(cols))
	}
	key := keys.AppendRowPrefix(nil, s.Table.ID)
	if s.Index != nil {
		key = keys.AppendIndexPrefix(nil, s.Table.ID, s.Index.ID)
	}
	for i, c := range list {
		col := s.Table.Columns[cols[i].Offset]
		v, err := s.convert(c, col.Name, col.Type)
		if err != nil {
			return nil, err
		}
		if cols[i].Length >= 0 {
			v = table.CutPrefix(v, col.Type, cols[i].Length)
		}
		key = types.AppendKey(key, types.ToStorage(v, col.Type, s.Conv.Loc), col.Type)
	}
	return key, nil
}

func (s *Split) convert(c Constant, name string, typ types.Type) (types.Value, error) {
	s.Conv.Column, s.Conv.Row = name, 1
	return types.Convert(&s.Conv, c.Value, c.Type, typ)
}

// handle is the integer handle of a value list of one.
func (s *Split) handle(list []Constant) (int64, error) {
	if len(list) != 1 {
		return 0, splitError("Split table `%s` has %d values for 1 column", s.Table.Name, len(list))
	}
	name := "_rowid"
	if c := s.Table.HandleColumn(); c != nil {
		name = c.Name
	}
	if list[0].Value.IsNull() {
		return 0, splitError("Split table `%s` at NULL", s.Table.Name)
	}
	v, err := s.convert(list[0], name, types.NewInt())
	if err != nil {
		return 0, err
	}
	return v.Int(), nil
}

// between makes the Num-1 keys between the bounds.
func (s *Split) between() ([][]byte, error) {
	if s.columns() == nil {
		return s.betweenHandles()
	}
	lower, err := s.key(s.Lower)
	if err != nil {
		return nil, err
	}
	upper, err := s.key(s.Upper)
	if err != nil {
		return nil, err
	}
	if bytes.Compare(lower, upper) >= 0 {
		return nil, s.order()
	}
	// The eight bytes after what the bounds share count as a number.
	common := 0
	for common < len(lower) && lower[common] == upper[common] {
		common++
	}
	lo, hi := number(lower[common:]), number(upper[common:])
	step := (hi - lo) / uint64(s.Num)
	if step == 0 {
		return nil, s.tooSmall()
	}
	var out [][]byte
	for i := uint64(1); i < uint64(s.Num); i++ {
		out = append(out, binary.BigEndian.AppendUint64(slices.Clone(lower[:common]), lo+i*step))
	}
	return out, nil
}

func (s *Split) betweenHandles() ([][]byte, error) {
	lower, err := s.handle(s.Lower)
	if err != nil {
		return nil, err
	}
	upper, err := s.handle(s.Upper)
	if err != nil {
		return nil, err
	}
	if lower >= upper {
		return nil, s.order()
	}
	step := (uint64(upper) - uint64(lower)) / uint64(s.Num) // right even when the difference is no int64
	if step == 0 {
		return nil, s.tooSmall()
	}
	var out [][]byte
	for i := uint64(1); i < uint64(s.Num); i++ {
		out = append(out, keys.AppendIntRow(nil, s.Table.ID, lower+int64(i*step)))
	}
	return out, nil
}

func (s *Split) order() error {
	return splitError("Split table `%s` lower value should less than the upper value", s.Table.Name)
}

func (s *Split) tooSmall() error {
	return splitError("Split table `%s` into %d regions: the range between the bounds is too small", s.Table.Name, s.Num)
}

// number reads up to eight bytes as the first ones of a big-endian number.
func number(b []byte) uint64 {
	var buf [8]byte
	copy(buf[:], b)
	return binary.BigEndian.Uint64(buf[:])
}

// Apply splits at the keys and spreads the new regions over the stores. It returns how
// many regions were made, and which part of them was spread in the time allowed.
func (c *Cluster) Apply(ctx context.Context, at [][]byte) (made int, scattered float64, err error) {
	missing, err := c.missing(ctx, at)
	if err != nil || len(missing) == 0 {
		return 0, 1, err
	}
	if err := c.Split(ctx, missing); err != nil {
		return 0, 0, err
	}
	ids, err := c.known(ctx, missing)
	if err != nil {
		return 0, 0, err
	}
	scattered, err = c.scatter(ctx, ids)
	return len(missing), scattered, err
}

// missing are the keys at which no region begins.
func (c *Cluster) missing(ctx context.Context, at [][]byte) (out [][]byte, err error) {
	for _, key := range at {
		region, _, err := c.PD.GetRegion(ctx, key)
		switch {
		case errors.Is(err, pdclient.ErrRegionNotFound): // a moment after a split: it does no harm to ask again
		case err != nil:
			return nil, fmt.Errorf("locate split key: %w", err)
		case bytes.Equal(region.StartKey, key):
			continue
		}
		out = append(out, key)
	}
	return out, nil
}

// known waits until PD has heard of the regions that begin at the keys, and returns
// the ids of those.
func (c *Cluster) known(ctx context.Context, at [][]byte) (ids []uint64, err error) {
	began := time.Now()
	for _, key := range at {
		for {
			region, _, err := c.PD.GetRegion(ctx, key)
			if err != nil && !errors.Is(err, pdclient.ErrRegionNotFound) {
				return nil, fmt.Errorf("locate new region: %w", err)
			}
			if err == nil && bytes.Equal(region.StartKey, key) {
				ids = append(ids, region.Id)
				break
			}
			if time.Since(began) > knownWithin {
				return ids, nil // it will: reports repeat
			}
			if err := c.sleep(ctx, pollEvery); err != nil {
				return nil, err
			}
		}
	}
	return ids, nil
}

// scatter spreads the regions and returns which part is done. With one store there
// is nothing to spread over.
func (c *Cluster) scatter(ctx context.Context, ids []uint64) (float64, error) {
	stores, err := c.PD.GetStores(ctx)
	if err != nil {
		return 0, fmt.Errorf("list stores: %w", err)
	}
	up := 0
	for _, s := range stores {
		if s.State == kvpb.StoreState_STORE_STATE_UP {
			up++
		}
	}
	if up < 2 || len(ids) == 0 {
		return 1, nil
	}
	_, err = c.PD.AddOperator(ctx, &pdpb.AddOperatorRequest{
		What: &pdpb.AddOperatorRequest_Scatter{Scatter: &pdpb.Scatter{RegionIds: ids}}})
	if errors.Is(err, pdclient.ErrRefused) {
		return 0, nil // it is spread when PD finds the time
	}
	if err != nil {
		return 0, fmt.Errorf("scatter: %w", err)
	}
	began := time.Now()
	for {
		regions, err := c.PD.DescribeRegions(ctx, &pdpb.DescribeRegionsRequest{RegionIds: ids, Limit: regionPage})
		if err != nil {
			return 0, fmt.Errorf("describe regions: %w", err)
		}
		moving := 0
		for _, r := range regions {
			if scattering(r) {
				moving++
			}
		}
		if moving == 0 || time.Since(began) > scatterWithin {
			return 1 - float64(moving)/float64(len(ids)), nil
		}
		if err := c.sleep(ctx, pollEvery); err != nil {
			return 0, err
		}
	}
}
