package session

import (
	"context"
	"errors"

	"github.com/pingcap/tidb/pkg/parser/ast"

	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/kvnode/kvclient"
	"github.com/cairndb/cairn/sqlnode/admin"
	"github.com/cairndb/cairn/sqlnode/catalog"
	"github.com/cairndb/cairn/sqlnode/plan"
)

// storedTable finds a table that is stored, of a statement about how it is: 1046,
// 1142, 1146, 1347.
func (s *Session) storedTable(snap *catalog.Snapshot, name *ast.TableName, priv string) (*catalog.Table, error) {
	db, err := s.database(name.Schema.O)
	if err != nil {
		return nil, err
	}
	if priv != "" {
		if err := s.engine.Privileges.Check(s.id.Account, priv, db, name.Name.O); err != nil {
			return nil, err
		}
	}
	t := snap.Table(db, name.Name.O)
	switch {
	case t == nil:
		return nil, sqlerr.New(sqlerr.ErrNoSuchTable, db, name.Name.O)
	case t.Virtual:
		return nil, sqlerr.New(sqlerr.ErrWrongObject, t.DB, t.Name, "BASE TABLE")
	}
	return t, nil
}

// splitTable is SPLIT TABLE.
func (s *Session) splitTable(ctx context.Context, n *ast.SplitRegionStmt, w ResultWriter) error {
	if n.SplitSyntaxOpt.HasPartition || len(n.PartitionNames) > 0 {
		return unsupported("SPLIT PARTITION TABLE")
	}
	if s.engine.Cluster == nil {
		return unsupported("SPLIT TABLE on this server")
	}
	snap := s.schema()
	defer snap.done()
	t, err := s.storedTable(snap.Snapshot, n.Table, "INSERT")
	if err != nil {
		return err
	}
	split := admin.Split{Table: t, Num: n.SplitOpt.Num,
		Conv: types.ConvContext{Loc: s.hot.loc, Now: s.now(), Warn: s.warn}}
	if n.IndexName.O != "" {
		if split.Index, err = admin.FindIndex(t, n.IndexName.O); err != nil {
			return err
		}
	}
	if split.Lower, err = s.constants(ctx, n.SplitOpt.Lower); err != nil {
		return err
	}
	if split.Upper, err = s.constants(ctx, n.SplitOpt.Upper); err != nil {
		return err
	}
	for _, list := range n.SplitOpt.ValueLists {
		values, err := s.constants(ctx, list)
		if err != nil {
			return err
		}
		split.Lists = append(split.Lists, values)
	}
	at, err := split.Keys()
	if err != nil {
		return err
	}
	made, scattered, err := s.engine.Cluster.Apply(ctx, at)
	if err != nil {
		return err
	}
	r := newRowSet("TOTAL_SPLIT_REGION", "SCATTER_FINISH_RATIO")
	r.cols[0].Type, r.cols[1].Type = types.NewInt(), types.NewFloat()
	r.add(types.Int(int64(made)), types.Float(scattered))
	return s.sendRows(w, r)
}

func (s *Session) constants(ctx context.Context, list []ast.ExprNode) ([]admin.Constant, error) {
	out := make([]admin.Constant, len(list))
	for i, e := range list {
		v, typ, err := s.constant(ctx, e)
		if err != nil {
			return nil, err
		}
		out[i] = admin.Constant{Value: v, Type: typ}
	}
	return out, nil
}

// showRegions is SHOW TABLE ... REGIONS.
func (s *Session) showRegions(ctx context.Context, n *ast.ShowStmt) (*rowSet, error) {
	if s.engine.Cluster == nil {
		return nil, unsupported("SHOW TABLE REGIONS on this server")
	}
	snap := s.schema()
	defer snap.done()
	t, err := s.storedTable(snap.Snapshot, n.Table, "SELECT")
	if err != nil {
		return nil, err
	}
	var ix *catalog.Index
	if n.IndexName.O != "" {
		if ix, err = admin.FindIndex(t, n.IndexName.O); err != nil {
			return nil, err
		}
	}
	start, end := admin.Range(t, ix)
	regions, err := s.engine.Cluster.Regions(ctx, start, end)
	if err != nil {
		return nil, err
	}
	r := &rowSet{}
	for _, c := range admin.RegionColumns {
		r.cols = append(r.cols, plan.OutputColumn{Name: c.Name, Type: c.Type})
	}
	for _, region := range regions {
		r.add(admin.RegionRow(region)...)
	}
	return r, nil
}

// admin is ADMIN CHECK TABLE and ADMIN CHECK INDEX.
func (s *Session) admin(ctx context.Context, n *ast.AdminStmt, w ResultWriter) error {
	if n.Tp != ast.AdminCheckTable && n.Tp != ast.AdminCheckIndex {
		return unsupported("this ADMIN statement")
	}
	if err := s.engine.Privileges.CheckAdmin(s.id.Account, "SUPER"); err != nil {
		return err
	}
	snap := s.schema()
	defer snap.done()
	for _, name := range n.Tables {
		t, err := s.storedTable(snap.Snapshot, name, "")
		if err != nil {
			return err
		}
		indexes := t.Indexes
		if n.Tp == ast.AdminCheckIndex {
			ix, err := admin.FindIndex(t, n.Index)
			if err != nil {
				return err
			}
			indexes = []*catalog.Index{ix}
		}
		ts, err := s.engine.Store.CurrentTS(ctx)
		if err != nil {
			return err
		}
		check := admin.Check{Table: t, Indexes: indexes, Reader: s.engine.Store.Snapshot(ts), Loc: s.hot.loc}
		if err := check.Run(ctx); err != nil {
			return err
		}
		var only *catalog.Index
		if n.Tp == ast.AdminCheckIndex {
			only = indexes[0]
		}
		if err := s.compareReplicas(ctx, t, only); err != nil {
			return err
		}
	}
	return s.ok(w)
}

// compareReplicas makes sure that the replicas of a table have the same data: 9801. Where
// that cannot be found out now, because a store is away, it warns.
func (s *Session) compareReplicas(ctx context.Context, t *catalog.Table, ix *catalog.Index) error {
	if s.engine.Cluster == nil {
		return nil
	}
	err := s.engine.Cluster.CompareReplicas(ctx, t, ix)
	var differ *kvclient.ReplicasDifferError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &differ):
		return sqlerr.New(sqlerr.ErrReplicasDiffer, t.Name, differ.Error())
	case ctx.Err() != nil:
		return err
	}
	s.warn(sqlerr.Warn(sqlerr.ErrReplicasNotCompared, t.Name, err.Error()))
	return nil
}
