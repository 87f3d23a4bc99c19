package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cairndb/cairn/test/server"
)

// target is a database to measure: one or more addresses that serve it, and the
// processes it is made of.
type target struct {
	name    string
	addrs   []string
	pids    []int
	stops   []func()
	started time.Duration // to the first answered query; 0 = not started here
	restart func() (time.Duration, error)
	idleRSS int64
	// counters tell how often each process has flushed to disk.
	counters []func(context.Context) (float64, error)
}

// stop ends the processes, last started first.
func (t *target) stop() {
	for i := len(t.stops) - 1; i >= 0; i-- {
		t.stops[i]()
	}
	t.stops, t.counters = nil, nil
}

// usage is the sum over the processes. Processes that are not ours have none.
func (t *target) usage() (sum server.Usage) {
	for _, pid := range t.pids {
		if u, err := server.UsageOf(pid); err == nil {
			sum.CPU += u.CPU
			sum.RSS += u.RSS
		}
	}
	return sum
}

// peakRSS samples the resident memory until the function it returns is called,
// which answers the highest.
func (t *target) peakRSS() func() int64 {
	var peak int64
	done := make(chan struct{})
	var work sync.WaitGroup
	work.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			peak = max(peak, t.usage().RSS)
			select {
			case <-tick.C:
			case <-done:
				return
			}
		}
	})
	return func() int64 {
		close(done)
		work.Wait()
		return peak
	}
}

// startTargets starts what c asks for. Targets started before an error are
// returned with it.
func startTargets(ctx context.Context, c config, dir string) ([]*target, error) {
	cairn, err := startCairn(ctx, c, dir)
	if err != nil {
		return []*target{cairn}, err
	}
	targets := []*target{cairn}
	if !c.mariadb {
		return targets, nil
	}
	if _, err := exec.LookPath("mariadbd"); err != nil {
		fmt.Println("MariaDB is not installed: no ratios")
		return targets, nil
	}
	if c.galera {
		galera, err := startGalera(ctx, filepath.Join(dir, "galera"))
		return append(targets, galera), err
	}
	maria, err := startMariaDB(ctx, filepath.Join(dir, "mariadb"))
	return append(targets, maria), err
}

func startCairn(ctx context.Context, c config, dir string) (*target, error) {
	t := &target{name: "CairnDB"}
	if c.addr != "" {
		t.addrs = strings.Split(c.addr, ",")
		return t, nil
	}
	switch c.shape {
	case "roles":
		return t, startRoles(ctx, c, dir, t)
	case "joined":
		return t, startJoined(ctx, c, dir, t)
	case "split":
		return t, startSplit(ctx, c, dir, t)
	}
	o := server.Options{Binary: c.binary, Dir: filepath.Join(dir, "cairn")}
	s, err := t.launch(ctx, o)
	if err != nil {
		return t, err
	}
	t.addrs, t.started = []string{s.Addr}, s.Started
	t.restart = func() (time.Duration, error) {
		t.stop()
		s, err := t.launch(ctx, o)
		if err != nil {
			return 0, err
		}
		return s.Started, nil
	}
	return t, nil
}

// launch starts one process of t.
func (t *target) launch(ctx context.Context, o server.Options) (*server.Server, error) {
	stores := o.Verb == "" || o.Verb == "kv"
	if stores && o.Status == "" {
		port, err := freePort()
		if err != nil {
			return nil, err
		}
		o.Status = "127.0.0.1:" + strconv.Itoa(port)
	}
	s, err := server.Launch(ctx, o)
	if err != nil {
		return nil, err
	}
	if stores {
		t.counters = append(t.counters, cairnFlushes(s))
	}
	t.pids = append(t.pids, s.PID)
	t.stops = append(t.stops, func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := s.Stop(ctx); err != nil {
			fmt.Println("stop:", err)
		}
	})
	return s, nil
}

// replicated waits until every region has three replicas that are up to date.
func replicated(ctx context.Context, addr string) error {
	db, err := sql.Open("mysql", "root@tcp("+addr+")/")
	if err != nil {
		return err
	}
	defer db.Close()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		var lacking int
		err := db.QueryRowContext(ctx, "SELECT COUNT(*) FROM information_schema.cairn_regions WHERE peers NOT LIKE '%,%,%' OR pending_peers <> ''").Scan(&lacking)
		if err == nil && lacking == 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%d regions lack replicas: %w", lacking, errors.Join(err, ctx.Err()))
		}
	}
}

// startJoined starts three processes; the second and third join the first.
func startJoined(ctx context.Context, c config, dir string, t *target) error {
	port, err := freePort()
	if err != nil {
		return err
	}
	first := "127.0.0.1:" + strconv.Itoa(port)
	for i := range 3 {
		o := server.Options{Binary: c.binary, Dir: filepath.Join(dir, fmt.Sprintf("cairn%d", i+1))}
		if i == 0 {
			o.Args = []string{"--cluster-listen", first}
		} else {
			o.Args = []string{"--cluster-listen", "127.0.0.1:0", "--join", first}
		}
		s, err := t.launch(ctx, o)
		if err != nil {
			return err
		}
		t.addrs = append(t.addrs, s.Addr)
	}
	return replicated(ctx, t.addrs[0])
}

// startSplit starts a placement driver, three key-value nodes and a SQL node.
func startSplit(ctx context.Context, c config, dir string, t *target) error {
	pd, err := t.launch(ctx, server.Options{Binary: c.binary, Verb: "pd", Dir: filepath.Join(dir, "pd"), Args: []string{"--replicas", "3"}})
	if err != nil {
		return err
	}
	for i := range 3 {
		kv := server.Options{Binary: c.binary, Verb: "kv", Dir: filepath.Join(dir, fmt.Sprintf("kv%d", i+1)), Args: []string{"--pd", pd.Addr}}
		if _, err := t.launch(ctx, kv); err != nil {
			return err
		}
	}
	s, err := t.launch(ctx, server.Options{Binary: c.binary, Verb: "sql", Args: []string{"--pd", pd.Addr}})
	if err != nil {
		return err
	}
	t.addrs = []string{s.Addr}
	return replicated(ctx, s.Addr)
}

// startRoles starts a placement driver, a key-value node and two SQL nodes.
func startRoles(ctx context.Context, c config, dir string, t *target) error {
	pd, err := t.launch(ctx, server.Options{Binary: c.binary, Verb: "pd", Dir: filepath.Join(dir, "pd")})
	if err != nil {
		return err
	}
	kv := server.Options{Binary: c.binary, Verb: "kv", Dir: filepath.Join(dir, "kv"), Args: []string{"--pd", pd.Addr}}
	if _, err := t.launch(ctx, kv); err != nil {
		return err
	}
	for range 2 {
		s, err := t.launch(ctx, server.Options{Binary: c.binary, Verb: "sql", Args: []string{"--pd", pd.Addr}})
		if err != nil {
			return err
		}
		t.addrs = append(t.addrs, s.Addr)
		t.started = s.Started
	}
	return nil
}
