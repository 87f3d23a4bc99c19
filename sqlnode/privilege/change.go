package privilege

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/pingcap/tidb/pkg/parser/ast"
	"github.com/pingcap/tidb/pkg/parser/auth"
	"github.com/pingcap/tidb/pkg/parser/mysql"

	"github.com/cairndb/cairn/internal/sqlerr"
)

// Password plugins accounts may use.
const (
	pluginNative = "mysql_native_password"
	pluginSHA2   = "caching_sha2_password"
)

// Execute carries out CREATE, ALTER, RENAME and DROP USER, SET PASSWORD, GRANT
// and REVOKE for the given account, which is user@host of the session.
// current is the database an unqualified GRANT is about. Other statements are
// error 1235.
func (m *Manager) Execute(ctx context.Context, account, current string, stmt ast.StmtNode) error {
	switch n := stmt.(type) {
	case *ast.CreateUserStmt:
		return m.createUser(ctx, account, n)
	case *ast.AlterUserStmt:
		return m.alterUser(ctx, account, n)
	case *ast.DropUserStmt:
		return m.dropUser(ctx, account, n)
	case *ast.RenameUserStmt:
		return m.renameUser(ctx, account, n)
	case *ast.SetPwdStmt:
		return m.setPassword(ctx, account, n)
	case *ast.GrantStmt:
		return m.grant(ctx, account, current, n)
	case *ast.RevokeStmt:
		return m.revoke(ctx, account, current, n)
	}
	return sqlerr.New(sqlerr.ErrNotSupportedYet, "this account statement")
}

func (m *Manager) mayManage(account string) error {
	a := m.now.Load().byID[account]
	if a != nil && a.Global&(mysql.CreateUserPriv|mysql.SuperPriv) != 0 {
		return nil
	}
	return sqlerr.New(sqlerr.ErrSpecificAccessDenied, "CREATE USER")
}

func find(list []*Account, u *auth.UserIdentity) (int, *Account) {
	for i, a := range list {
		if a.User == u.Username && a.Host == u.Hostname {
			return i, a
		}
	}
	return -1, nil
}

func quoted(users []string) string { return strings.Join(users, ",") }

func quote(u *auth.UserIdentity) string { return fmt.Sprintf("'%s'@'%s'", u.Username, u.Hostname) }

// clone copies a so that its maps may be changed.
func clone(a *Account) *Account {
	c := *a
	c.DBs, c.Tables = map[string]Set{}, map[string]Set{}
	for k, v := range a.DBs {
		c.DBs[k] = v
	}
	for k, v := range a.Tables {
		c.Tables[k] = v
	}
	return &c
}

// setAuth applies IDENTIFIED ...; nil leaves an account as it is.
func setAuth(a *Account, o *ast.AuthOption) error {
	if o == nil {
		return nil
	}
	if o.AuthPlugin != "" {
		a.Plugin = o.AuthPlugin
	}
	if a.Plugin != pluginNative && a.Plugin != pluginSHA2 {
		return sqlerr.New(sqlerr.ErrPluginIsNotLoaded, a.Plugin)
	}
	switch {
	case o.ByAuthString && o.AuthString == "":
		a.Hash = ""
	case o.ByAuthString && a.Plugin == pluginNative:
		a.Hash = auth.EncodePassword(o.AuthString)
	case o.ByAuthString:
		a.Hash = auth.NewHashPassword(o.AuthString, pluginSHA2)
	case o.ByHashString:
		if !validHash(a.Plugin, o.HashString) {
			return sqlerr.New(sqlerr.ErrPasswordFormat)
		}
		a.Hash = o.HashString
	default:
		a.Hash = ""
	}
	return nil
}

func validHash(plugin, hash string) bool {
	if hash == "" {
		return true
	}
	if plugin == pluginNative {
		return len(hash) == 41 && hash[0] == '*'
	}
	return strings.HasPrefix(hash, "$A$") && len(hash) == mysql.SHAPWDHashLen
}

// lockState reads ACCOUNT LOCK and UNLOCK; the other options are refused,
// because an account that looks protected and is not is worse than an error.
func lockState(opts []*ast.PasswordOrLockOption, tls []*ast.AuthTokenOrTLSOption) (lock *bool, err error) {
	for _, o := range opts {
		switch o.Type {
		case ast.Lock, ast.Unlock:
			v := o.Type == ast.Lock
			lock = &v
		case ast.PasswordExpireDefault, ast.PasswordExpireNever, ast.PasswordHistoryDefault, ast.PasswordReuseDefault, ast.PasswordRequireCurrentDefault:
		default:
			return nil, sqlerr.New(sqlerr.ErrNotSupportedYet, "password options")
		}
	}
	for _, o := range tls {
		if o.Type != ast.TlsNone {
			return nil, sqlerr.New(sqlerr.ErrNotSupportedYet, "REQUIRE")
		}
	}
	return lock, nil
}

func (m *Manager) createUser(ctx context.Context, account string, n *ast.CreateUserStmt) error {
	if n.IsCreateRole {
		return sqlerr.New(sqlerr.ErrNotSupportedYet, "roles")
	}
	if err := m.mayManage(account); err != nil {
		return err
	}
	lock, err := lockState(n.PasswordOrLockOptions, n.AuthTokenOrTLSOptions)
	if err != nil {
		return err
	}
	return m.update(ctx, func(list []*Account) ([]*Account, error) {
		var failed []string
		for _, spec := range n.Specs {
			if _, a := find(list, spec.User); a != nil {
				failed = append(failed, quote(spec.User))
				continue
			}
			a := &Account{User: spec.User.Username, Host: spec.User.Hostname, Plugin: pluginSHA2, Locked: lock != nil && *lock}
			if err := setAuth(a, spec.AuthOpt); err != nil {
				return nil, err
			}
			list = append(list, a)
		}
		if len(failed) > 0 && !n.IfNotExists {
			return nil, sqlerr.New(sqlerr.ErrCannotUser, "CREATE USER", quoted(failed))
		}
		return list, nil
	})
}

func (m *Manager) alterUser(ctx context.Context, account string, n *ast.AlterUserStmt) error {
	specs := n.Specs
	if n.CurrentAuth != nil { // ALTER USER USER() IDENTIFIED BY ...
		user, host := split(account)
		specs = []*ast.UserSpec{{User: &auth.UserIdentity{Username: user, Hostname: host}, AuthOpt: n.CurrentAuth}}
	} else if err := m.mayManage(account); err != nil {
		return err
	}
	lock, err := lockState(n.PasswordOrLockOptions, n.AuthTokenOrTLSOptions)
	if err != nil {
		return err
	}
	return m.update(ctx, func(list []*Account) ([]*Account, error) {
		var failed []string
		for _, spec := range specs {
			i, a := find(list, spec.User)
			if a == nil {
				failed = append(failed, quote(spec.User))
				continue
			}
			a = clone(a)
			if err := setAuth(a, spec.AuthOpt); err != nil {
				return nil, err
			}
			if lock != nil {
				a.Locked = *lock
			}
			list[i] = a
		}
		if len(failed) > 0 && !n.IfExists {
			return nil, sqlerr.New(sqlerr.ErrCannotUser, "ALTER USER", quoted(failed))
		}
		return list, nil
	})
}

func (m *Manager) dropUser(ctx context.Context, account string, n *ast.DropUserStmt) error {
	if err := m.mayManage(account); err != nil {
		return err
	}
	return m.update(ctx, func(list []*Account) ([]*Account, error) {
		var failed []string
		for _, u := range n.UserList {
			i, a := find(list, u)
			if a == nil {
				failed = append(failed, quote(u))
				continue
			}
			list = slices.Delete(list, i, i+1)
		}
		if len(failed) > 0 && !n.IfExists {
			return nil, sqlerr.New(sqlerr.ErrCannotUser, "DROP USER", quoted(failed))
		}
		return list, nil
	})
}

func (m *Manager) renameUser(ctx context.Context, account string, n *ast.RenameUserStmt) error {
	if err := m.mayManage(account); err != nil {
		return err
	}
	return m.update(ctx, func(list []*Account) ([]*Account, error) {
		for _, u := range n.UserToUsers {
			i, a := find(list, u.OldUser)
			if _, taken := find(list, u.NewUser); a == nil || taken != nil {
				return nil, sqlerr.New(sqlerr.ErrCannotUser, "RENAME USER", quote(u.OldUser))
			}
			a = clone(a)
			a.User, a.Host = u.NewUser.Username, u.NewUser.Hostname
			list[i] = a
		}
		return list, nil
	})
}

func (m *Manager) setPassword(ctx context.Context, account string, n *ast.SetPwdStmt) error {
	user, host := split(account)
	target := &auth.UserIdentity{Username: user, Hostname: host}
	if n.User != nil && !n.User.CurrentUser {
		target = n.User
		if err := m.mayManage(account); err != nil {
			return err
		}
	}
	return m.update(ctx, func(list []*Account) ([]*Account, error) {
		i, a := find(list, target)
		if a == nil {
			return nil, sqlerr.New(sqlerr.ErrPasswordNoMatch)
		}
		a = clone(a)
		err := setAuth(a, &ast.AuthOption{ByAuthString: true, AuthString: n.Password})
		list[i] = a
		return list, err
	})
}
