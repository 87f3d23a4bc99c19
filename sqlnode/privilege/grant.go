package privilege

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/pingcap/tidb/pkg/parser/ast"
	"github.com/pingcap/tidb/pkg/parser/auth"
	"github.com/pingcap/tidb/pkg/parser/mysql"

	"github.com/cairndb/cairn/internal/sqlerr"
)

func allGlobal() Set { return union(mysql.AllGlobalPrivs) }

// union joins a list of privileges; GRANT OPTION is not part of ALL.
func union(list mysql.Privileges) Set {
	var s Set
	for _, p := range list {
		s |= p
	}
	return s &^ mysql.GrantPriv
}

// level is what a GRANT or REVOKE is about.
type level struct {
	db, table string // both empty = global
	all       Set    // what ALL means here
}

func levelOf(l *ast.GrantLevel, current string) (level, error) {
	db := l.DBName
	if db == "" && l.Level != ast.GrantLevelGlobal {
		if current == "" {
			return level{}, sqlerr.New(sqlerr.ErrNoDB)
		}
		db = current
	}
	switch l.Level {
	case ast.GrantLevelGlobal:
		return level{all: allGlobal()}, nil
	case ast.GrantLevelDB:
		return level{db: db, all: union(mysql.AllDBPrivs)}, nil
	}
	return level{db: db, table: l.TableName, all: union(mysql.AllTablePrivs)}, nil
}

// wanted is the set a statement names.
func (l level) wanted(privs []*ast.PrivElem) (Set, error) {
	var s Set
	for _, p := range privs {
		switch {
		case len(p.Cols) > 0:
			return 0, sqlerr.New(sqlerr.ErrNotSupportedYet, "column privileges")
		case p.Priv == mysql.ExtendedPriv:
			return 0, sqlerr.New(sqlerr.ErrNotSupportedYet, "dynamic privileges")
		case p.Priv == mysql.AllPriv:
			s |= l.all
		case p.Priv == mysql.UsagePriv:
		case p.Priv&(l.all|mysql.GrantPriv) == 0:
			return 0, sqlerr.New(sqlerr.ErrWrongUsage, "DB GRANT", "GLOBAL PRIVILEGES")
		default:
			s |= p.Priv
		}
	}
	return s, nil
}

// get and set read and write the account's set at this level.
func (l level) get(a *Account) Set {
	switch {
	case l.table != "":
		return a.Tables[l.db+"\x00"+l.table]
	case l.db != "":
		return a.DBs[l.db]
	}
	return a.Global
}

func (l level) set(a *Account, s Set) {
	switch {
	case l.table != "":
		put(a.Tables, l.db+"\x00"+l.table, s)
	case l.db != "":
		put(a.DBs, l.db, s)
	default:
		a.Global = s
	}
}

func put(m map[string]Set, k string, s Set) {
	if s == 0 {
		delete(m, k)
		return
	}
	m[k] = s
}

func (m *Manager) grant(ctx context.Context, account, current string, n *ast.GrantStmt) error {
	l, err := levelOf(n.Level, current)
	if err != nil {
		return err
	}
	set, err := l.wanted(n.Privs)
	if err != nil {
		return err
	}
	if err := m.mayGrant(account, l, set); err != nil {
		return err
	}
	if n.WithGrant {
		set |= mysql.GrantPriv
	}
	return m.changeSets(ctx, l, n.Users, func(old Set) Set { return old | set })
}

func (m *Manager) revoke(ctx context.Context, account, current string, n *ast.RevokeStmt) error {
	l, err := levelOf(n.Level, current)
	if err != nil {
		return err
	}
	set, err := l.wanted(n.Privs)
	if err != nil {
		return err
	}
	if err := m.mayGrant(account, l, set); err != nil {
		return err
	}
	return m.changeSets(ctx, l, n.Users, func(old Set) Set { return old &^ set })
}

// mayGrant: an account may pass on what it holds itself, if it holds GRANT OPTION there.
func (m *Manager) mayGrant(account string, l level, set Set) error {
	a := m.now.Load().byID[account]
	user, host := split(account)
	switch {
	case a != nil && a.has(set|mysql.GrantPriv, l.db, l.table):
		return nil
	case l.table != "":
		return sqlerr.New(sqlerr.ErrTableaccessDenied, "GRANT", user, host, l.table)
	case l.db != "":
		return sqlerr.New(sqlerr.ErrDBaccessDenied, user, host, l.db)
	}
	return sqlerr.New(sqlerr.ErrAccessDenied, user, host, "YES")
}

func (m *Manager) changeSets(ctx context.Context, l level, users []*ast.UserSpec, change func(Set) Set) error {
	return m.update(ctx, func(list []*Account) ([]*Account, error) {
		for _, u := range users {
			i, a := find(list, u.User)
			if a == nil {
				return nil, sqlerr.New(sqlerr.ErrCantCreateUserWithGrant)
			}
			a = clone(a)
			l.set(a, change(l.get(a)))
			list[i] = a
		}
		return list, nil
	})
}

// ShowGrants lists the GRANT statements that would make the account of user,
// or of the session when user is nil: 1141 if it does not exist.
func (m *Manager) ShowGrants(account string, user *auth.UserIdentity) ([]string, error) {
	id := account
	if user != nil && !user.CurrentUser {
		id = user.Username + "@" + user.Hostname
		if id != account && m.mayManage(account) != nil {
			u, h := split(account)
			return nil, sqlerr.New(sqlerr.ErrDBaccessDenied, u, h, "mysql")
		}
	}
	a := m.now.Load().byID[id]
	if a == nil {
		u, h := split(id)
		return nil, sqlerr.New(sqlerr.ErrNonexistingGrant, u, h)
	}
	out := []string{grantText(a, level{all: allGlobal()}, "*.*", true)}
	for _, db := range slices.Sorted(maps.Keys(a.DBs)) {
		out = append(out, grantText(a, level{db: db, all: union(mysql.AllDBPrivs)}, "`"+db+"`.*", false))
	}
	for _, name := range slices.Sorted(maps.Keys(a.Tables)) {
		db, table, _ := strings.Cut(name, "\x00")
		l := level{db: db, table: table, all: union(mysql.AllTablePrivs)}
		out = append(out, grantText(a, l, "`"+db+"`.`"+table+"`", false))
	}
	return out, nil
}

func grantText(a *Account, l level, on string, usage bool) string {
	set := l.get(a)
	text := ""
	switch {
	case set&l.all == l.all:
		text = "ALL PRIVILEGES"
	case set&l.all == 0 && usage:
		text = "USAGE"
	default:
		var words []string
		for _, p := range mysql.AllGlobalPrivs {
			if set&p != 0 && p != mysql.GrantPriv {
				words = append(words, strings.ToUpper(mysql.Priv2Str[p]))
			}
		}
		text = strings.Join(words, ", ")
	}
	text = fmt.Sprintf("GRANT %s ON %s TO `%s`@`%s`", text, on, a.User, a.Host)
	if set&mysql.GrantPriv != 0 {
		text += " WITH GRANT OPTION"
	}
	return text
}

// CreateUserText is SHOW CREATE USER.
func (m *Manager) CreateUserText(account string, user *auth.UserIdentity) (string, error) {
	id := account
	if user != nil && !user.CurrentUser {
		id = user.Username + "@" + user.Hostname
	}
	if id != account {
		if err := m.mayManage(account); err != nil {
			return "", err
		}
	}
	a := m.now.Load().byID[id]
	if a == nil {
		return "", sqlerr.New(sqlerr.ErrCannotUser, "SHOW CREATE USER", "'"+strings.Replace(id, "@", "'@'", 1)+"'")
	}
	text := fmt.Sprintf("CREATE USER '%s'@'%s' IDENTIFIED WITH '%s'", a.User, a.Host, a.Plugin)
	if a.Hash != "" {
		text += " AS '" + strings.ReplaceAll(a.Hash, "'", "''") + "'"
	}
	lock := "UNLOCK"
	if a.Locked {
		lock = "LOCK"
	}
	return text + " REQUIRE NONE PASSWORD EXPIRE DEFAULT ACCOUNT " + lock, nil
}

// Held is one privilege an account holds; DB and Table are empty for wider levels.
type Held struct {
	Grantee, DB, Table, Privilege string
	Grantable                     bool
}

// List is what account may see of who holds what: everything for those who
// manage accounts, its own for others.
func (m *Manager) List(account string) []Held {
	var out []Held
	for _, a := range m.Accounts() {
		if a.ID() != account && m.mayManage(account) != nil {
			continue
		}
		out = a.held(out, level{all: allGlobal()})
		for _, db := range slices.Sorted(maps.Keys(a.DBs)) {
			out = a.held(out, level{db: db, all: union(mysql.AllDBPrivs)})
		}
		for _, name := range slices.Sorted(maps.Keys(a.Tables)) {
			db, table, _ := strings.Cut(name, "\x00")
			out = a.held(out, level{db: db, table: table, all: union(mysql.AllTablePrivs)})
		}
	}
	return out
}

// held appends what the account holds at one level.
func (a *Account) held(out []Held, l level) []Held {
	set := l.get(a)
	h := Held{Grantee: fmt.Sprintf("'%s'@'%s'", a.User, a.Host), DB: l.db, Table: l.table, Grantable: set&mysql.GrantPriv != 0}
	for _, p := range mysql.AllGlobalPrivs {
		if set&l.all&p != 0 {
			h.Privilege = strings.ToUpper(mysql.Priv2Str[p])
			out = append(out, h)
		}
	}
	if set&l.all == 0 && l.db == "" {
		h.Privilege = "USAGE"
		out = append(out, h)
	}
	return out
}
