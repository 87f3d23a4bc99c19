package main

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// galeraLibrary is where Debian puts it.
const galeraLibrary = "/usr/lib/galera/libgalera_smm.so"

// startGalera starts three nodes of MariaDB with synchronous replication, each
// flushing every commit.
func startGalera(ctx context.Context, dir string) (*target, error) {
	t := &target{name: "Galera"}
	if _, err := os.Stat(galeraLibrary); err != nil {
		return t, fmt.Errorf("Galera is not installed (Debian: apt install galera-4 rsync): %w", err)
	}
	var ports [3]int
	for i := range ports {
		var err error
		if ports[i], err = freePort(); err != nil {
			return t, err
		}
	}
	for i := range ports {
		if err := t.startGaleraNode(ctx, filepath.Join(dir, strconv.Itoa(i+1)), ports[:], i); err != nil {
			return t, err
		}
	}
	return t, galeraSize(ctx, t.addrs[0], len(ports))
}

func (t *target) startGaleraNode(ctx context.Context, dir string, ports []int, i int) error {
	data := filepath.Join(dir, "data")
	if err := os.MkdirAll(data, 0o750); err != nil {
		return err
	}
	// rsync, which brings the state to the others, gives up being root.
	for _, d := range []string{filepath.Dir(filepath.Dir(dir)), filepath.Dir(dir), dir, data} {
		if err := os.Chmod(d, 0o777); err != nil {
			return err
		}
	}
	if i == 0 { // the others get their data from it
		install := exec.CommandContext(ctx, "mariadb-install-db", "--no-defaults", "--datadir="+data,
			"--auth-root-authentication-method=normal", "--skip-test-db", "--user="+osUser())
		if out, err := install.CombinedOutput(); err != nil {
			return fmt.Errorf("mariadb-install-db: %w\n%s", err, out)
		}
	}
	members := make([]string, 0, len(ports))
	for _, p := range ports[:i] {
		members = append(members, "127.0.0.1:"+strconv.Itoa(p))
	}
	sqlPort, err := freePort()
	if err != nil {
		return err
	}
	istPort, err := freePort()
	if err != nil {
		return err
	}
	sstPort, err := freePort()
	if err != nil {
		return err
	}
	args := []string{"--no-defaults", "--datadir=" + data, "--user=" + osUser(),
		"--bind-address=127.0.0.1", "--port=" + strconv.Itoa(sqlPort), "--socket=" + filepath.Join(dir, "sock"),
		"--pid-file=" + filepath.Join(dir, "pid"), "--tmpdir=" + dir, "--skip-name-resolve",
		"--innodb-flush-log-at-trx-commit=1", "--innodb-buffer-pool-size=512M", "--innodb-log-file-size=512M",
		"--max-connections=500", "--max-prepared-stmt-count=100000", "--binlog-format=ROW", "--innodb-autoinc-lock-mode=2",
		"--wsrep-on=ON", "--wsrep-provider=" + galeraLibrary, "--wsrep-cluster-name=bench", "--wsrep-slave-threads=4",
		"--wsrep-cluster-address=gcomm://" + strings.Join(members, ","), "--wsrep-node-address=127.0.0.1",
		"--wsrep-node-name=n" + strconv.Itoa(i+1), "--wsrep-sst-method=rsync", "--wsrep-sst-receive-address=127.0.0.1:" + strconv.Itoa(sstPort),
		fmt.Sprintf("--wsrep-provider-options=gmcast.listen_addr=tcp://127.0.0.1:%d;ist.recv_addr=127.0.0.1:%d;base_port=%d", ports[i], istPort, ports[i])}
	if i == 0 {
		args = append(args, "--wsrep-new-cluster")
	}
	cmd := exec.CommandContext(ctx, "mariadbd", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = io.Discard, &log
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	addr := "127.0.0.1:" + strconv.Itoa(sqlPort)
	t.addrs, t.pids = append(t.addrs, addr), append(t.pids, cmd.Process.Pid)
	t.counters = append(t.counters, innodbFlushes(addr))
	t.stops = append(t.stops, func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-exited:
		case <-time.After(30 * time.Second):
			_ = cmd.Process.Kill()
			<-exited
		}
	})
	if err := waitAnswer(ctx, addr, exited); err != nil {
		return fmt.Errorf("mariadbd with Galera: %w\n%s", err, log.String())
	}
	return nil
}

// galeraSize waits until the cluster has n nodes that are ready.
func galeraSize(ctx context.Context, addr string, n int) error {
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
		var name string
		var size int
		if err = db.QueryRowContext(ctx, "SHOW STATUS LIKE 'wsrep_cluster_size'").Scan(&name, &size); err == nil && size == n {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("Galera has %d nodes of %d: %w", size, n, ctx.Err())
		}
	}
}
