package admin

import (
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/sqlnode/catalog"
)

func ints(vals ...int64) []Constant {
	out := make([]Constant, len(vals))
	for i, v := range vals {
		out[i] = Constant{types.Int(v), types.NewInt()}
	}
	return out
}

func text(s string) Constant {
	return Constant{types.String(s), types.NewString(10, charset.UTF8MB4Bin)}
}

func tableOf(pk ...int) *catalog.Table {
	t := &catalog.Table{ID: 7, DB: "d", Name: "t", Columns: []*catalog.Column{
		{ID: 1, Name: "a", Type: types.NewInt()}, {ID: 2, Name: "b", Offset: 1, Type: types.NewString(10, charset.UTF8MB4Bin)}}}
	if len(pk) == 0 {
		t.Handle = catalog.HandleRowID
	}
	if len(pk) > 1 {
		t.Handle = catalog.HandleCommon
	}
	if len(pk) > 0 {
		t.PK = &catalog.Index{ID: 1, Name: "PRIMARY", Primary: true, Unique: true}
		for _, c := range pk {
			t.PK.Columns = append(t.PK.Columns, catalog.IndexColumn{Offset: c, Length: -1})
		}
		t.Indexes = append(t.Indexes, t.PK)
	}
	return t
}

func withIndex(t *catalog.Table, length int) *catalog.Table {
	ix := &catalog.Index{ID: 3, Name: "b", Columns: []catalog.IndexColumn{{Offset: 1, Length: length}, {Offset: 0, Length: -1}}}
	t.Indexes, t.WriteIndexes = append(t.Indexes, ix), append(t.WriteIndexes, ix)
	return t
}

func TestSplitKeys(t *testing.T) {
	indexed := withIndex(tableOf(0), 2)
	for name, tc := range map[string]struct {
		split Split
		want  string
		err   string
	}{
		"rows between":          {split: Split{Table: tableOf(0), Lower: ints(-8), Upper: ints(8), Num: 4}, want: "t_7_r_-4 t_7_r_0 t_7_r_4"},
		"the whole range":       {split: Split{Table: tableOf(), Lower: ints(math.MinInt64), Upper: ints(math.MaxInt64), Num: 2}, want: "t_7_r_-1"},
		"one region":            {split: Split{Table: tableOf(), Lower: ints(0), Upper: ints(9), Num: 1}},
		"rows by, out of order": {split: Split{Table: tableOf(0), Lists: [][]Constant{ints(5), ints(-5), ints(5)}}, want: "t_7_r_-5 t_7_r_5"},
		"rows of an indexed table are cut off its entries": {split: Split{Table: indexed, Lists: [][]Constant{ints(5)}}, want: "t_7_r t_7_r_5"},
		"common handle":             {split: Split{Table: tableOf(0, 1), Lists: [][]Constant{append(ints(5), text("x"))}}, want: "t_7_r_018000000000000005017800000000000000f8"},
		"index, fewer values":       {split: Split{Table: indexed, Index: indexed.Indexes[1], Lists: [][]Constant{{text("xyz")}}}, want: "t_7_i_3_ t_7_i_3_017879000000000000f9 t_7_i_4_"},
		"index between":             {split: Split{Table: indexed, Index: indexed.Indexes[1], Lower: []Constant{text("a")}, Upper: []Constant{text("c")}, Num: 2}, want: "t_7_i_3_ t_7_i_3_016200000000000000 t_7_i_4_"},
		"primary is the rows":       {split: Split{Table: tableOf(0), Index: tableOf(0).PK, Lists: [][]Constant{ints(5)}}, want: "t_7_r_5"},
		"wrong order":               {split: Split{Table: tableOf(0), Lower: ints(9), Upper: ints(9), Num: 2}, err: "lower value should less"},
		"wrong order of an index":   {split: Split{Table: indexed, Index: indexed.Indexes[1], Lower: []Constant{text("c")}, Upper: []Constant{text("a")}, Num: 2}, err: "lower value should less"},
		"too small":                 {split: Split{Table: tableOf(0), Lower: ints(1), Upper: ints(3), Num: 3}, err: "too small"},
		"eight bytes are enough":    {split: Split{Table: tableOf(0, 1), Lower: append(ints(1), text("a")), Upper: append(ints(2), text("a")), Num: 3}, want: "t_7_r_01800000000000000156b65555555555 t_7_r_018000000000000001ac0baaaaaaaaaa"},
		"none":                      {split: Split{Table: tableOf(0), Lower: ints(1), Upper: ints(3)}, err: "greater than 0"},
		"too many":                  {split: Split{Table: tableOf(0), Lower: ints(1), Upper: ints(3), Num: 1001}, err: "exceeded the limit"},
		"too many values":           {split: Split{Table: tableOf(0), Lists: [][]Constant{ints(1, 2)}}, err: "2 values for 1 column"},
		"too few for the rows":      {split: Split{Table: tableOf(0, 1), Lists: [][]Constant{ints(1)}}, err: "1 values for 2 columns"},
		"too many for the index":    {split: Split{Table: indexed, Index: indexed.Indexes[1], Lists: [][]Constant{ints(1, 2, 3)}}, err: "3 values for 2 columns"},
		"NULL is no handle":         {split: Split{Table: tableOf(0), Lists: [][]Constant{{{types.Null(), types.NewNull()}}}}, err: "at NULL"},
		"a value that is no number": {split: Split{Table: tableOf(0), Lists: [][]Constant{{text("x")}}}, err: "Incorrect integer value"},
	} {
		t.Run(name, func(t *testing.T) {
			keys, err := tc.split.Keys()
			if tc.err != "" {
				require.ErrorContains(t, err, tc.err)
				require.NotZero(t, sqlerr.Code(err))
				return
			}
			require.NoError(t, err)
			var got []string
			for i, k := range keys {
				got = append(got, KeyText(k))
				if i > 0 {
					require.Less(t, string(keys[i-1]), string(k))
				}
			}
			want := append(append([]string{"t_7_"}, strings.Fields(tc.want)...), "t_8_") // apart from other tables
			require.Equal(t, want, got)
		})
	}
}

func TestKeyText(t *testing.T) {
	require.Equal(t, "", KeyText(nil))
	require.Equal(t, "6d78", KeyText([]byte("mx")))
	start, end := Range(tableOf(0), nil)
	require.Equal(t, "t_7_ t_8_", KeyText(start)+" "+KeyText(end))
}
