package workload

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/go-sql-driver/mysql"
)

// A queue of jobs. Each is taken once: whoever takes one passes over those that others have in hand.
var jobSchema = []string{
	"CREATE TABLE chaos.jobs (id BIGINT NOT NULL PRIMARY KEY, done BIGINT NOT NULL, KEY (done))",
	"CREATE TABLE chaos.runs (id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, job BIGINT NOT NULL, client BIGINT NOT NULL)",
}

const (
	jobsAtOnce = 20  // put into the queue in one statement
	jobsAhead  = 100 // about, in the queue
)

// jobs is the queue and who has taken what.
type jobs struct {
	skip string // FOR UPDATE SKIP LOCKED, if the server can

	mu      sync.Mutex
	last    int64
	waiting int // in the queue, about
	runs    map[int64]map[int64]outcome
}

func (j *jobs) open(ctx context.Context, db *sql.DB) error {
	j.runs = map[int64]map[int64]outcome{}
	j.skip = " FOR UPDATE SKIP LOCKED"
	_, err := db.ExecContext(ctx, "SELECT id, done FROM chaos.jobs WHERE done = 0 LIMIT 1"+j.skip)
	var answer *mysql.MySQLError
	if errors.As(err, &answer) {
		j.skip, err = " FOR UPDATE", nil
	}
	return err
}

// once fills the queue or takes a job.
func (j *jobs) once(ctx context.Context, c *client) error {
	j.mu.Lock()
	fill := j.waiting < jobsAhead
	if fill {
		j.waiting += jobsAtOnce
	}
	j.mu.Unlock()
	if fill {
		return c.unlessLost(j.fill(ctx, c))
	}
	job, sent, err := j.take(ctx, c)
	if job >= 0 {
		o := outcomeOf(err)
		if o == unknown && !sent {
			o = failed
		}
		j.mu.Lock()
		if j.runs[job] == nil {
			j.runs[job] = map[int64]outcome{}
		}
		if had, ok := j.runs[job][int64(c.id)]; !ok || had == failed {
			j.runs[job][int64(c.id)] = o
		}
		if o != failed {
			j.waiting--
		}
		j.mu.Unlock()
	}
	return c.unlessLost(err)
}

func (j *jobs) fill(ctx context.Context, c *client) error {
	j.mu.Lock()
	first := j.last + 1
	j.last += jobsAtOnce
	j.mu.Unlock()
	var rows []string
	for i := range int64(jobsAtOnce) {
		rows = append(rows, fmt.Sprintf("(%d, 0)", first+i))
	}
	_, err := c.conn.exec(ctx, "INSERT INTO chaos.jobs VALUES "+strings.Join(rows, ", "))
	return err
}

// take runs a job; sent says that COMMIT was. The job is -1 if there was none.
func (j *jobs) take(ctx context.Context, c *client) (job int64, sent bool, err error) {
	job = -1
	if _, err := c.conn.exec(ctx, "BEGIN"); err != nil {
		return job, false, c.rollback(ctx, err)
	}
	if err := c.conn.query(ctx, func(id, _ int64) { job = id }, "SELECT id, done FROM chaos.jobs WHERE done = 0 ORDER BY id LIMIT 1"+j.skip); err != nil {
		return job, false, c.rollback(ctx, err)
	}
	if job >= 0 {
		for _, text := range []string{
			fmt.Sprintf("UPDATE chaos.jobs SET done = 1 WHERE id = %d", job),
			fmt.Sprintf("INSERT INTO chaos.runs (job, client) VALUES (%d, %d)", job, c.id),
		} {
			if _, err := c.conn.exec(ctx, text); err != nil {
				return job, false, c.rollback(ctx, err)
			}
		}
	}
	if _, err := c.conn.exec(ctx, "COMMIT"); err != nil {
		return job, true, c.rollback(ctx, err)
	}
	return job, true, nil
}

func (j *jobs) count(c *Counts) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, by := range j.runs {
		for _, o := range by {
			c.note(o)
		}
	}
}

func (j *jobs) check(ctx context.Context, l *Load) ([]string, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	tx, err := snapshot(ctx, l.control)
	if err != nil {
		return nil, err
	}
	defer func() { _ = tx.Rollback() }()
	var wrong []string
	say := func(format string, args ...any) {
		if len(wrong) < shown {
			wrong = append(wrong, "jobs: "+fmt.Sprintf(format, args...))
		}
	}
	ran := map[int64]int64{}
	if err := readPairs(ctx, tx, func(job, client int64) {
		if other, ok := ran[job]; ok {
			say("job %d was run twice, by clients %d and %d", job, other, client)
		}
		ran[job] = client
	}, "SELECT job, client FROM chaos.runs"); err != nil {
		return nil, err
	}
	if err := readPairs(ctx, tx, func(job, done int64) {
		if _, ok := ran[job]; ok != (done == 1) {
			say("job %d is %d, and was run: %t", job, done, ok)
		}
	}, "SELECT id, done FROM chaos.jobs"); err != nil {
		return nil, err
	}
	for job, by := range j.runs {
		for client, o := range by {
			who, ok := ran[job]
			switch {
			case o == succeeded && (!ok || who != client):
				say("client %d has run job %d; there: %t, by client %d", client, job, ok, who)
			case o == failed && ok && who == client:
				say("client %d was told that it has not run job %d, which it has", client, job)
			}
		}
	}
	return wrong, nil
}
