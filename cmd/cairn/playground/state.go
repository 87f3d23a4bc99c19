package playground

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// StateFile is the name of the file that describes a playground, in its directory.
const StateFile = "playground.json"

// The states of a node.
const (
	StateStarting = "starting"
	StateReady    = "ready"
	StateDied     = "died"    // by itself, or killed by somebody else
	StateStopped  = "stopped" // with the playground
	StateDrained  = "drained" // its data is elsewhere; the next start leaves it out
)

// State is what playground.json says.
type State struct {
	PID   int    `json:"pid"` // of the playground; 0 when it does not run
	Dir   string `json:"dir"`
	Nodes []Node `json:"nodes"`
}

// Node is one process of a playground.
type Node struct {
	Name    string    `json:"name"` // such as kv-2
	Role    string    `json:"role"` // pd, kv or sql
	State   string    `json:"state"`
	PID     int       `json:"pid"`    // 0 when it does not run
	Addr    string    `json:"addr"`   // where clients, or the other roles, connect
	Status  string    `json:"status"` // address of /metrics and /healthz
	DataDir string    `json:"data_dir"`
	Log     string    `json:"log"`
	Started time.Time `json:"started"`
	// Joins: a pd that became a member later than the first ones.
	Joins bool `json:"joins,omitempty"`
}

// Role returns the nodes of a role.
func (s State) Role(role string) []Node {
	var list []Node
	for _, n := range s.Nodes {
		if n.Role == role {
			list = append(list, n)
		}
	}
	return list
}

// Node returns the node of this name, nil when there is none.
func (s State) Node(name string) *Node {
	for i := range s.Nodes {
		if s.Nodes[i].Name == name {
			return &s.Nodes[i]
		}
	}
	return nil
}

// Read reads the state of the playground in dir; os.ErrNotExist when there is none.
func Read(dir string) (State, error) {
	var s State
	data, err := os.ReadFile(filepath.Join(dir, StateFile))
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return s, fmt.Errorf("%s: %w", filepath.Join(dir, StateFile), err)
	}
	return s, nil
}

// save writes the state, in one step for those who read it.
func (c *cluster) save() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state.Nodes = c.state.Nodes[:0]
	for _, n := range c.nodes {
		c.state.Nodes = append(c.state.Nodes, n.Node)
	}
	data, err := json.MarshalIndent(c.state, "", "  ")
	if err != nil {
		return err
	}
	path := filepath.Join(c.opts.Dir, StateFile)
	if err := os.WriteFile(path+".new", append(data, '\n'), 0o640); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

const lockFile = "LOCK"

// acquire makes dir, refuses one that is not a playground's, and locks it until
// the file is closed or the process ends.
func acquire(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(dir, lockFile)); len(entries) > 0 && errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s is not empty and is not a playground; give another --dir", dir)
	}
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o640)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("a playground runs in %s already; see 'cairn playground ps'", dir)
	}
	return f, nil
}

// Running reports whether a playground runs in dir. What its file says may be
// left over from one that was killed.
func Running(dir string) bool {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil
}

// Stop asks the playground in dir to end and waits until it has, at most for timeout.
func Stop(dir string, timeout time.Duration) error {
	s, err := Read(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("there is no playground in %s", dir)
	case err != nil:
		return err
	case !Running(dir) || s.PID == 0:
		return fmt.Errorf("the playground in %s does not run", dir)
	}
	if err := syscall.Kill(s.PID, syscall.SIGTERM); err != nil {
		return fmt.Errorf("signal the playground, pid %d: %w", s.PID, err)
	}
	for end := time.Now().Add(timeout); Running(dir); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("the playground in %s, pid %d, has not ended after %s", dir, s.PID, seconds(timeout))
		}
	}
	return nil
}

// Root is the directory of the playgrounds that have a name instead of a
// directory of the user's choice.
func Root() string {
	if base := os.Getenv("XDG_DATA_HOME"); base != "" {
		return filepath.Join(base, "cairn", "playground")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return filepath.Join(os.TempDir(), "cairn-playground")
	}
	return filepath.Join(home, ".local", "share", "cairn", "playground")
}

// List returns the playgrounds below root, in the order of their names.
func List(root string) ([]State, error) {
	entries, err := os.ReadDir(root)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var list []State
	for _, e := range entries {
		s, err := Read(filepath.Join(root, e.Name()))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, nil
}
