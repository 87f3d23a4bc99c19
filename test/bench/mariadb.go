package main

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/go-sql-driver/mysql"
)

// startMariaDB makes a data directory and serves it, with every commit flushed.
func startMariaDB(ctx context.Context, dir string) (*target, error) {
	t := &target{name: "MariaDB"}
	_ = mysql.SetLogger(&mysql.NopLogger{}) // it is asked before it listens
	data := filepath.Join(dir, "data")
	if err := os.MkdirAll(data, 0o750); err != nil {
		return t, err
	}
	install := exec.CommandContext(ctx, "mariadb-install-db", "--no-defaults", "--datadir="+data,
		"--auth-root-authentication-method=normal", "--skip-test-db", "--user="+osUser())
	if out, err := install.CombinedOutput(); err != nil {
		return t, fmt.Errorf("mariadb-install-db: %w\n%s", err, out)
	}
	start := func() (time.Duration, error) { return t.startMariaDB(ctx, dir, data) }
	t.restart = func() (time.Duration, error) {
		t.stop()
		return start()
	}
	var err error
	t.started, err = start()
	return t, err
}

// osUser is the user the server runs as; it refuses to be root without being told.
func osUser() string {
	if os.Getuid() == 0 {
		return "root"
	}
	return os.Getenv("USER")
}

func (t *target) startMariaDB(ctx context.Context, dir, data string) (time.Duration, error) {
	port, err := freePort()
	if err != nil {
		return 0, err
	}
	cmd := exec.CommandContext(ctx, "mariadbd", "--no-defaults", "--datadir="+data, "--user="+osUser(),
		"--bind-address=127.0.0.1", "--port="+strconv.Itoa(port), "--socket="+filepath.Join(dir, "sock"),
		"--pid-file="+filepath.Join(dir, "pid"), "--tmpdir="+dir, "--skip-log-bin", "--skip-name-resolve",
		"--innodb-flush-log-at-trx-commit=1", "--innodb-buffer-pool-size=1G", "--innodb-log-file-size=512M",
		"--max-connections=500", "--max-prepared-stmt-count=100000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = io.Discard, &log
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	t.addrs, t.pids = []string{"127.0.0.1:" + strconv.Itoa(port)}, []int{cmd.Process.Pid}
	t.counters = append(t.counters, innodbFlushes(t.addrs[0]))
	t.stops = append(t.stops, func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-exited:
		case <-time.After(30 * time.Second):
			_ = cmd.Process.Kill()
			<-exited
		}
	})
	if err := waitAnswer(ctx, t.addrs[0], exited); err != nil {
		return 0, fmt.Errorf("mariadbd: %w\n%s", err, log.String())
	}
	return time.Since(begin), nil
}

// waitAnswer asks until a query is answered, for at most a minute.
func waitAnswer(ctx context.Context, addr string, exited <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	db, err := sql.Open("mysql", "root@tcp("+addr+")/")
	if err != nil {
		return err
	}
	defer db.Close()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		var one int
		if err = db.QueryRowContext(ctx, "SELECT 1").Scan(&one); err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-exited:
			return fmt.Errorf("it ended")
		case <-ctx.Done():
			return err
		}
	}
}

func freePort() (int, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port, nil
}
