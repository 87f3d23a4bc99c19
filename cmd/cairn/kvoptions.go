package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cairndb/cairn/cmd/cairn/nosync"
	"github.com/cairndb/cairn/kvnode"
	"github.com/cairndb/cairn/pd/pdclient"
	"github.com/cairndb/cairn/proto/kvpb"
)

// kvKeys are the flags of every process with a KV node.
var kvKeys = []string{"cache-size", "labels", "unsafe-no-sync"}

// kvOptions are the options of the KV node of this process.
func (c *config) kvOptions(p *process, pdc pdclient.Client) (kvnode.Options, error) {
	o := kvnode.Options{
		DataDir: c.sub("kv"), Advertise: c.Advertise, PD: pdc, Version: version,
		CacheBytes: c.cacheBytes(), Logger: p.log, Registerer: p.registry,
	}
	var err error
	if o.Labels, err = parseLabels(c.Labels); err != nil {
		return o, err
	}
	if c.UnsafeNoSync {
		const loud = "--unsafe-no-sync: what this process acknowledges is LOST when it or the machine dies; for tests only"
		fmt.Fprintln(os.Stderr, "cairn: WARNING: "+loud)
		p.log.Warn(loud)
		o.FS = nosync.FS(vfs.Default)
	}
	return o, nil
}

// parseLabels reads key=value pairs.
func parseLabels(texts []string) ([]*kvpb.StoreLabel, error) {
	var labels []*kvpb.StoreLabel
	seen := map[string]bool{}
	for _, text := range texts {
		key, value, ok := strings.Cut(text, "=")
		switch {
		case !ok || key == "" || value == "":
			return nil, fmt.Errorf("--labels: %q is not a label; write them as zone=a,host=h1", text)
		case strings.ContainsAny(text, " \t\n,"):
			return nil, fmt.Errorf("--labels: %q contains white space", text)
		case seen[key]:
			return nil, fmt.Errorf("--labels: %s is there twice", key)
		}
		seen[key] = true
		labels = append(labels, &kvpb.StoreLabel{Key: key, Value: value})
	}
	return labels, nil
}
