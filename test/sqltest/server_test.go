package sqltest

import (
	"os"
	"testing"

	"github.com/cairndb/cairn/test/server"
)

func TestMain(m *testing.M) {
	startServer = func(t *testing.T) string { return server.Start(t).DSN("") }
	os.Exit(server.RunTests(m))
}
