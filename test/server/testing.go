package server

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// built is the binary of this test process.
type built struct {
	once sync.Once
	dir  string // temporary; removed by RunTests
	bin  string
	err  error
}

var binary built

// RunTests is the body of TestMain of a package that starts servers: it removes
// the binary that Binary built.
func RunTests(m *testing.M) int {
	code := m.Run()
	if binary.dir != "" {
		_ = os.RemoveAll(binary.dir)
	}
	return code
}

// Binary builds cairn, once in a test process, and returns its path. The
// variable CAIRN_BINARY names one to use instead.
func Binary(t testing.TB) string {
	t.Helper()
	binary.once.Do(func() { binary.bin, binary.err = build(&binary.dir) })
	if binary.err != nil {
		t.Fatal(binary.err)
	}
	return binary.bin
}

func build(dir *string) (string, error) {
	if bin := os.Getenv("CAIRN_BINARY"); bin != "" {
		return filepath.Abs(bin)
	}
	var err error
	if *dir, err = os.MkdirTemp("", "cairn-test-"); err != nil {
		return "", err
	}
	bin := filepath.Join(*dir, "cairn")
	cmd := exec.Command("go", "build", "-o", bin, "github.com/cairndb/cairn/cmd/cairn")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return bin, nil
}

// Start starts `cairn start` on a directory of its own for the time of a test.
// What it printed is logged when the test fails.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	return StartIn(t, t.TempDir(), args...)
}

// StartIn starts `cairn start` on the data directory dir.
func StartIn(t testing.TB, dir string, args ...string) *Server {
	t.Helper()
	s, err := Launch(context.Background(), Options{Binary: Binary(t), Dir: dir, Args: args})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		select {
		case <-s.Exited(): // by the test's wish
		default:
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			if err := s.Stop(ctx); err != nil {
				t.Errorf("stop: %v", err)
			}
		}
		if t.Failed() {
			t.Logf("the server printed:\n%s", s.Output())
		}
	})
	return s
}
