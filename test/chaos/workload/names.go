package workload

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/go-sql-driver/mysql"
)

// Several clients want every name, written in one way or another that the collation calls the same: one gets it.
var nameSchema = []string{
	"CREATE TABLE chaos.names (id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, name VARCHAR(40) NOT NULL, client INT NOT NULL, UNIQUE KEY one (name))",
}

// errDuplicate is MySQL's number of the error.
const errDuplicate = 1062

// clientsPerName is how many try, about.
const clientsPerName = 3

// names are who wants which.
type names struct {
	mu    sync.Mutex
	tried int
	// by name and client
	claims map[string]map[int64]claim
}

// claim is what a client was told.
type claim struct {
	outcome outcome
	taken   bool // it was told that somebody else has the name
}

// once wants a name, or two in one transaction.
func (n *names) once(ctx context.Context, c *client) error {
	want := []string{n.draw()}
	if c.rng.IntN(4) == 0 {
		if other := n.draw(); other != want[0] {
			want = append(want, other)
		}
	}
	sent, err := true, error(nil)
	if len(want) == 1 {
		err = n.insert(ctx, c, want[0])
	} else {
		sent, err = n.both(ctx, c, want)
	}
	var answer *mysql.MySQLError
	mine := claim{outcome: outcomeOf(err), taken: len(want) == 1 && errors.As(err, &answer) && answer.Number == errDuplicate}
	if mine.outcome == unknown && !sent {
		mine.outcome = failed
	}
	n.mu.Lock()
	for _, name := range want {
		if n.claims == nil {
			n.claims = map[string]map[int64]claim{}
		}
		if n.claims[name] == nil {
			n.claims[name] = map[int64]claim{}
		}
		if had, ok := n.claims[name][int64(c.id)]; !ok || had.outcome == failed && mine.outcome != failed {
			n.claims[name][int64(c.id)] = mine
		}
	}
	n.mu.Unlock()
	if errors.As(err, &answer) && answer.Number == errDuplicate {
		return nil // it was served
	}
	return c.unlessLost(err)
}

func (n *names) draw() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.tried++
	return fmt.Sprintf("name %d", n.tried/clientsPerName)
}

func (n *names) insert(ctx context.Context, c *client, name string) error {
	if c.rng.IntN(2) == 0 {
		name = strings.ToUpper(name)
	}
	_, err := c.conn.exec(ctx, "INSERT INTO chaos.names (name, client) VALUES (?, ?)", name, c.id)
	return err
}

// both inserts several names or none; sent says that COMMIT was.
func (n *names) both(ctx context.Context, c *client, want []string) (sent bool, err error) {
	if _, err := c.conn.exec(ctx, "BEGIN"); err != nil {
		return false, c.rollback(ctx, err)
	}
	for _, name := range want {
		if err := n.insert(ctx, c, name); err != nil {
			return false, c.rollback(ctx, err)
		}
	}
	if _, err := c.conn.exec(ctx, "COMMIT"); err != nil {
		return true, c.rollback(ctx, err)
	}
	return true, nil
}

func (n *names) count(c *Counts) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, claims := range n.claims {
		for _, got := range claims {
			if !got.taken {
				c.note(got.outcome)
			}
		}
	}
}

func (n *names) check(ctx context.Context, l *Load) ([]string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	c := conn{user: l.o.User, addrs: l.o.Addrs}
	defer c.drop()
	owner := map[string]int64{}
	var wrong []string
	say := func(format string, args ...any) {
		if len(wrong) < shown {
			wrong = append(wrong, "names: "+fmt.Sprintf(format, args...))
		}
	}
	for _, index := range []string{"PRIMARY", "one"} {
		seen := map[string]int64{}
		err := c.texts(ctx, func(client int64, name string) {
			name = strings.ToLower(name)
			if other, ok := seen[name]; ok {
				say("%s is there twice, for clients %d and %d", name, other, client)
			}
			seen[name] = client
		}, "SELECT client, name FROM chaos.names FORCE INDEX ("+index+") WHERE name > ''")
		if err != nil {
			return nil, fmt.Errorf("read the names: %w", err)
		}
		if index == "PRIMARY" {
			owner = seen
			continue
		}
		for name, client := range owner {
			if other, ok := seen[name]; !ok || other != client {
				say("%s is of client %d by the row and of %d by the index", name, client, other)
			}
		}
		if len(seen) != len(owner) {
			say("there are %d rows and %d index entries", len(owner), len(seen))
		}
	}
	for name, claims := range n.claims {
		has, there := owner[name]
		for client, got := range claims {
			switch {
			case got.outcome == succeeded && (!there || has != client):
				say("%s was given to client %d; there: %t, of client %d", name, client, there, has)
			case got.outcome == failed && there && has == client:
				say("%s was refused to client %d, who has it", name, client)
			case got.taken && !there:
				say("%s was refused to client %d as taken, and nobody has it", name, client)
			}
		}
	}
	return wrong, nil
}
