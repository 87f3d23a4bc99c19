package privilege

import (
	"encoding/json"
	"testing"

	"github.com/pingcap/tidb/pkg/parser/ast"
	"github.com/pingcap/tidb/pkg/parser/mysql"
	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/internal/sqlerr"
)

// manager holds these accounts without a store behind it.
func manager(t *testing.T, list ...*Account) *Manager {
	t.Helper()
	raw, err := json.Marshal(list)
	require.NoError(t, err)
	m := &Manager{}
	require.NoError(t, m.publish(raw))
	return m
}

func TestMostSpecificHostLogsIn(t *testing.T) {
	m := manager(t, &Account{User: "u", Host: "%"}, &Account{User: "u", Host: "10.%"}, &Account{User: "u", Host: "10.0.0.7"},
		&Account{User: "l", Host: "localhost"})
	for host, want := range map[string]string{"1.2.3.4": "%", "10.9.9.9": "10.%", "10.0.0.7": "10.0.0.7", "127.0.0.1": "%"} {
		require.Equal(t, want, m.Match("u", host).Host, host)
	}
	require.NotNil(t, m.Match("l", "::1"))
	require.Nil(t, m.Match("l", "10.0.0.7"))
	require.Nil(t, m.Match("U", "10.0.0.7"), "user names are case-sensitive")
}

func TestAccountsWithoutPasswordOnlyFromThisMachine(t *testing.T) {
	open, closed := &Account{}, &Account{Hash: "x"}
	require.False(t, open.PasswordlessDenied("127.0.0.1"))
	require.False(t, open.PasswordlessDenied("::1"))
	require.True(t, open.PasswordlessDenied("10.0.0.1"))
	require.True(t, open.PasswordlessDenied("localhost.evil.example"))
	require.False(t, closed.PasswordlessDenied("10.0.0.1"))
}

func TestCheckByLevel(t *testing.T) {
	m := manager(t,
		&Account{User: "root", Host: "%", Global: allGlobal()},
		&Account{User: "db", Host: "%", DBs: map[string]Set{"d": mysql.SelectPriv | mysql.CreatePriv}},
		&Account{User: "tab", Host: "%", Tables: map[string]Set{"d\x00t": mysql.SelectPriv}},
		&Account{User: "none", Host: "%"})
	for _, c := range []struct {
		account, priv, db, table string
		code                     uint16 // 0 = allowed
	}{
		{"root@%", "DROP", "d", "t", 0},
		{"root@%", "NO SUCH WORD", "d", "t", 1142},
		{"db@%", "SELECT", "d", "any", 0},
		{"db@%", "INSERT", "d", "t", 1142},
		{"db@%", "CREATE", "d", "", 0},
		{"db@%", "DROP", "d", "", 1044},
		{"db@%", "SELECT", "D", "t", 1142},
		{"tab@%", "SELECT", "d", "t", 0},
		{"tab@%", "SELECT", "d", "u", 1142},
		{"none@%", "SELECT", "information_schema", "TABLES", 0},
		{"none@%", "INSERT", "information_schema", "TABLES", 1142},
		{"none@%", "SELECT", "mysql", "user", 1142},
		{"gone@%", "SELECT", "information_schema", "TABLES", 1142},
	} {
		require.Equal(t, c.code, sqlerr.Code(m.Check(c.account, c.priv, c.db, c.table)), "%+v", c)
	}
	require.True(t, m.Visible("tab@%", "d", ""))
	require.False(t, m.Visible("tab@%", "d", "u"))
	require.False(t, m.Visible("none@%", "d", ""))
	require.Error(t, m.CheckAdmin("db@%", "SUPER"))
	require.NoError(t, m.CheckAdmin("root@%", "SUPER"))
}

func TestDatabasePatterns(t *testing.T) {
	m := manager(t, &Account{User: "u", Host: "%", DBs: map[string]Set{`app\_prod`: mysql.SelectPriv, "shop%": mysql.SelectPriv, "x_z": mysql.SelectPriv}})
	for db, allowed := range map[string]bool{
		"app_prod": true, "appXprod": false, "shop": true, "shop_eu": true, "sho": false, "xyz": true, "xz": false, `app\_prod`: false,
	} {
		require.Equal(t, allowed, m.Check("u@%", "SELECT", db, "t") == nil, db)
	}
}

func TestMatchDoesNotExplode(t *testing.T) {
	require.False(t, like("%a%a%a%a%a%a%", "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"))
	require.True(t, like("%%%", ""))
	require.False(t, like("_", ""))
	require.True(t, match(`\%`, "%", true))
	require.False(t, match(`\%`, "x", true))
}

func TestOnlyHashesAreKept(t *testing.T) {
	for _, plugin := range []string{pluginNative, pluginSHA2} {
		a := &Account{}
		require.NoError(t, setAuth(a, &ast.AuthOption{AuthPlugin: plugin, ByAuthString: true, AuthString: "secret"}))
		require.NotContains(t, a.Hash, "secret")
		require.True(t, validHash(plugin, a.Hash), plugin)
		copied := &Account{}
		require.NoError(t, setAuth(copied, &ast.AuthOption{AuthPlugin: plugin, ByHashString: true, HashString: a.Hash}))
		require.Equal(t, a.Hash, copied.Hash)
		require.Error(t, setAuth(copied, &ast.AuthOption{AuthPlugin: plugin, ByHashString: true, HashString: "secret"}))
	}
	require.Error(t, setAuth(&Account{}, &ast.AuthOption{AuthPlugin: "sha256_password", ByAuthString: true, AuthString: "x"}))
}

func TestGrantingNeedsTheGrantOption(t *testing.T) {
	m := manager(t, &Account{User: "boss", Host: "%", DBs: map[string]Set{"d": mysql.SelectPriv | mysql.GrantPriv}})
	require.NoError(t, m.mayGrant("boss@%", level{db: "d"}, mysql.SelectPriv))
	require.Error(t, m.mayGrant("boss@%", level{db: "d"}, mysql.InsertPriv), "not what it does not hold")
	require.Error(t, m.mayGrant("boss@%", level{}, mysql.SelectPriv), "not on a wider level")
	require.NoError(t, m.mayGrant("boss@%", level{db: "d", table: "t"}, mysql.SelectPriv))
}

func TestShowGrants(t *testing.T) {
	m := manager(t, &Account{User: "u", Host: "%", DBs: map[string]Set{"d": union(mysql.AllDBPrivs)}, Tables: map[string]Set{"e\x00t": mysql.SelectPriv | mysql.InsertPriv}})
	got, err := m.ShowGrants("u@%", nil)
	require.NoError(t, err)
	require.Equal(t, []string{
		"GRANT USAGE ON *.* TO `u`@`%`", "GRANT ALL PRIVILEGES ON `d`.* TO `u`@`%`", "GRANT SELECT, INSERT ON `e`.`t` TO `u`@`%`",
	}, got)
}
