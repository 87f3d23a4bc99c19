package playground

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-sql-driver/mysql"
)

const (
	probes        = 4                      // clients of the demonstration, spread over the sql nodes
	probeEvery    = 5 * time.Millisecond   // pause between two writes of a client
	probeTimeout  = 20 * time.Second       // of one write
	beforeKill    = 3 * time.Second        // the clients write for this long before the kill
	recoverWithin = time.Minute            // longest the demonstration waits for answers
	calm          = 3 * time.Second        // and this long after the last client has been answered
	settleEvery   = 100 * time.Millisecond // how often that is looked at
)

// demonstrate kills a kv node under load and says how long clients waited.
func (c *cluster) demonstrate() {
	if !c.sleep(max(0, c.opts.KillAfter-beforeKill)) {
		return
	}
	ctx, cancel := context.WithCancel(c.ctx)
	load, err := c.load(ctx)
	if err != nil {
		cancel()
		c.printf("\nNo demonstration: %v\n", err)
		return
	}
	defer load.close()
	defer cancel()
	if !c.sleep(min(beforeKill, c.opts.KillAfter)) {
		return
	}
	victim, leaders := c.victim(ctx)
	if victim == nil {
		c.printf("\nNo kv node to kill.\n")
		return
	}
	killed := time.Now()
	c.printf("\n%s  kill -9 %s, which leads %s; %d clients are writing.\n", killed.Format("15:04:05"), victim.Name, counted(leaders, "region"), probes)
	c.signal(victim, os.Kill)
	if !load.settle(ctx, killed) {
		if ctx.Err() == nil {
			c.printf("After %s not all clients were answered again: %s\n", seconds(recoverWithin), load.lastError())
		}
		return
	}
	writes, failed, worst := load.report()
	c.printf("%s  All clients are answered again. The longest wait for an answer was %s; %d writes succeeded, %d failed and were repeated.\n",
		time.Now().Format("15:04:05"), seconds(worst), writes, failed)
	if !c.opts.Restart {
		c.printf("%s stays down; --restart would start it again.\n", victim.Name)
	}
}

// sleep returns false when the playground ends first.
func (c *cluster) sleep(d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-c.ctx.Done():
		return false
	}
}

// victim is the kv node to kill, and how many regions it leads.
func (c *cluster) victim(ctx context.Context) (*node, int) {
	var best *node
	most, seen := -1, 0
	for _, n := range c.role(RoleKV) {
		c.mu.Lock()
		ready, status := n.State == StateReady, n.Status
		c.mu.Unlock()
		if !ready {
			continue
		}
		leaders, err := metric(ctx, status, "cairn_store_leaders")
		if err != nil {
			continue
		}
		seen++
		if c.opts.KillRandom && rand.IntN(seen) == 0 || !c.opts.KillRandom && leaders > most {
			best, most = n, leaders
		}
	}
	return best, most
}

// metric reads one value without labels from a status port.
func metric(ctx context.Context, status, name string) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+status+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	for sc := bufio.NewScanner(resp.Body); sc.Scan(); {
		if value, ok := strings.CutPrefix(sc.Text(), name+" "); ok {
			v, err := strconv.ParseFloat(value, 64)
			return int(v), err
		}
	}
	return 0, fmt.Errorf("%s has no metric %s", status, name)
}

// counted is "1 region", "3 regions".
func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// load is a few clients that write, each its own row, one write after the other.
type load struct {
	dbs     []*sql.DB
	running sync.WaitGroup

	mu      sync.Mutex
	answers []time.Time // of each client, the last success
	worst   time.Duration
	writes  int
	failed  int
	err     error // the last failure
}

// load starts the clients.
func (c *cluster) load(ctx context.Context) (*load, error) {
	l := &load{answers: make([]time.Time, probes)}
	nodes := c.role(RoleSQL)
	for i := range probes {
		config := mysql.NewConfig()
		config.User, config.Net, config.Addr = "root", "tcp", nodes[i%len(nodes)].Addr
		config.Timeout, config.Logger = probeTimeout, &mysql.NopLogger{}
		connector, err := mysql.NewConnector(config)
		if err != nil {
			l.close()
			return nil, err
		}
		l.dbs = append(l.dbs, sql.OpenDB(connector))
	}
	for _, text := range []string{
		"CREATE DATABASE IF NOT EXISTS playground",
		"CREATE TABLE IF NOT EXISTS playground.beat (client INT PRIMARY KEY, n BIGINT NOT NULL)",
	} {
		if _, err := l.dbs[0].ExecContext(ctx, text); err != nil {
			l.close()
			return nil, fmt.Errorf("%s: %w", text, err)
		}
	}
	for i, db := range l.dbs {
		l.running.Go(func() { l.write(ctx, i, db) })
	}
	return l, nil
}

// write writes until ctx ends.
func (l *load) write(ctx context.Context, client int, db *sql.DB) {
	for ctx.Err() == nil {
		began := time.Now()
		for !l.once(ctx, client, db) && ctx.Err() == nil {
			pause(ctx, 10*probeEvery)
		}
		if ctx.Err() == nil {
			l.mu.Lock()
			l.answers[client] = time.Now()
			l.worst = max(l.worst, time.Since(began))
			l.writes++
			l.mu.Unlock()
		}
		pause(ctx, probeEvery)
	}
}

func (l *load) once(ctx context.Context, client int, db *sql.DB) bool {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	_, err := db.ExecContext(ctx, "INSERT INTO playground.beat VALUES (?, 1) ON DUPLICATE KEY UPDATE n = n + 1", client)
	if err == nil {
		return true
	}
	if !errors.Is(err, context.Canceled) {
		l.mu.Lock()
		l.failed, l.err = l.failed+1, err
		l.mu.Unlock()
	}
	return false
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// settle waits until every client has been answered after the kill, and then
// until a calm time has passed; false when that does not happen.
func (l *load) settle(ctx context.Context, killed time.Time) bool {
	ctx, cancel := context.WithTimeout(ctx, recoverWithin)
	defer cancel()
	for since := killed; time.Since(since) < calm || time.Since(killed) < calm; {
		if pause(ctx, settleEvery); ctx.Err() != nil {
			return false
		}
		l.mu.Lock()
		for _, at := range l.answers {
			if time.Since(at) > time.Second/2 {
				since = time.Now() // somebody waits
			}
		}
		l.mu.Unlock()
	}
	return true
}

func (l *load) report() (writes, failed int, worst time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.writes, l.failed, l.worst
}

func (l *load) lastError() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// close ends the clients; the context of load has ended.
func (l *load) close() {
	l.running.Wait()
	for _, db := range l.dbs {
		_ = db.Close()
	}
}
