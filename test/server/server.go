// Package server starts CairnDB as child processes, for tests and tools that
// look at it from outside. A server listens on free ports of 127.0.0.1, is
// ready when Launch returns, and dies with the process that started it.
package server

import (
	"bufio"
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	_ "github.com/go-sql-driver/mysql" // asks the first query
)

// pollEvery is how often a starting server is asked whether it is ready.
const pollEvery = 5 * time.Millisecond

// Options of a server.
type Options struct {
	Binary string   // the cairn binary
	Verb   string   // start, pd, kv or sql; "" = start
	Dir    string   // data directory; "" = none (sql)
	Listen string   // "" = a free port of 127.0.0.1
	Status string   // "" = a free port of 127.0.0.1
	Args   []string // further flags
	// Through is a command that starts the process; see Place.
	Through []string
	// User asks the first query, as name:password; "" = root, who has none.
	User string
	// Timeout bounds the start; 0 = 30 s.
	Timeout time.Duration
}

// Server is a running process.
type Server struct {
	Addr   string // where clients, or the other roles, connect
	Status string // address of /metrics and /healthz; of pd and kv only if it was given
	PID    int
	// Started is the time from exec to readiness; of a process that serves SQL,
	// to the first answered query.
	Started time.Duration

	user   string
	cmd    *exec.Cmd
	exited chan struct{}
	output output
}

// banner finds the addresses in what a starting process prints.
var (
	readyOn  = regexp.MustCompile(`ready on (\S+)\.\s`)
	mysqlAt  = regexp.MustCompile(`-h (\S+) -P (\d+)`)
	statusAt = regexp.MustCompile(`http://(\S+)/metrics`)
)

// Launch starts a process and waits until it is ready. When ctx ends, the
// process is killed.
func Launch(ctx context.Context, o Options) (*Server, error) {
	if o.Timeout == 0 {
		o.Timeout = 30 * time.Second
	}
	cmd := command(ctx, o)
	s := &Server{Status: o.Status, user: cmp.Or(o.User, "root"), cmd: cmd, exited: make(chan struct{})}
	s.output.changed = make(chan struct{}, 1)
	cmd.Stdout, cmd.Stderr = &s.output, &s.output
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", o.Binary, err)
	}
	s.PID = cmd.Process.Pid
	go func() {
		_ = cmd.Wait()
		close(s.exited)
	}()
	ready, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	if err := s.waitReady(ready, o.Verb); err != nil {
		s.Kill()
		return nil, fmt.Errorf("%s: %w; it printed:\n%s", strings.Join(cmd.Args, " "), err, s.Output())
	}
	s.Started = time.Since(begin)
	return s, nil
}

func command(ctx context.Context, o Options) *exec.Cmd {
	verb, listen := o.Verb, o.Listen
	if verb == "" {
		verb = "start"
	}
	if listen == "" {
		listen = "127.0.0.1:0"
	}
	status := o.Status
	if status == "" {
		status = "127.0.0.1:0"
	}
	args := []string{verb, "--listen", listen, "--status", status}
	if o.Dir != "" {
		args = append(args, "--data-dir", o.Dir)
	}
	if verb == "start" && !slices.Contains(o.Args, "--cluster-listen") {
		args = append(args, "--cluster-listen", "127.0.0.1:0")
	}
	line := slices.Concat(o.Through, []string{o.Binary}, args, o.Args)
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

func (s *Server) waitReady(ctx context.Context, verb string) error {
	find := s.findSQL
	if verb == "pd" || verb == "kv" {
		find = s.findRole
	}
	for !find() {
		select {
		case <-s.output.changed:
		case <-s.exited:
			return errors.New("it ended")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if s.Status != "" {
		if err := s.waitHealthy(ctx); err != nil {
			return err
		}
	}
	if verb == "pd" || verb == "kv" {
		return nil
	}
	return s.firstQuery(ctx)
}

func (s *Server) findRole() bool {
	m := readyOn.FindStringSubmatch(s.Output())
	if m == nil {
		return false
	}
	s.Addr = m[1]
	return true
}

func (s *Server) findSQL() bool {
	out := s.Output()
	if !strings.Contains(out, "Stop with") {
		return false
	}
	m := mysqlAt.FindStringSubmatch(out)
	if m == nil {
		return false
	}
	s.Addr = m[1] + ":" + m[2]
	if m := statusAt.FindStringSubmatch(out); m != nil {
		s.Status = m[1]
	}
	return true
}

// waitHealthy polls /healthz until it answers 200.
func (s *Server) waitHealthy(ctx context.Context) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	last := "it never answered"
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.Status+"/healthz", nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			body, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
			last = strings.TrimSpace(string(body))
		}
		select {
		case <-tick.C:
		case <-s.exited:
			return errors.New("it ended")
		case <-ctx.Done():
			return fmt.Errorf("not healthy: %s: %w", last, ctx.Err())
		}
	}
}

func (s *Server) firstQuery(ctx context.Context) error {
	db, err := sql.Open("mysql", s.DSN(""))
	if err != nil {
		return err
	}
	defer db.Close()
	var one int
	if err := db.QueryRowContext(ctx, "SELECT 1").Scan(&one); err != nil {
		return fmt.Errorf("first query: %w", err)
	}
	return nil
}

// DSN is the data source name of the user for go-sql-driver/mysql. rest is what
// follows the slash: a database and parameters, such as "db?parseTime=true".
func (s *Server) DSN(rest string) string { return s.user + "@tcp(" + s.Addr + ")/" + rest }

// Exited is closed when the process has ended.
func (s *Server) Exited() <-chan struct{} { return s.exited }

// Kill ends the process as kill -9 does and waits for its end.
func (s *Server) Kill() {
	_ = s.cmd.Process.Kill()
	<-s.exited
}

// Stop asks the process to end, waits for it, and reports how it ended. A
// process that does not end within ctx is killed.
func (s *Server) Stop(ctx context.Context) error {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.exited:
	case <-ctx.Done():
		s.Kill()
		return fmt.Errorf("killed, because it did not stop: %w", ctx.Err())
	}
	if !s.cmd.ProcessState.Success() {
		return fmt.Errorf("%s; it printed:\n%s", s.cmd.ProcessState, s.Output())
	}
	return nil
}

// Output is what the process has printed so far, the last megabyte of it.
func (s *Server) Output() string { return s.output.String() }

// Line returns the first line of the output that contains text, or "".
func (s *Server) Line(text string) string {
	for sc := bufio.NewScanner(strings.NewReader(s.Output())); sc.Scan(); {
		if strings.Contains(sc.Text(), text) {
			return sc.Text()
		}
	}
	return ""
}

// output collects what a process prints.
type output struct {
	mu      sync.Mutex
	buf     []byte        // guarded by mu
	changed chan struct{} // has room for one
}

const keepOutput = 1 << 20

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.buf = append(o.buf, p...)
	if extra := len(o.buf) - keepOutput; extra > 0 {
		o.buf = append(o.buf[:0], o.buf[extra:]...)
	}
	select {
	case o.changed <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.buf)
}
