package playground

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// node is one child process.
type node struct {
	Node // guarded by cluster.mu after the start
	args []string

	cmd    *exec.Cmd     // the present process; nil before the first
	exited chan struct{} // closed when it has ended and that was noted
}

// arguments is the command line of a node.
func (c *cluster) arguments(n *node) []string {
	args := []string{n.Role, "--listen", n.Addr, "--status", n.Status, "--data-dir", n.DataDir, "--log-file", n.Log}
	switch n.Role {
	case RolePD:
		args = append(args, "--name", n.Name)
		if len(c.role(RoleKV)) >= 3 { // of a new cluster: answer when there are three copies
			args = append(args, "--replicas", "3")
		}
		switch names, addrs := c.founders(); {
		case n.Joins:
			args = append(args, "--join", strings.Join(addrs, ","))
		case len(names) > 1:
			args = append(args, "--initial-cluster", strings.Join(names, ","))
		}
	case RoleKV, RoleSQL:
		args = append(args, "--pd", c.addrs(RolePD))
	}
	args = append(args, memoryFlags(n.Role, len(c.nodes), len(c.role(RoleKV)))...)
	return append(args, c.opts.Args[n.Role]...)
}

// founders are the members that the placement driver began with, as name=address
// and by address.
func (c *cluster) founders() (names, addrs []string) {
	for _, n := range c.role(RolePD) {
		if !n.Joins {
			names, addrs = append(names, n.Name+"="+n.Addr), append(addrs, n.Addr)
		}
	}
	return names, addrs
}

func (c *cluster) addrs(role string) string {
	var list []string
	for _, n := range c.role(role) {
		list = append(list, n.Addr)
	}
	return strings.Join(list, ",")
}

// errStopping: no process is started any more.
var errStopping = errors.New("the playground stops")

// spawn starts the process of a node.
func (c *cluster) spawn(n *node) error {
	log, err := os.OpenFile(n.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	defer log.Close() // the child has its own
	cmd := exec.Command(c.opts.Binary, n.args...)
	cmd.Stdout, cmd.Stderr = log, log
	// A process group of its own: Ctrl-C in the terminal reaches the playground
	// only, which stops its nodes in order. If the playground is killed, they die.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	fmt.Fprintf(log, "==== %s %s\n", time.Now().Format(time.RFC3339), strings.Join(cmd.Args, " "))
	exited := make(chan struct{})
	if err := c.launch(n, cmd, exited); err != nil {
		return fmt.Errorf("start %s: %w", n.Name, err)
	}
	c.work.Go(func() {
		_ = cmd.Wait()
		c.ended(n, cmd.ProcessState)
		close(exited)
	})
	return c.save()
}

// launch starts cmd as the process of n, unless stopping has begun: stop ends
// every process that it sees.
func (c *cluster) launch(n *node, cmd *exec.Cmd, exited chan struct{}) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopping {
		return errStopping
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	n.cmd, n.exited = cmd, exited
	n.PID, n.State, n.Started = cmd.Process.Pid, StateStarting, time.Now()
	return nil
}

// ended notes the end of a node's process.
func (c *cluster) ended(n *node, how *os.ProcessState) {
	c.mu.Lock()
	pid, lived, running, wanted := n.PID, time.Since(n.Started), c.running, c.stopping
	n.PID, n.State = 0, StateStopped
	switch {
	case n.drained():
		n.State = StateDrained
	case !wanted:
		n.State = StateDied
	}
	drained := n.State == StateDrained
	left := slices.ContainsFunc(c.nodes, func(n *node) bool { return n.PID != 0 })
	c.mu.Unlock()
	if err := c.save(); err != nil {
		c.printf("%v\n", err)
	}
	switch {
	case wanted || !running:
		return
	case drained:
		c.printf("\n%s was drained and has ended. The next start leaves it out.\n", n.Name)
		return
	}
	c.printf("\n%s (pid %d) ended after %s: %s. The end of %s:\n%s\n", n.Name, pid, seconds(lived), how, n.Log, indent(tail(n.Log, tailLines)))
	switch {
	case c.opts.Restart:
		c.work.Go(func() { c.revive(n) })
	case !left:
		close(c.empty)
	}
}

// drained reports whether the node's data was moved away for good.
func (n Node) drained() bool {
	_, err := os.Stat(filepath.Join(n.DataDir, "DRAINED"))
	return err == nil
}

// revive starts a node again that died, after a pause.
func (c *cluster) revive(n *node) {
	select {
	case <-time.After(restartPause):
	case <-c.ctx.Done():
		return
	}
	err := c.spawn(n)
	if err == nil {
		err = c.awaitReady(c.ctx, n)
	}
	if err != nil && c.ctx.Err() == nil {
		c.printf("%v\n", err)
	}
}

// awaitReady asks the node's status port until it says that it serves.
func (c *cluster) awaitReady(ctx context.Context, n *node) error {
	ctx, cancel := context.WithTimeout(ctx, c.opts.StartTimeout)
	defer cancel()
	began, exited := time.Now(), c.process(n)
	poll, still := time.NewTicker(20*time.Millisecond), time.NewTicker(stillEvery)
	defer poll.Stop()
	defer still.Stop()
	why := "it did not answer"
	for {
		if ok, text := healthy(ctx, n.Status); ok {
			break
		} else if text != "" {
			why = text
		}
		select {
		case <-poll.C:
		case <-still.C:
			c.printf("  %-6s still starting after %s: %s\n", n.Name, seconds(time.Since(began)), why)
		case <-exited:
			return fmt.Errorf("%s ended while starting. The end of %s:\n%s", n.Name, n.Log, indent(tail(n.Log, tailLines)))
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready after %s (%s). The end of %s:\n%s",
				n.Name, seconds(time.Since(began)), why, n.Log, indent(tail(n.Log, tailLines)))
		}
	}
	c.mu.Lock()
	n.State = StateReady
	pid := n.PID
	c.mu.Unlock()
	c.printf("  %-6s ready on %-21s after %s, pid %d\n", n.Name, n.Addr, seconds(time.Since(began)), pid)
	return c.save()
}

// healthy asks the status port once. The text is why not, when it said so.
func healthy(ctx context.Context, status string) (ok bool, why string) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+status+"/healthz", nil)
	if err != nil {
		return false, err.Error()
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false, ""
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	return resp.StatusCode == http.StatusOK, strings.TrimSpace(string(text))
}

// process is closed when the present process of n has ended; nil without one.
func (c *cluster) process(n *node) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return n.exited
}

// signal sends sig to the process of n, if it runs.
func (c *cluster) signal(n *node, sig os.Signal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n.PID != 0 {
		_ = n.cmd.Process.Signal(sig)
	}
}

// awaitEnd waits for the end of a node's process and kills it at the deadline.
func (c *cluster) awaitEnd(n *node, deadline <-chan struct{}) {
	exited := c.process(n)
	if exited == nil {
		return
	}
	select {
	case <-exited:
	case <-deadline:
		c.signal(n, os.Kill)
		<-exited
		c.printf("  %-6s killed: it had not ended after %s\n", n.Name, seconds(c.opts.StopTimeout))
	}
}

// tail is the last lines of a file.
func tail(path string, lines int) string {
	const window = 16 << 10
	f, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > window {
		_, _ = f.Seek(-window, io.SeekEnd)
	}
	data, err := io.ReadAll(f)
	if err != nil && !errors.Is(err, io.EOF) {
		return err.Error()
	}
	all := bytes.Split(bytes.TrimRight(data, "\n"), []byte("\n"))
	return string(bytes.Join(all[max(0, len(all)-lines):], []byte("\n")))
}

func indent(text string) string { return "    " + strings.ReplaceAll(text, "\n", "\n    ") }
