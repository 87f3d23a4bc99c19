package sysvar

import (
	"context"
	"maps"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEveryDefaultFollowsItsRule(t *testing.T) {
	for _, v := range All() {
		got, warnings, err := v.Normalize(v.Default)
		if v.Kind == Text {
			continue
		}
		require.NoError(t, err, v.Name)
		require.Empty(t, warnings, v.Name)
		require.Equal(t, v.Default, got, v.Name)
	}
	require.Greater(t, len(All()), 450)
}

func TestNormalize(t *testing.T) {
	for _, c := range []struct{ name, in, out string }{
		{"autocommit", "1", "ON"},
		{"AutoCommit", "off", "OFF"},
		{"sql_mode", "strict_trans_tables,ansi_quotes", "ANSI_QUOTES,STRICT_TRANS_TABLES"},
		{"sql_mode", "", ""},
		{"sql_mode", "ANSI", "REAL_AS_FLOAT,PIPES_AS_CONCAT,ANSI_QUOTES,IGNORE_SPACE,ONLY_FULL_GROUP_BY,ANSI"},
		{"transaction_isolation", "read-committed", "READ-COMMITTED"},
		{"max_allowed_packet", "1", "1024"},
		{"sql_select_limit", "18446744073709551615", "18446744073709551615"},
	} {
		v, ok := Lookup(c.name)
		require.True(t, ok, c.name)
		got, _, err := v.Normalize(c.in)
		require.NoError(t, err)
		require.Equal(t, c.out, got)
	}
	v, _ := Lookup("autocommit")
	_, _, err := v.Normalize("maybe")
	require.ErrorContains(t, err, "can't be set to the value of 'maybe'")
	v, _ = Lookup("wait_timeout")
	_, _, err = v.Normalize("x")
	require.ErrorContains(t, err, "Incorrect argument type")
}

func TestSessionKeepsWhatGlobalsWereWhenItBegan(t *testing.T) {
	g, err := NewGlobals(context.Background(), nil, map[string]string{"port": "4001"})
	require.NoError(t, err)
	old := g.NewValues()
	v, _ := Lookup("div_precision_increment")
	require.NoError(t, g.Set(context.Background(), v, "6"))
	require.Equal(t, "4", old.Text("div_precision_increment"))
	require.Equal(t, "6", g.NewValues().Text("div_precision_increment"))
	require.Equal(t, "4001", old.Text("port"))
}

// sharedStorage is what two SQL nodes have in common.
type sharedStorage map[string]string

func (s sharedStorage) LoadGlobals(context.Context) (map[string]string, error) {
	return maps.Clone(s), nil
}

func (s sharedStorage) SaveGlobal(_ context.Context, name, value string) error {
	s[name] = value
	return nil
}

func TestReloadSeesWhatOtherNodesSet(t *testing.T) {
	ctx, storage := context.Background(), sharedStorage{}
	a, err := NewGlobals(ctx, storage, map[string]string{"port": "1"})
	require.NoError(t, err)
	b, err := NewGlobals(ctx, storage, map[string]string{"port": "2"})
	require.NoError(t, err)
	v, _ := Lookup("max_connections")
	require.NoError(t, a.Set(ctx, v, "77"))
	require.Equal(t, "500", b.Get(v))
	require.NoError(t, b.Reload(ctx))
	require.Equal(t, "77", b.Get(v))
	port, _ := Lookup("port")
	require.Equal(t, "2", b.Get(port))
}
