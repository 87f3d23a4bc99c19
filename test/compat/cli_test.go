package compat

import (
	"context"
	"net"
	osexec "os/exec"
	"strings"
	"testing"
	"time"

	"github.com/cairndb/cairn/test/server"
)

// session is what a person types into the command-line client.
const session = `CREATE DATABASE shop;
USE shop;
CREATE TABLE customer (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(30) NOT NULL, email VARCHAR(50), UNIQUE KEY email_1 (email), KEY name_1 (name));
CREATE TABLE orders (id INT PRIMARY KEY, customer_id INT NOT NULL, amount DECIMAL(10,2), KEY customer_1 (customer_id));
INSERT INTO customer (name, email) VALUES ('Ada', 'ada@example.org'), ('Bob', NULL), ('Cyd', 'cyd@example.org');
INSERT INTO orders VALUES (1, 1, 10.50), (2, 1, 4.25), (3, 3, 7.00);
SELECT c.name, COUNT(o.id) AS n, SUM(o.amount) AS total FROM customer c LEFT JOIN orders o ON o.customer_id = c.id GROUP BY c.id, c.name ORDER BY c.id;
BEGIN;
UPDATE orders SET amount = amount + 1 WHERE customer_id = 1;
SELECT SUM(amount) AS inside FROM orders;
ROLLBACK;
SELECT SUM(amount) AS outside FROM orders;
INSERT INTO customer (name, email) VALUES ('Eve', 'ada@example.org');
SELECT * FROM nothing_here;
SELEC name FROM customer;
SHOW TABLES;
SHOW CREATE TABLE orders;
DESCRIBE customer;
UPDATE orders SET amount = 1 WHERE id < 3;
DELETE FROM orders WHERE id = 9;
\s
`

// wanted are texts of the answers, in order.
var wanted = []string{
	"Query OK, 3 rows affected",
	"Records: 3  Duplicates: 0  Warnings: 0",
	"| Ada  | 2 | 14.75 |",
	"| Bob  | 0 |  NULL |",
	"| Cyd  | 1 |  7.00 |",
	"3 rows in set",
	"Rows matched: 2  Changed: 2  Warnings: 0",
	"23.75", // inside
	"21.75", // after the rollback
	"| Tables_in_shop |",
	"CREATE TABLE `orders` (",
	"  KEY `customer_1` (`customer_id`)",
	"| email | varchar(50) | YES  | UNI ",
	"Query OK, 2 rows affected",
	"Query OK, 0 rows affected",
	"Server version:",
	"CairnDB",
	"Uptime:",
	"Threads:",
}

// complaints are the errors of the session, in order.
var complaints = []string{
	"ERROR 1062 (23000) at line 13: Duplicate entry 'ada@example.org' for key 'email_1'",
	"ERROR 1146 (42S02) at line 14: Table 'shop.nothing_here' doesn't exist",
	"ERROR 1064 (42000) at line 15: You have an error in your SQL syntax; check the manual that corresponds to your MySQL server version for the right syntax to use near 'SELEC name FROM customer' at line 1",
}

func TestMariaDBCommandLine(t *testing.T) {
	cli, err := osexec.LookPath("mariadb")
	if err != nil {
		t.Skip("the mariadb command line is not installed")
	}
	s := server.Start(t)
	host, port, err := net.SplitHostPort(s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	cmd := osexec.CommandContext(ctx, cli, "--no-defaults", "-h", host, "-P", port, "-uroot", "-vvv", "--force", "--table", "--unbuffered")
	cmd.Stdin = strings.NewReader(session)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run() // --force: errors do not end the session
	inOrder(t, out.String(), wanted)
	inOrder(t, errs.String(), complaints)
	if t.Failed() {
		t.Logf("the session:\n%s\n%s", out.String(), errs.String())
	}
}

// inOrder checks that each of wanted follows the one before in text.
func inOrder(t *testing.T, text string, wanted []string) {
	t.Helper()
	for _, w := range wanted {
		_, after, found := strings.Cut(text, w)
		if !found {
			t.Errorf("not in the answers, or not in order: %q", w)
			continue
		}
		text = after
	}
}
