// Package privilege holds accounts and what they may do: who may log in, with
// which stored hash, and which privileges an account has globally, in a
// database or on a table.
//
// All accounts live in one key of the metadata (docs/formats/meta.md), changed
// in one transaction per statement, so that every SQL node sees a change whole.
// A Manager follows that key and answers checks from an immutable copy without
// locks. A change made on another node is seen within a second; sessions
// that are open are subject to it at their next statement.
//
// Only password hashes are kept. An account without a password may log in only
// from this machine.
//
// Source: MySQL 8.0 reference manual, "Access Control and Account Management".
package privilege

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pingcap/tidb/pkg/parser/mysql"

	"github.com/cairndb/cairn/internal/keys"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/kvnode/kvclient/txn"
)

// metaKey names the key of all accounts.
const metaKey = "accounts"

// pollEvery is how often changes made by other nodes are looked for.
const pollEvery = 500 * time.Millisecond

// Set is a set of privileges.
type Set = mysql.PrivilegeType

// Account is one user@host pattern. Immutable once published.
type Account struct {
	User   string
	Host   string // pattern with % and _
	Plugin string
	Hash   string // empty = no password
	Locked bool   `json:",omitempty"`
	Global Set
	// DBs and Tables are keyed by database name and by "db\x00table".
	DBs    map[string]Set `json:",omitempty"`
	Tables map[string]Set `json:",omitempty"`
}

// ID is user@host, as CURRENT_USER() shows it.
func (a *Account) ID() string { return a.User + "@" + a.Host }

// accounts is one version of all accounts.
type accounts struct {
	raw  []byte
	list []*Account // most specific host first
	byID map[string]*Account
}

// Store is what a Manager needs of the transaction client.
type Store interface {
	Begin(ctx context.Context, o txn.TxnOptions) (*txn.Txn, error)
	CurrentTS(ctx context.Context) (uint64, error)
}

// Manager answers who may do what. Safe for concurrent use.
type Manager struct {
	store  Store
	log    *slog.Logger
	now    atomic.Pointer[accounts]
	change sync.Mutex // one change at a time on this node
	stop   context.CancelFunc
	done   chan struct{}
}

// Open loads the accounts, making root@% without a password if there are none,
// and follows changes until Close.
func Open(ctx context.Context, store Store, log *slog.Logger) (*Manager, error) {
	m := &Manager{store: store, log: log, done: make(chan struct{})}
	if err := m.update(ctx, func(list []*Account) ([]*Account, error) {
		if len(list) > 0 {
			return list, nil
		}
		return []*Account{{User: "root", Host: "%", Plugin: pluginSHA2, Global: allGlobal() | mysql.GrantPriv}}, nil
	}); err != nil {
		return nil, fmt.Errorf("load accounts: %w", err)
	}
	follow, stop := context.WithCancel(context.Background())
	m.stop = stop
	go m.follow(follow)
	return m, nil
}

// Close stops following.
func (m *Manager) Close() {
	m.stop()
	<-m.done
}

func (m *Manager) follow(ctx context.Context) {
	defer close(m.done)
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := m.Reload(ctx); err != nil && ctx.Err() == nil {
			m.log.Warn("cannot read accounts; the ones known stay in force", "err", err)
		}
	}
}

// Reload reads the accounts now (FLUSH PRIVILEGES).
func (m *Manager) Reload(ctx context.Context) error {
	t, err := m.store.Begin(ctx, txn.TxnOptions{})
	if err != nil {
		return err
	}
	defer t.Rollback()
	raw, err := t.Get(ctx, keys.AppendMeta(nil, metaKey))
	if err != nil {
		return err
	}
	return m.publish(raw)
}

// publish makes raw the accounts in force.
func (m *Manager) publish(raw []byte) error {
	if cur := m.now.Load(); cur != nil && bytes.Equal(cur.raw, raw) {
		return nil
	}
	list, err := decode(raw)
	if err != nil {
		return err
	}
	a := &accounts{raw: bytes.Clone(raw), list: list, byID: map[string]*Account{}}
	for _, acc := range list {
		a.byID[acc.ID()] = acc
	}
	m.now.Store(a)
	return nil
}

func decode(raw []byte) ([]*Account, error) {
	var list []*Account
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &list); err != nil {
			return nil, fmt.Errorf("stored accounts: %w", err)
		}
	}
	slices.SortStableFunc(list, func(a, b *Account) int { return specificity(b.Host) - specificity(a.Host) })
	return list, nil
}

// specificity orders host patterns: a literal before one with wildcards, a
// later wildcard before an earlier one.
func specificity(host string) int {
	if i := strings.IndexAny(host, "%_"); i >= 0 {
		return i
	}
	return 1 << 20
}

// update changes the accounts in a transaction of its own, again after a
// conflict. change gets copies it may keep and alter.
func (m *Manager) update(ctx context.Context, change func([]*Account) ([]*Account, error)) error {
	m.change.Lock()
	defer m.change.Unlock()
	for {
		raw, err := m.tryUpdate(ctx, change)
		var conflict *txn.WriteConflictError
		if errors.As(err, &conflict) && ctx.Err() == nil {
			continue
		}
		if err != nil {
			return err
		}
		return m.publish(raw)
	}
}

func (m *Manager) tryUpdate(ctx context.Context, change func([]*Account) ([]*Account, error)) ([]byte, error) {
	t, err := m.store.Begin(ctx, txn.TxnOptions{})
	if err != nil {
		return nil, err
	}
	defer t.Rollback()
	key := keys.AppendMeta(nil, metaKey)
	raw, err := t.Get(ctx, key)
	if err != nil && !errors.Is(err, txn.ErrNotFound) {
		return nil, err
	}
	list, err := decode(raw)
	if err != nil {
		return nil, err
	}
	if list, err = change(list); err != nil {
		return nil, err
	}
	next, err := json.Marshal(list)
	if err != nil || bytes.Equal(next, raw) {
		return next, err
	}
	if err := t.Set(key, next); err != nil {
		return nil, err
	}
	_, err = t.Commit(ctx)
	return next, err
}

// Match finds the account a user from host logs in as; nil if there is none.
func (m *Manager) Match(user, host string) *Account {
	for _, a := range m.now.Load().list {
		if a.User == user && hostMatches(a.Host, host) {
			return a
		}
	}
	return nil
}

// PasswordlessDenied says whether a must be refused because it has no password
// and the client is not on this machine.
func (a *Account) PasswordlessDenied(host string) bool {
	return a.Hash == "" && !isLocal(host)
}

func isLocal(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || (ip != nil && ip.IsLoopback())
}

// hostMatches matches a host against a pattern; localhost stands for loopback.
func hostMatches(pattern, host string) bool {
	if strings.EqualFold(pattern, "localhost") && isLocal(host) {
		return true
	}
	return like(strings.ToLower(pattern), strings.ToLower(host))
}

// like matches % and _; there is no escape in host patterns.
func like(pattern, s string) bool { return match(pattern, s, false) }

// match is like, optionally with a backslash that takes the meaning from the
// character after it, as in the database names of GRANT.
func match(pattern, s string, escapes bool) bool {
	for pattern != "" {
		c := pattern[0]
		switch {
		case c == '%':
			pattern = strings.TrimLeft(pattern, "%")
			if pattern == "" {
				return true
			}
			for i := 0; i <= len(s); i++ {
				if match(pattern, s[i:], escapes) {
					return true
				}
			}
			return false
		case c == '\\' && escapes && len(pattern) > 1:
			pattern = pattern[1:]
			if s == "" || s[0] != pattern[0] {
				return false
			}
		case s == "" || c != '_' && c != s[0]:
			return false
		}
		pattern, s = pattern[1:], s[1:]
	}
	return s == ""
}

// has reports whether the account holds p on the table, by any level.
func (a *Account) has(p Set, db, table string) bool {
	if a.Global&p == p {
		return true
	}
	if a.dbSet(db)&p == p {
		return true
	}
	return table != "" && a.Tables[db+"\x00"+table]&p == p
}

// dbSet is what the account holds on a database, by name or pattern.
func (a *Account) dbSet(db string) Set {
	var set Set
	if !strings.ContainsAny(db, "%_") { // otherwise the name is a pattern here
		set = a.DBs[db]
	}
	for pattern, s := range a.DBs {
		if strings.ContainsAny(pattern, "%_") && match(pattern, db, true) {
			set |= s
		}
	}
	return set
}

// byWord are the privileges statements ask for.
var byWord = map[string]Set{
	"SELECT": mysql.SelectPriv, "INSERT": mysql.InsertPriv, "UPDATE": mysql.UpdatePriv, "DELETE": mysql.DeletePriv,
	"CREATE": mysql.CreatePriv, "DROP": mysql.DropPriv, "ALTER": mysql.AlterPriv, "INDEX": mysql.IndexPriv,
	"LOCK TABLES": mysql.LockTablesPriv,
}

// Check says whether account may do priv (SELECT, INSERT, CREATE, ...) on a
// table, or, with table empty, on a database. The answer no is error 1142 or
// 1044. A word that is not in byWord is never allowed.
func (m *Manager) Check(account, priv, db, table string) error {
	a := m.now.Load().byID[account]
	need, known := byWord[priv]
	if a != nil && known && a.has(need, db, table) {
		return nil
	}
	if isSystem(db) && priv == "SELECT" && a != nil && !strings.EqualFold(db, "mysql") {
		return nil
	}
	user, host := split(account)
	if table == "" {
		return sqlerr.New(sqlerr.ErrDBaccessDenied, user, host, db)
	}
	return sqlerr.New(sqlerr.ErrTableaccessDenied, priv, user, host, table)
}

func isSystem(db string) bool {
	return strings.EqualFold(db, "information_schema") || strings.EqualFold(db, "performance_schema") || strings.EqualFold(db, "mysql")
}

// CheckDatabase says whether account holds anything at all in db: 1044 if not.
func (m *Manager) CheckDatabase(account, db string) error {
	if m.Visible(account, db, "") {
		return nil
	}
	user, host := split(account)
	return sqlerr.New(sqlerr.ErrDBaccessDenied, user, host, db)
}

// Visible says whether account may know of a database or table: it holds some
// privilege there.
func (m *Manager) Visible(account, db, table string) bool {
	a := m.now.Load().byID[account]
	if a == nil {
		return false
	}
	const data = ^(mysql.GrantPriv | mysql.UsagePriv)
	if a.Global&data != 0 || a.dbSet(db)&data != 0 || (isSystem(db) && !strings.EqualFold(db, "mysql")) {
		return true
	}
	for name, set := range a.Tables {
		d, t, _ := strings.Cut(name, "\x00")
		if set&data != 0 && d == db && (table == "" || t == table) {
			return true
		}
	}
	return false
}

// CheckAdmin says whether account may administer: 1227 with the privilege
// named if not.
func (m *Manager) CheckAdmin(account, named string) error {
	if a := m.now.Load().byID[account]; a != nil && a.Global&mysql.SuperPriv != 0 {
		return nil
	}
	return sqlerr.New(sqlerr.ErrSpecificAccessDenied, named)
}

// HasGlobal says whether account holds p globally.
func (m *Manager) HasGlobal(account string, p Set) bool {
	a := m.now.Load().byID[account]
	return a != nil && a.Global&p == p
}

// Accounts lists all accounts by user and host. The caller must not change them.
func (m *Manager) Accounts() []*Account {
	list := slices.Clone(m.now.Load().list)
	slices.SortFunc(list, func(a, b *Account) int { return strings.Compare(a.ID(), b.ID()) })
	return list
}

func split(account string) (user, host string) {
	i := strings.LastIndexByte(account, '@')
	if i < 0 {
		return account, "%"
	}
	return account[:i], account[i+1:]
}
