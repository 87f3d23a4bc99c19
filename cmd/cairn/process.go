package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/cairndb/cairn/cmd/cairn/quantity"
	"github.com/cairndb/cairn/pd/pdclient"
)

// defaultStopTimeout is well below the 30 s that service managers grant before they kill.
const defaultStopTimeout = quantity.Duration(10 * time.Second)

// process is what every verb that serves shares: log, metrics, status port,
// pid file, and the parts to close, last opened first.
type process struct {
	log        *slog.Logger
	registry   *prometheus.Registry
	started    time.Time
	statusAddr string
	// cluster is the address by which other processes reach this one, "" of a
	// single role; clusterMoved says that it is not the usual one.
	cluster      string
	clusterMoved bool
	ready        func(context.Context) error // nil until the process serves
	readyMu      sync.Mutex
	open         bool // ready may be asked

	drainers []drainer
	closers  []closer
	fail     context.CancelCauseFunc
	ctx      context.Context // lifetime: until closing begins
	work     sync.WaitGroup
}

type drainer struct {
	name  string
	drain func(context.Context) error
}

type closer struct {
	name  string
	close func() error
}

// runProcess sets the process up, calls start, serves until ctx ends or a part
// fails, hands over what it can if it was SIGTERM, and closes everything.
func runProcess(ctx context.Context, c *config, verb string, start func(context.Context, *process) error) (err error) {
	p := &process{started: time.Now(), registry: prometheus.NewRegistry()}
	p.ctx, p.fail = context.WithCancelCause(context.WithoutCancel(ctx)) // parts serve while they drain
	defer p.fail(nil)
	p.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if err := p.openLog(c); err != nil {
		return err
	}
	p.limitMemory(c)
	defer func() {
		p.fail(nil)
		if cerr := p.closeAll(); err == nil {
			err = cerr
		}
	}()
	if err := p.writePID(c.PIDFile); err != nil {
		return err
	}
	if err := p.serveStatus(c); err != nil {
		return err
	}
	if err := p.start(ctx, start); err != nil {
		if ctx.Err() != nil {
			return nil // stopped by wish
		}
		return explain(err, c)
	}
	p.setOpen(true)
	select {
	case <-ctx.Done():
	case <-p.ctx.Done():
		if cause := context.Cause(p.ctx); !errors.Is(cause, errDrained) {
			return cause
		}
		fmt.Fprintf(os.Stderr, "cairn: %v; %s can be deleted\n", errDrained, c.DataDir)
		return nil
	}
	p.log.Info("stopping", "verb", verb, "cause", context.Cause(ctx))
	p.setOpen(false)
	if errors.Is(context.Cause(ctx), errTerminated) {
		p.drain(time.Duration(c.StopTimeout))
	}
	return nil
}

// start calls f with a context that lives as long as the process, and ends
// early if the process is to stop before f returns.
func (p *process) start(ctx context.Context, f func(context.Context, *process) error) error {
	starting, cancel := context.WithCancelCause(p.ctx)
	defer context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })()
	return f(starting, p)
}

// interruptible returns what f returns, or, when ctx ends first, its cause. Then
// f goes on until the process ends, which is soon: it is for what opens a part and
// waits for other processes.
func interruptible[T any](ctx context.Context, f func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		value, err := f()
		done <- result{value, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		var zero T
		return zero, context.Cause(ctx)
	}
}

func (p *process) setOpen(open bool) {
	p.readyMu.Lock()
	defer p.readyMu.Unlock()
	p.open = open
}

// onDrain registers what can be handed over before the process ends.
func (p *process) onDrain(name string, f func(context.Context) error) {
	p.drainers = append(p.drainers, drainer{name, f})
}

// drain hands over, last registered first, for at most timeout. A further
// signal cuts it short.
func (p *process) drain(timeout time.Duration) {
	ctx, stop := signal.NotifyContext(p.ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for _, d := range slices.Backward(p.drainers) {
		began := time.Now()
		if err := d.drain(ctx); err != nil {
			p.log.Warn("not everything was handed over", "part", d.name, "err", err)
			continue
		}
		p.log.Info("handed over", "part", d.name, "took", time.Since(began))
	}
}

func (p *process) openLog(c *config) error {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.LogLevel)); err != nil {
		return fmt.Errorf("--log-level %q is not one of debug, info, warn, error", c.LogLevel)
	}
	out := os.Stderr
	if c.LogFile != "" {
		f, err := os.OpenFile(c.LogFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
		if err != nil {
			return fmt.Errorf("open log file: %w", err)
		}
		out = f
		p.onClose("log file", f.Close)
	} else if level == slog.LevelInfo {
		level = slog.LevelWarn // a terminal gets the banner and what needs attention
	}
	p.log = slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: level, ReplaceAttr: oneLine}))
	return nil
}

// oneLine logs the text of an error only: those of the storage engine print their stacks with it
// otherwise.
func oneLine(_ []string, a slog.Attr) slog.Attr {
	if err, ok := a.Value.Any().(error); ok {
		a.Value = slog.StringValue(err.Error())
	}
	return a
}

func (p *process) writePID(path string) error {
	if path == "" {
		return nil
	}
	if err := os.WriteFile(path, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o644); err != nil {
		return fmt.Errorf("write pid file: %w", err)
	}
	p.onClose("pid file", func() error { return os.Remove(path) })
	return nil
}

// minFree is the space a data directory needs to start, in bytes: logs are
// preallocated, and a disk that fills up stops the process.
const minFree = 256 << 20

// claimDirectory makes dir and refuses one that belongs to something else, or
// whose disk is full.
func (p *process) claimDirectory(dir, verb string) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err == nil && fs.Bavail*uint64(fs.Bsize) < minFree {
		return fmt.Errorf("the disk of %s has %d MiB left and %d are needed; free space or give another --data-dir",
			dir, fs.Bavail*uint64(fs.Bsize)>>20, minFree>>20)
	}
	marker := filepath.Join(dir, "CAIRN")
	want := "cairn " + verb + "\n"
	got, err := os.ReadFile(marker)
	switch {
	case err == nil && string(got) == want:
		return nil
	case err == nil:
		return fmt.Errorf("%s holds the data of '%s'; give this process another --data-dir", dir, strings.TrimSpace(string(got)))
	case !errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("data directory: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	if len(entries) > 0 {
		return fmt.Errorf("%s is not empty and was not made by cairn; give an empty --data-dir", dir)
	}
	return os.WriteFile(marker, []byte(want), 0o640)
}

// explain adds what to do to errors whose text does not say it.
func explain(err error, c *config) error {
	switch {
	case errors.Is(err, pdclient.ErrStoreTombstone):
		return fmt.Errorf("%w; the store of this node was drained and removed from the cluster: delete %s, and the node joins as a new store", err, c.DataDir)
	case errors.Is(err, syscall.ENOSPC):
		return fmt.Errorf("%w; the disk of %s is full: free space or move the data directory, then start again", err, c.DataDir)
	case len(c.Join) > 0 && errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w\nNobody at %s could take this process in; --join wants the address that a running process shows as its cluster address",
			err, strings.Join(c.Join, ", "))
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return fmt.Errorf("%w; check the owner and mode of %s", err, c.DataDir)
	}
	return err
}

// onClose registers something to close when the process ends.
func (p *process) onClose(name string, f func() error) {
	p.closers = append(p.closers, closer{name, f})
}

// serve runs f in a goroutine; an error of it ends the process.
func (p *process) serve(name string, f func(context.Context) error) {
	p.work.Go(func() {
		if err := f(p.ctx); err != nil && p.ctx.Err() == nil {
			p.fail(fmt.Errorf("%s: %w", name, err))
		}
	})
}

func (p *process) closeAll() error {
	var first error
	for i := len(p.closers) - 1; i >= 0; i-- {
		if err := p.closers[i].close(); err != nil && first == nil {
			first = fmt.Errorf("close %s: %w", p.closers[i].name, err)
		}
	}
	p.work.Wait()
	return first
}

// serveStatus opens the status port.
func (p *process) serveStatus(c *config) error {
	if c.Status == "" {
		return nil
	}
	if err := c.checkListen("status", c.Status, false); err != nil {
		return err
	}
	ln, err := net.Listen("tcp", c.Status)
	if err != nil {
		return fmt.Errorf("cannot listen on %s: %w; choose another --status, or '' for none", c.Status, err)
	}
	p.statusAddr = ln.Addr().String()
	srv := &http.Server{Handler: p.statusHandler(), ReadHeaderTimeout: 5 * time.Second}
	p.work.Go(func() { _ = srv.Serve(ln) })
	p.onClose("status port", srv.Close)
	return nil
}

func (p *process) statusHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(p.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", p.healthz)
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}

// healthz answers 200 only when a query would be answered.
func (p *process) healthz(w http.ResponseWriter, r *http.Request) {
	p.readyMu.Lock()
	open := p.open
	p.readyMu.Unlock()
	if !open {
		http.Error(w, "starting or stopping", http.StatusServiceUnavailable)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
	defer cancel()
	if err := p.ready(ctx); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}

func splitAddr(addr string) (host, port string) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr, ""
	}
	return host, port
}
