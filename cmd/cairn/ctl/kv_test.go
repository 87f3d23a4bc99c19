package ctl

import (
	"bytes"
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/kvnode"
	"github.com/cairndb/cairn/pd"
	"github.com/cairndb/cairn/pd/pdclient"
)

func TestKV(t *testing.T) {
	p, err := pd.New(pd.Options{DataDir: t.TempDir(), ListenAddr: "127.0.0.1:0"})
	require.NoError(t, err)
	t.Cleanup(func() { _ = p.Close() })
	go func() { _ = p.Serve(context.Background()) }()
	pdc := pdclient.Direct(p.Handler())
	t.Cleanup(func() { _ = pdc.Close() })
	n, err := kvnode.New(kvnode.Options{DataDir: t.TempDir(), PD: pdc, Listen: "127.0.0.1:0"})
	require.NoError(t, err)
	t.Cleanup(func() { _ = n.Close() })
	go func() { _ = n.Serve(context.Background()) }()
	datadriven.RunTest(t, filepath.Join("testdata", "kv.txt"), func(t *testing.T, d *datadriven.TestData) string {
		var out bytes.Buffer
		for line := range strings.Lines(d.Input) {
			cmd := New(nil)
			cmd.SetOut(&out)
			cmd.SetErr(&out)
			cmd.SilenceErrors, cmd.SilenceUsage = true, true
			cmd.SetArgs(append([]string{"--pd", p.Addr(), "kv"}, strings.Fields(line)...))
			if err := cmd.Execute(); err != nil {
				out.WriteString("error: " + err.Error() + "\n")
			}
		}
		return out.String()
	})
}
