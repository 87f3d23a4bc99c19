package rawkv_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cairndb/cairn/kvnode"
	"github.com/cairndb/cairn/kvnode/kvclient"
	"github.com/cairndb/cairn/kvnode/kvclient/rawkv"
	"github.com/cairndb/cairn/pd"
	"github.com/cairndb/cairn/pd/pdclient"
)

// placementDriver is the address of a cluster that runs in this process.
var placementDriver string

func TestMain(m *testing.M) {
	ctx := context.Background()
	dir := must(os.MkdirTemp("", "rawkv"))
	defer os.RemoveAll(dir)
	p := must(pd.New(pd.Options{DataDir: filepath.Join(dir, "pd"), ListenAddr: "127.0.0.1:0"}))
	go func() { _ = p.Serve(ctx) }()
	defer p.Close()
	pdc := pdclient.Direct(p.Handler())
	defer pdc.Close()
	n := must(kvnode.New(kvnode.Options{DataDir: filepath.Join(dir, "kv"), PD: pdc, Listen: "127.0.0.1:0"}))
	go func() { _ = n.Serve(ctx) }()
	defer n.Close()
	placementDriver = p.Addr()
	m.Run()
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func Example() {
	ctx := context.Background()
	cluster, err := kvclient.Connect(ctx, kvclient.ConnectOptions{PD: []string{placementDriver}})
	if err != nil {
		log.Fatal(err)
	}
	defer cluster.Close()
	kv := rawkv.New(cluster.KV)

	err = kv.PutAll(ctx, []rawkv.Pair{
		{Key: []byte("color"), Value: []byte("grey")},
		{Key: []byte("shape"), Value: []byte("round")},
		{Key: []byte("session"), Value: []byte("7"), TTL: time.Hour},
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := kv.Delete(ctx, []byte("shape")); err != nil {
		log.Fatal(err)
	}
	if _, err := kv.Get(ctx, []byte("shape")); errors.Is(err, rawkv.ErrNotFound) {
		fmt.Println("no shape")
	}
	for p, err := range kv.Scan(ctx, nil, nil, rawkv.ScanOptions{}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s = %s\n", p.Key, p.Value)
	}
	// Output:
	// no shape
	// color = grey
	// session = 7
}

// A lock that goes away by itself: whoever puts the key first has it.
func ExampleClient_CompareAndSwap() {
	ctx := context.Background()
	cluster, err := kvclient.Connect(ctx, kvclient.ConnectOptions{PD: []string{placementDriver}})
	if err != nil {
		log.Fatal(err)
	}
	defer cluster.Close()
	kv := rawkv.New(cluster.KV)

	key := []byte("zz/leader")
	for _, me := range []string{"ann", "bob"} {
		mine, had, err := kv.CompareAndSwap(ctx, key, rawkv.Swap{New: []byte(me), TTL: 10 * time.Second})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s: %v, was %q\n", me, mine, had)
	}
	if err := kv.Delete(ctx, key); err != nil {
		log.Fatal(err)
	}
	// Output:
	// ann: true, was ""
	// bob: false, was "ann"
}
