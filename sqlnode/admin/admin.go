// Package admin looks at, and changes, how a table is stored: the regions it lies in,
// and whether its index entries say what its rows say.
package admin

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/cairndb/cairn/internal/codec"
	"github.com/cairndb/cairn/internal/keys"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/pd/pdclient"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/pdpb"
	"github.com/cairndb/cairn/sqlnode/catalog"
)

// Placement is what this package needs of PD; pdclient.Client is one.
type Placement interface {
	ScanRegions(ctx context.Context, start, end []byte, limit int) ([]pdclient.RegionInfo, error)
	GetRegion(ctx context.Context, key []byte) (*kvpb.Region, *kvpb.Peer, error)
	DescribeRegions(ctx context.Context, req *pdpb.DescribeRegionsRequest) ([]*pdpb.RegionDescription, error)
	DescribeStores(ctx context.Context, ids ...uint64) ([]*pdpb.StoreDescription, error)
	GetStores(ctx context.Context) ([]*kvpb.Store, error)
	AddOperator(ctx context.Context, req *pdpb.AddOperatorRequest) (*pdpb.AddOperatorResponse, error)
}

// Cluster is the door to where tables are stored. Safe for concurrent use.
type Cluster struct {
	PD Placement // required
	// Split makes each key the first of a region; keys ascend. Required.
	Split func(ctx context.Context, keys [][]byte) error
	// Compare compares the replicas of the regions that meet [start, end); the error says
	// which differ. Nil = they are not compared.
	Compare func(ctx context.Context, start, end []byte) error

	// Locks asks stores about locks. Nil = nobody is asked.
	Locks Locks

	// wait sleeps between questions; tests replace it. Nil = sleep.
	wait func(ctx context.Context, d time.Duration) error
}

// CompareReplicas makes sure that all replicas of a table, or of one of its indexes, have
// the same data.
func (c *Cluster) CompareReplicas(ctx context.Context, t *catalog.Table, ix *catalog.Index) error {
	if c.Compare == nil {
		return nil
	}
	start, end := Range(t, ix)
	return c.Compare(ctx, start, end)
}

func (c *Cluster) sleep(ctx context.Context, d time.Duration) error {
	if c.wait != nil {
		return c.wait(ctx, d)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Range is [start, end) of a table, or of one of its indexes when ix is not nil.
func Range(t *catalog.Table, ix *catalog.Index) (start, end []byte) {
	switch {
	case ix == nil:
		return keys.TablePrefix(t.ID)
	case ix.Primary:
		return keys.RowPrefix(t.ID)
	}
	return keys.IndexPrefix(t.ID, ix.ID)
}

// FindIndex finds a public index of t by name: error 1176.
func FindIndex(t *catalog.Table, name string) (*catalog.Index, error) {
	if ix := t.Index(name); ix != nil {
		return ix, nil
	}
	return nil, sqlerr.New(sqlerr.ErrKeyDoesNotExist, name, t.Name)
}

// regionPage is how many regions one question to PD asks for.
const regionPage = 1024

// Regions lists the regions that intersect [start, end), in key order.
func (c *Cluster) Regions(ctx context.Context, start, end []byte) ([]*pdpb.RegionDescription, error) {
	var all []*pdpb.RegionDescription
	for {
		page, err := c.PD.DescribeRegions(ctx, &pdpb.DescribeRegionsRequest{StartKey: start, EndKey: end, Limit: regionPage})
		if errors.Is(err, pdclient.ErrRefused) {
			page, err = c.bareRegions(ctx, start, end)
		}
		if err != nil {
			return nil, fmt.Errorf("describe regions: %w", err)
		}
		all = append(all, page...)
		if len(page) == 0 {
			return all, nil
		}
		start = page[len(page)-1].GetRegion().GetEndKey()
		if len(start) == 0 || len(end) > 0 && string(start) >= string(end) {
			return all, nil
		}
	}
}

// bareRegions is for a PD that keeps no statistics.
func (c *Cluster) bareRegions(ctx context.Context, start, end []byte) ([]*pdpb.RegionDescription, error) {
	infos, err := c.PD.ScanRegions(ctx, start, end, regionPage)
	out := make([]*pdpb.RegionDescription, len(infos))
	for i, info := range infos {
		out[i] = &pdpb.RegionDescription{Region: info.Region, Leader: info.Leader}
	}
	return out, err
}

// KeyText writes a key as TiDB's SHOW TABLE REGIONS does: t_42_r_7, t_42_i_3_0180ff,
// t_42_ and t_42_r for prefixes, hex for anything else, nothing for the ends of the
// key space.
func KeyText(key []byte) string {
	id, rest, err := keys.DecodeTable(key)
	if err != nil {
		return hex.EncodeToString(key)
	}
	text := "t_" + strconv.FormatInt(id, 10) + "_"
	if _, handle, err := keys.DecodeRow(key); err == nil {
		text += "r"
		if len(handle) == 0 {
			return text
		}
		if n, more, err := codec.DecodeInt(handle); err == nil && len(more) == 0 {
			return text + "_" + strconv.FormatInt(n, 10)
		}
		return text + "_" + hex.EncodeToString(handle)
	}
	if _, index, columns, err := keys.DecodeIndex(key); err == nil {
		return text + "i_" + strconv.FormatInt(index, 10) + "_" + hex.EncodeToString(columns)
	}
	return text + hex.EncodeToString(rest)
}
