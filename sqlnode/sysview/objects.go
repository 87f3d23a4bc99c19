package sysview

import (
	"context"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/sqlnode/catalog"
)

func schemata(_ context.Context, s *Source, add func(...types.Value) error) error {
	return s.eachDB(func(d *catalog.Database) error {
		c := charset.Get(d.Collation)
		return add(def(), str(d.Name), str(c.Charset.Name), str(c.Name), null(), str("NO"))
	})
}

func tables(ctx context.Context, s *Source, add func(...types.Value) error) error {
	return s.eachTable(func(t *catalog.Table) error {
		kind, engine, format := "BASE TABLE", str("InnoDB"), str("Dynamic")
		created, version, rows, next := moment(t.CreateTime), num(10), num(0), null()
		if t.Virtual {
			kind, engine, format, created = "SYSTEM VIEW", null(), null(), null()
		}
		if t.AutoInc != nil && s.NextAutoID != nil {
			n, err := s.NextAutoID(ctx, t)
			if err != nil {
				return err
			}
			next = unum(uint64(n))
		}
		return add(def(), str(t.DB), str(t.Name), str(kind), engine, version, format,
			rows, num(0), num(0), num(0), num(0), num(0), next,
			created, null(), null(), str(charset.Get(t.Collation).Name), null(), str(""), str(t.Comment))
	})
}

func columns(_ context.Context, s *Source, add func(...types.Value) error) error {
	return s.eachTable(func(t *catalog.Table) error {
		for i, c := range t.Columns {
			m := describe(c)
			if err := add(def(), str(t.DB), str(t.Name), str(c.Name), num(int64(i+1)),
				m.defaultText, yes(!c.NotNull()), str(m.dataType), m.charLen, m.octetLen,
				m.precision, m.scale, m.fsp, m.charset, m.collation,
				str(ColumnType(c.Type)), str(t.KeyRole(c)), str(m.extra), str("select,insert,update,references"),
				str(c.Comment), str(""), null()); err != nil {
				return err
			}
		}
		return nil
	})
}

func statistics(_ context.Context, s *Source, add func(...types.Value) error) error {
	return s.eachTable(func(t *catalog.Table) error {
		for _, ix := range t.Indexes {
			for i := range ix.Columns {
				r := indexRow(t, ix, i)
				if err := add(def(), str(t.DB), str(t.Name), r.nonUnique, str(t.DB), r.name, r.seq, r.column, r.order,
					num(0), r.subPart, null(), r.nullable, str("BTREE"), str(""), str(ix.Comment), yes(!ix.Invisible), null()); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

func keyColumnUsage(_ context.Context, s *Source, add func(...types.Value) error) error {
	return s.eachTable(func(t *catalog.Table) error {
		for _, ix := range t.Indexes {
			if !ix.Unique && !ix.Primary {
				continue
			}
			for i, ic := range ix.Columns {
				if err := add(def(), str(t.DB), str(indexName(ix)), def(), str(t.DB), str(t.Name), str(t.Columns[ic.Offset].Name),
					num(int64(i+1)), null(), null(), null(), null()); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

func tableConstraints(_ context.Context, s *Source, add func(...types.Value) error) error {
	return s.eachTable(func(t *catalog.Table) error {
		for _, ix := range t.Indexes {
			kind := "UNIQUE"
			switch {
			case ix.Primary:
				kind = "PRIMARY KEY"
			case !ix.Unique:
				continue
			}
			if err := add(def(), str(t.DB), str(indexName(ix)), str(t.DB), str(t.Name), str(kind), str("YES")); err != nil {
				return err
			}
		}
		return nil
	})
}

// partitions has one row for each table, as for a table without partitions.
func partitions(_ context.Context, s *Source, add func(...types.Value) error) error {
	return s.eachTable(func(t *catalog.Table) error {
		if t.Virtual {
			return nil
		}
		row := []types.Value{def(), str(t.DB), str(t.Name)}
		for len(row) < 12 {
			row = append(row, null())
		}
		row = append(row, num(0), num(0), num(0), null(), num(0), num(0), moment(t.CreateTime), null(), null(), null(), str(""), str(""), null())
		return add(row...)
	})
}

func engines(_ context.Context, _ *Source, add func(...types.Value) error) error {
	return add(str("InnoDB"), str("DEFAULT"), str("CairnDB's replicated key-value tier; the name is for compatibility"), str("YES"), str("NO"), str("YES"))
}

func characterSets(_ context.Context, _ *Source, add func(...types.Value) error) error {
	for _, cs := range charset.Charsets() {
		if err := add(str(cs.Name), str(cs.DefaultCollation().Name), str(cs.Description), num(int64(cs.MaxLen))); err != nil {
			return err
		}
	}
	return nil
}

func collations(_ context.Context, _ *Source, add func(...types.Value) error) error {
	for _, c := range charset.Collations() {
		pad, isDefault := "NO PAD", ""
		if c.PadSpace {
			pad = "PAD SPACE"
		}
		if c.IsDefault {
			isDefault = "Yes"
		}
		if err := add(str(c.Name), str(c.Charset.Name), unum(uint64(c.ID)), str(isDefault), str("Yes"), unum(1), str(pad)); err != nil {
			return err
		}
	}
	return nil
}

func applicability(_ context.Context, _ *Source, add func(...types.Value) error) error {
	for _, c := range charset.Collations() {
		if err := add(str(c.Name), str(c.Charset.Name)); err != nil {
			return err
		}
	}
	return nil
}

func processList(_ context.Context, s *Source, add func(...types.Value) error) error {
	for _, p := range s.Processes {
		db, info := null(), null()
		if p.HasDB {
			db = str(p.DB)
		}
		if p.HasInfo {
			info = str(p.Info)
		}
		if err := add(unum(p.ID), str(p.User), str(p.Host), db, str(p.Command), num(p.Seconds), str(p.State), info); err != nil {
			return err
		}
	}
	return nil
}

// grantsOf makes a privilege view of one level.
func grantsOf(level func(Grant) []types.Value) func(context.Context, *Source, func(...types.Value) error) error {
	return func(_ context.Context, s *Source, add func(...types.Value) error) error {
		for _, g := range s.Grants {
			if row := level(g); row != nil {
				if err := add(append(row, str(g.Privilege), yes(g.Grantable))...); err != nil {
					return err
				}
			}
		}
		return nil
	}
}

func userLevel(g Grant) []types.Value {
	if g.DB != "" {
		return nil
	}
	return []types.Value{str(g.Grantee), def()}
}

func schemaLevel(g Grant) []types.Value {
	if g.DB == "" || g.Table != "" {
		return nil
	}
	return []types.Value{str(g.Grantee), def(), str(g.DB)}
}

func tableLevel(g Grant) []types.Value {
	if g.Table == "" {
		return nil
	}
	return []types.Value{str(g.Grantee), def(), str(g.DB), str(g.Table)}
}
