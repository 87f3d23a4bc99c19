package txnkv_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/cairndb/cairn/kvnode"
	"github.com/cairndb/cairn/kvnode/kvclient"
	"github.com/cairndb/cairn/kvnode/kvclient/txnkv"
	"github.com/cairndb/cairn/pd"
	"github.com/cairndb/cairn/pd/pdclient"
)

// placementDriver is the address of a cluster that runs in this process.
var placementDriver string

func TestMain(m *testing.M) {
	ctx := context.Background()
	dir := must(os.MkdirTemp("", "txnkv"))
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
	db := txnkv.New(cluster, txnkv.Options{})
	defer db.Close()

	t, err := db.Begin(ctx)
	if err != nil {
		log.Fatal(err)
	}
	for _, name := range []string{"ann", "bob", "eve"} {
		if err := t.Put([]byte("account/"+name), []byte("100")); err != nil {
			log.Fatal(err)
		}
	}
	if err := t.Delete([]byte("account/eve")); err != nil {
		log.Fatal(err)
	}
	if _, err := t.Commit(ctx); err != nil {
		log.Fatal(err)
	}

	now, err := db.Snapshot(ctx)
	if err != nil {
		log.Fatal(err)
	}
	for p, err := range now.Scan(ctx, []byte("account/"), []byte("account0"), txnkv.ScanOptions{}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s = %s\n", p.Key, p.Value)
	}
	// Output:
	// account/ann = 100
	// account/bob = 100
}

// A transfer: both accounts are locked first, so that it need not be run twice when many want them.
func ExampleClient_Update() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cluster, err := kvclient.Connect(ctx, kvclient.ConnectOptions{PD: []string{placementDriver}})
	if err != nil {
		log.Fatal(err)
	}
	defer cluster.Close()
	db := txnkv.New(cluster, txnkv.Options{LockTimeout: 5 * time.Second})
	defer db.Close()

	from, to := []byte("balance/carl"), []byte("balance/dora")
	err = db.Update(ctx, func(t *txnkv.Txn) error {
		return t.Put(from, []byte("100"))
	})
	if err != nil {
		log.Fatal(err)
	}
	err = db.Update(ctx, func(t *txnkv.Txn) error {
		have, err := t.GetForUpdate(ctx, from, to)
		if err != nil {
			return err
		}
		a, _ := strconv.Atoi(string(have[0]))
		b, _ := strconv.Atoi(string(have[1])) // nil: no account yet
		if err := t.Put(from, strconv.AppendInt(nil, int64(a-30), 10)); err != nil {
			return err
		}
		return t.Put(to, strconv.AppendInt(nil, int64(b+30), 10))
	})
	if err != nil {
		log.Fatal(err)
	}
	now, err := db.Snapshot(ctx)
	if err != nil {
		log.Fatal(err)
	}
	have, err := now.GetAll(ctx, from, to)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s %s\n", have[0], have[1])
	// Output: 70 30
}

// The past, by the timestamp of a transaction that was there.
func ExampleClient_SnapshotAt() {
	ctx := context.Background()
	cluster, err := kvclient.Connect(ctx, kvclient.ConnectOptions{PD: []string{placementDriver}})
	if err != nil {
		log.Fatal(err)
	}
	defer cluster.Close()
	db := txnkv.New(cluster, txnkv.Options{})
	defer db.Close()

	key := []byte("motto")
	var before uint64
	for _, text := range []string{"one", "two"} {
		t, err := db.Begin(ctx)
		if err != nil {
			log.Fatal(err)
		}
		if err := t.Put(key, []byte(text)); err != nil {
			log.Fatal(err)
		}
		ts, err := t.Commit(ctx)
		if err != nil {
			log.Fatal(err)
		}
		if before == 0 {
			before = ts
		}
	}
	was, err := db.SnapshotAt(before).Get(ctx, key)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", was)
	// Output: one
}
