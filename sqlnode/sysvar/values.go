package sysvar

import (
	"context"
	"maps"
	"strings"
	"sync"
)

// Storage persists global values, shared by all SQL nodes.
type Storage interface {
	LoadGlobals(ctx context.Context) (map[string]string, error)
	SaveGlobal(ctx context.Context, name, value string) error
}

// Globals holds the global values of one SQL node. It is safe for concurrent use.
type Globals struct {
	storage Storage
	fixed   map[string]string
	// changing orders Set and Reload, so that what was set is not taken back by
	// values read before. Taken before mu.
	changing sync.Mutex
	mu       struct {
		sync.RWMutex
		values map[string]string // only what differs from the default
	}
}

// NewGlobals loads the values set before; fixed gives the values of this
// process (port, version and the like), which are not persisted.
func NewGlobals(ctx context.Context, storage Storage, fixed map[string]string) (*Globals, error) {
	g := &Globals{storage: storage, fixed: fixed}
	return g, g.Reload(ctx)
}

// Reload reads the values that any SQL node has set. On an error the ones
// known stay in force.
func (g *Globals) Reload(ctx context.Context) error {
	g.changing.Lock()
	defer g.changing.Unlock()
	values := map[string]string{}
	if g.storage != nil {
		saved, err := g.storage.LoadGlobals(ctx)
		if err != nil {
			return err
		}
		for k, v := range saved {
			if _, known := Lookup(k); known {
				values[k] = v
			}
		}
	}
	maps.Copy(values, g.fixed)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mu.values = values
	return nil
}

// Get returns the global value of v.
func (g *Globals) Get(v *Var) string {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if val, ok := g.mu.values[v.Name]; ok {
		return val
	}
	return v.Default
}

// Set stores a normalised value and persists it.
func (g *Globals) Set(ctx context.Context, v *Var, value string) error {
	g.changing.Lock()
	defer g.changing.Unlock()
	if g.storage != nil {
		if err := g.storage.SaveGlobal(ctx, v.Name, value); err != nil {
			return err
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mu.values[v.Name] = value
	return nil
}

// Values are the variables of one session: a copy of the globals taken when it
// began, overlaid by what it set. Not safe for concurrent use.
type Values struct {
	globals *Globals
	own     map[string]string
}

// NewValues starts a session's variables. Globals changed later are not seen
// by variables that also have session scope.
func (g *Globals) NewValues() *Values {
	vs := &Values{globals: g, own: map[string]string{}}
	g.mu.RLock()
	defer g.mu.RUnlock()
	for name, val := range g.mu.values {
		if v, ok := Lookup(name); ok && v.Scope&Session != 0 {
			vs.own[name] = val
		}
	}
	return vs
}

// Get returns the value this session sees.
func (vs *Values) Get(v *Var) string {
	if v.Scope&Session == 0 {
		return vs.globals.Get(v)
	}
	if val, ok := vs.own[v.Name]; ok {
		return val
	}
	return v.Default
}

// Text is Get by name; unknown names are empty.
func (vs *Values) Text(name string) string {
	v, ok := Lookup(name)
	if !ok {
		return ""
	}
	return vs.Get(v)
}

// On reports whether a boolean variable is ON.
func (vs *Values) On(name string) bool { return strings.EqualFold(vs.Text(name), "ON") }

// Set stores a normalised session value.
func (vs *Values) Set(v *Var, value string) { vs.own[v.Name] = value }
