package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/stretchr/testify/require"
)

// run executes a command line that ends by itself.
func run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	root := rootCommand()
	root.SetArgs(args)
	root.SetOut(&out)
	root.SetErr(&out)
	err := root.ExecuteContext(context.Background())
	return out.String(), err
}

func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "cairn.toml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func TestMistakesSayWhatToDo(t *testing.T) {
	foreign := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(foreign, "letter.txt"), []byte("dear"), 0o600))
	other := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(other, "CAIRN"), []byte("cairn pd\n"), 0o600))
	for _, c := range []struct {
		want string
		args []string
	}{
		{"unknown flag: --datadir; did you mean --data-dir?", []string{"start", "--datadir", "x"}},
		{"unknown flag: --horse; see 'cairn start --help'", []string{"start", "--horse"}},
		{`"lots" is not a size; write it as 64MiB`, []string{"start", "--cache-size", "lots"}},
		{`"lots" is not a size; write it as 64MiB`, []string{"start", "--config", file(t, `cache-size = "lots"`)}},
		{"--memory-limit 200MiB is less than 512MiB, which a process of this kind needs", []string{"start", "--memory-limit", "200MiB"}},
		{"--memory-limit 200MiB is less than 512MiB", []string{"kv", "--config", file(t, `memory-limit = "200MiB"`)}},
		{"--memory-limit 64MiB is less than 128MiB", []string{"sql", "--memory-limit", "64MiB"}},
		{"--cache-size 500MiB leaves too little for everything else: of what --memory-limit gives, 384 MiB are the most", []string{"start", "--memory-limit", "1GiB", "--cache-size", "500MiB"}},
		{`"now" is not understood here; see 'cairn start --help'`, []string{"start", "now"}},
		{`unknown key "data-dirr"; known keys: data-dir,`, []string{"start", "--config", file(t, `data-dirr = "x"`)}},
		{`key "pd" means nothing here`, []string{"start", "--config", file(t, `pd = ["127.0.0.1:1"]`)}},
		{"line 2:", []string{"start", "--config", file(t, "listen = \"127.0.0.1:1\"\nstatus = \n")}},
		{"read configuration", []string{"start", "--config", "/nowhere/cairn.toml"}},
		{"write it as 127.0.0.1:4000", []string{"start", "--listen", "4000"}},
		{"is not a port", []string{"start", "--listen", "127.0.0.1:mysql-ish"}},
		{"--insecure if you mean it", []string{"start", "--listen", "0.0.0.0:4000"}},
		{"--insecure if you mean it", []string{"start", "--listen", "127.0.0.1:0", "--status", "0.0.0.0:0"}},
		{"not one of debug, info, warn, error", []string{"start", "--log-level", "loud"}},
		{"is not empty and was not made by cairn", []string{"start", "--data-dir", foreign, "--listen", "127.0.0.1:0", "--status", ""}},
		{"holds the data of 'cairn pd'", []string{"start", "--data-dir", other, "--listen", "127.0.0.1:0", "--status", ""}},
		{"--insecure if you mean it", []string{"start", "--listen", "127.0.0.1:0", "--cluster-listen", "0.0.0.0:14000"}},
		{`--join "14000" is not an address; write it as 10.0.0.1:14000`, []string{"start", "--data-dir", t.TempDir(), "--listen", "127.0.0.1:0", "--status", "", "--join", "14000"}},
		{"is the address of this process itself", []string{"start", "--data-dir", t.TempDir(), "--listen", "127.0.0.1:0", "--status", "", "--cluster-listen", "127.0.0.1:14900", "--join", "127.0.0.1:14900"}},
		{"--raft-tick 11s is not between", []string{"start", "--raft-tick", "11s"}},
		{"must be whole numbers of --raft-tick 100ms", []string{"start", "--raft-heartbeat", "150ms"}},
		{"is less than three times --raft-heartbeat 200ms", []string{"start", "--raft-election", "400ms"}},
		{"is more than eight tenths of --raft-election 1s", []string{"start", "--raft-lease", "900ms"}},
		{"--region-max-size 1KiB is less than 64KiB", []string{"start", "--region-max-size", "1KiB"}},
		{"--region-max-size 1MiB is less than --region-split-size 2MiB", []string{"start", "--region-max-size", "1MiB", "--region-split-size", "2MiB"}},
		{"--replicas 9 is not between 1 and 7", []string{"start", "--replicas", "9"}},
		{"--pd is empty", []string{"kv", "--data-dir", t.TempDir(), "--listen", "127.0.0.1:0", "--status", "", "--pd", ""}},
		{`--labels: "zone" is not a label; write them as zone=a,host=h1`, []string{"start", "--labels", "zone"}},
		{`--labels: "zone" is not a label; write them as zone=a,host=h1`, []string{"sql", "--labels", "zone"}},
		{"--cluster-cert-dir", []string{"pd", "--cluster-cert-dir", "/nowhere"}},
	} {
		_, err := run(t, c.args...)
		require.ErrorContains(t, err, c.want, strings.Join(c.args, " "))
	}
}

func TestFlagsWinOverTheFile(t *testing.T) {
	path := file(t, "listen = \"127.0.0.1:1111\"\nlog-level = \"debug\"\n")
	out, err := run(t, "start", "--config", path, "--listen", "127.0.0.1:2222", "--print-config")
	require.NoError(t, err)
	require.Contains(t, out, `listen = "127.0.0.1:2222"`)
	require.Contains(t, out, `log-level = "debug"`)
}

func TestSizesInTheFileMayBeNumbersAndTexts(t *testing.T) {
	for _, text := range []string{"cache-size = 67108864\n", "cache-size = \"64MiB\"\n"} {
		out, err := run(t, "start", "--config", file(t, text), "--print-config")
		require.NoError(t, err)
		require.Contains(t, out, `cache-size = "64MiB"`)
	}
}

func TestPrintedConfigurationReproducesItself(t *testing.T) {
	for _, verb := range []string{"start", "pd", "kv", "sql"} {
		once, err := run(t, verb, "--print-config")
		require.NoError(t, err)
		twice, err := run(t, verb, "--config", file(t, once), "--print-config")
		require.NoError(t, err)
		require.Equal(t, once, twice, verb)
	}
}

func TestEditDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"pd", "", 2}, {"datadir", "data-dir", 1}, {"lisetn", "listen", 2}, {"kitten", "sitting", 3}} {
		require.Equal(t, c.want, editDistance(c.a, c.b), "%s %s", c.a, c.b)
	}
}

func FuzzConfigFile(f *testing.F) {
	f.Add([]byte("listen = \"127.0.0.1:1\"\n"))
	f.Add([]byte("[a]\nb = 1\n"))
	f.Fuzz(func(_ *testing.T, data []byte) {
		var c config
		_ = decodeConfig(data, &c, []string{"listen", "data-dir"})
	})
}

// The storage engine's errors print their stacks when they are asked for all they know.
func TestAnErrorIsLoggedInOneLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	p := &process{}
	require.NoError(t, p.openLog(&config{LogFile: path, LogLevel: "info"}))
	p.log.With("region", 7).Warn("trouble", "err", pebble.ErrCancelledCompaction)
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, 1, strings.Count(string(text), "\n"), string(text))
	require.NotContains(t, string(text), ".go:")
	require.Contains(t, string(text), `err="pebble: compaction cancelled`)
}
