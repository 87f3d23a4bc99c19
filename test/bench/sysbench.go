package main

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// database of the tables. bulk_insert has tables of its own, one per thread, of
// the same names: they get a database of theirs.
const (
	database     = "sbtest"
	bulkDatabase = "sbtest_bulk"
)

// result of one measurement. Rates are per second; latency is of a transaction.
type result struct {
	tps, qps    float64
	queries     float64
	p95         float64 // ms
	ignored     int     // conflicts that sysbench retried
	reconnects  int
	cpuPerQuery time.Duration
	flushes     float64 // per transaction; negative = not known
	txns        float64
	rss         int64
	err         error
}

// step is one measurement to make.
type step struct {
	workload string
	threads  int
	psMode   string
	randType string
}

func (s step) database() string {
	if s.workload == "bulk_insert" {
		return bulkDatabase
	}
	return database
}

// sysbench runs one verb of a script. It is given time beyond --time to begin
// and to end in.
func (c config) sysbench(ctx context.Context, addr string, s step, verb string) (string, error) {
	limit := time.Duration(c.seconds)*time.Second + 2*time.Minute
	if verb == "prepare" {
		limit += time.Duration(c.tables*c.tableSize/1000) * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", err
	}
	args := []string{s.workload, "--db-driver=mysql", "--mysql-host=" + host, "--mysql-port=" + port, "--mysql-user=root",
		"--mysql-db=" + s.database(), "--threads=" + strconv.Itoa(s.threads), "--time=" + strconv.Itoa(c.seconds),
		"--db-ps-mode=" + s.psMode, "--rand-type=" + s.randType}
	if s.workload != "bulk_insert" {
		args = append(args, "--tables="+strconv.Itoa(c.tables), "--table-size="+strconv.Itoa(c.tableSize))
	}
	out, err := exec.CommandContext(ctx, "sysbench", append(args, verb)...).CombinedOutput()
	text := string(out)
	if err != nil || strings.Contains(text, "FATAL") {
		return text, fmt.Errorf("sysbench %s %s with %d threads on %s: %v: %s", s.workload, verb, s.threads, addr, err, complaint(text))
	}
	return text, nil
}

// complaint is what sysbench says went wrong, in a few lines.
func complaint(out string) string {
	var lines []string
	for _, l := range strings.Split(out, "\n") {
		if strings.Contains(l, "FATAL") || strings.Contains(l, "ALERT") || strings.Contains(l, "rror") {
			if lines = append(lines, l); len(lines) == 3 {
				break
			}
		}
	}
	return strings.Join(lines, "; ")
}

// run measures one step on t, its threads spread over the addresses.
func (c config) run(ctx context.Context, t *target, s step) result {
	peak := t.peakRSS()
	before := t.usage()
	flushed, known := t.flushes(ctx)
	n := min(len(t.addrs), s.threads)
	parts := make([]result, n)
	var work sync.WaitGroup
	for i := range n {
		part := s
		part.threads = s.threads / n
		if i < s.threads%n {
			part.threads++
		}
		work.Go(func() { parts[i] = c.runPart(ctx, t.addrs[i], part) })
	}
	work.Wait()
	sum := join(parts)
	sum.rss, sum.flushes = peak(), -1
	if now, ok := t.flushes(ctx); ok && known && sum.txns > 0 {
		sum.flushes = (now - flushed) / sum.txns
	}
	if sum.queries > 0 {
		sum.cpuPerQuery = time.Duration(float64(t.usage().CPU-before.CPU) / sum.queries)
	}
	return sum
}

// join adds up what ran at the same time; of latencies the worst counts.
func join(parts []result) (sum result) {
	for _, p := range parts {
		sum.tps += p.tps
		sum.qps += p.qps
		sum.queries += p.queries
		sum.txns += p.txns
		sum.p95 = max(sum.p95, p.p95)
		sum.ignored += p.ignored
		sum.reconnects += p.reconnects
		if p.err != nil {
			sum.err = p.err
		}
	}
	return sum
}

func (c config) runPart(ctx context.Context, addr string, s step) result {
	out, err := c.sysbench(ctx, addr, s, "run")
	if err != nil {
		return result{err: err}
	}
	return parse(out)
}

var (
	reTPS        = regexp.MustCompile(`transactions:\s+(\d+)\s+\(([\d.]+) per sec`)
	reQueries    = regexp.MustCompile(`queries:\s+(\d+)\s+\(([\d.]+) per sec`)
	reIgnored    = regexp.MustCompile(`ignored errors:\s+(\d+)`)
	reReconnects = regexp.MustCompile(`reconnects:\s+(\d+)`)
	reP95        = regexp.MustCompile(`95th percentile:\s+([\d.]+)`)
)

// parse reads what `sysbench run` prints. bulk_insert counts rows as
// transactions.
func parse(out string) result {
	number := func(re *regexp.Regexp, group int) float64 {
		m := re.FindStringSubmatch(out)
		if m == nil {
			return 0
		}
		v, _ := strconv.ParseFloat(m[group], 64)
		return v
	}
	r := result{
		txns: number(reTPS, 1), tps: number(reTPS, 2), queries: number(reQueries, 1), qps: number(reQueries, 2), p95: number(reP95, 1),
		ignored: int(number(reIgnored, 1)), reconnects: int(number(reReconnects, 1)),
	}
	if r.queries == 0 && r.tps == 0 {
		r.err = fmt.Errorf("sysbench printed no figures: %.200s", out)
	}
	if r.reconnects > 0 {
		r.err = fmt.Errorf("sysbench had to reconnect %d times", r.reconnects)
	}
	return r
}
