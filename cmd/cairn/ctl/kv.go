package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/cairndb/cairn/kvnode/kvclient"
	"github.com/cairndb/cairn/kvnode/kvclient/rawkv"
	"github.com/cairndb/cairn/kvnode/kvclient/txnkv"
)

// Bytes is a key or value: a JSON string if it is text, else {"base64": "..."}.
type Bytes []byte

// MarshalJSON implements json.Marshaler.
func (b Bytes) MarshalJSON() ([]byte, error) {
	if utf8.Valid(b) {
		return json.Marshal(string(b))
	}
	return json.Marshal(map[string][]byte{"base64": b})
}

// String is how a person reads it: as it is if it is printable, else quoted as in Go.
func (b Bytes) String() string {
	if !utf8.Valid(b) {
		return strconv.Quote(string(b))
	}
	for _, r := range string(b) {
		if !unicode.IsPrint(r) {
			return strconv.Quote(string(b))
		}
	}
	return string(b)
}

// KVPair is what is printed of a key and its value as JSON.
type KVPair struct {
	Key   Bytes `json:"key"`
	Value Bytes `json:"value,omitempty"`
	TTLMS int64 `json:"ttl_ms,omitempty"` // of a raw pair; left out = for ever
}

// kvFlags are the flags of the commands under "kv".
type kvFlags struct {
	raw      bool
	at       uint64
	ttl      time.Duration
	limit    int
	reverse  bool
	keysOnly bool
}

func (c *ctl) kvCommand() *cobra.Command {
	var f kvFlags
	cmd := &cobra.Command{
		Use: "kv", Short: "Read and write keys and values without SQL",
		Long: `Kv reads and writes the pairs of programs that use the key-value tier without SQL:
with transactions (the Go package kvnode/kvclient/txnkv), or raw, without (rawkv).
These are two spaces of keys; the tables of SQL are in neither.

A key or value is taken as it is written; "\x00" in double quotes is read as in Go.`,
	}
	cmd.PersistentFlags().BoolVar(&f.raw, "raw", false, "raw pairs")
	get := &cobra.Command{Use: "get KEY", Short: "Print the value of a key", Args: cobra.ExactArgs(1), RunE: c.onKV(&f, kvGet)}
	get.Flags().Uint64Var(&f.at, "at", 0, "as it was at this timestamp; not of raw pairs")
	put := &cobra.Command{Use: "put KEY VALUE", Short: "Store a value under a key", Args: cobra.ExactArgs(2), RunE: c.onKV(&f, kvPut)}
	put.Flags().DurationVar(&f.ttl, "ttl", 0, "how long a raw pair lives, such as 10m; 0 = for ever")
	remove := &cobra.Command{Use: "delete KEY ...", Short: "Remove keys", Args: cobra.MinimumNArgs(1), RunE: c.onKV(&f, kvDelete)}
	scan := &cobra.Command{Use: "scan [START [END]]", Short: "Print the pairs of [START, END)", Args: cobra.MaximumNArgs(2), RunE: c.onKV(&f, kvScan)}
	scan.Flags().Uint64Var(&f.at, "at", 0, "as it was at this timestamp; not of raw pairs")
	scan.Flags().IntVar(&f.limit, "limit", 100, "pairs; 0 = all")
	scan.Flags().BoolVar(&f.reverse, "reverse", false, "descending; not of raw pairs")
	scan.Flags().BoolVar(&f.keysOnly, "keys-only", false, "leave values out")
	cas := &cobra.Command{
		Use: "cas KEY OLD NEW", Short: "Put NEW if the key has the value OLD; raw pairs only", Args: cobra.ExactArgs(3), RunE: c.onKV(&f, kvCAS),
		Long: "Cas compares and swaps: KEY gets the value NEW if it has the value OLD. - for OLD means that the key has no value, - for NEW deletes it.",
	}
	cas.Flags().DurationVar(&f.ttl, "ttl", 0, "how long NEW lives; 0 = for ever")
	cmd.AddCommand(get, put, remove, scan, cas)
	return cmd
}

// kvSession is a session that is connected to the stores, too.
type kvSession struct {
	*session
	*kvFlags
	rawPairs *rawkv.Client
	db       *txnkv.Client
	ctx      context.Context // of all requests of the command
}

func (c *ctl) onKV(f *kvFlags, do func(s *kvSession, args [][]byte) error) func(*cobra.Command, []string) error {
	return c.run(func(s *session, args []string) error {
		list := make([][]byte, len(args))
		for i, a := range args {
			var err error
			if list[i], err = literal(a); err != nil {
				return err
			}
		}
		if f.raw && (f.at != 0 || f.reverse) {
			return errors.New("raw pairs have no versions, and are not scanned backwards: leave out --at and --reverse, or --raw")
		}
		if !f.raw && f.ttl != 0 {
			return errors.New("only raw pairs have a time to live; --raw stores one")
		}
		ctx, cancel := s.request()
		defer cancel()
		kv := kvclient.New(kvclient.Options{PD: s.pd, TLS: s.tls})
		defer kv.Close()
		db := txnkv.New(&kvclient.Cluster{KV: kv, PD: s.pd}, txnkv.Options{})
		defer db.Close()
		return do(&kvSession{s, f, rawkv.New(kv), db, ctx}, list)
	})
}

// literal reads an argument: as it is, or in double quotes as in Go.
func literal(arg string) ([]byte, error) {
	if len(arg) < 2 || arg[0] != '"' || arg[len(arg)-1] != '"' {
		return []byte(arg), nil
	}
	text, err := strconv.Unquote(arg)
	if err != nil {
		return nil, fmt.Errorf("%s is not a string of Go; leave the quotes out to have it taken as it is", arg)
	}
	return []byte(text), nil
}

// reader is the snapshot that the flags name.
func (s *kvSession) reader() (*txnkv.Reader, error) {
	if s.at != 0 {
		return s.db.SnapshotAt(s.at), nil
	}
	return s.db.Snapshot(s.ctx)
}

func kvGet(s *kvSession, args [][]byte) error {
	p := KVPair{Key: args[0]}
	var err error
	if s.raw {
		var got rawkv.Pair
		got, err = s.rawPairs.GetPair(s.ctx, args[0])
		p.Value, p.TTLMS = got.Value, got.TTL.Milliseconds()
	} else {
		var r *txnkv.Reader
		if r, err = s.reader(); err == nil {
			p.Value, err = r.Get(s.ctx, args[0])
		}
	}
	if errors.Is(err, txnkv.ErrNotFound) || errors.Is(err, rawkv.ErrNotFound) {
		return fmt.Errorf("key %s has no value", p.Key)
	}
	if err != nil {
		return err
	}
	return s.tell(p, "%s", p.Value)
}

func kvPut(s *kvSession, args [][]byte) error {
	p := KVPair{Key: args[0], Value: args[1], TTLMS: s.ttl.Milliseconds()}
	var err error
	if s.raw {
		err = s.rawPairs.PutAll(s.ctx, []rawkv.Pair{{Key: args[0], Value: args[1], TTL: s.ttl}})
	} else {
		err = s.db.Update(s.ctx, func(t *txnkv.Txn) error { return t.Put(args[0], args[1]) })
	}
	if err != nil {
		return err
	}
	return s.tell(p, "Stored.")
}

func kvDelete(s *kvSession, args [][]byte) error {
	var err error
	if s.raw {
		err = s.rawPairs.Delete(s.ctx, args...)
	} else {
		err = s.db.Update(s.ctx, func(t *txnkv.Txn) error {
			for _, k := range args {
				if err := t.Delete(k); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err != nil {
		return err
	}
	list := make([]Bytes, len(args))
	for i, k := range args {
		list[i] = k
	}
	return s.tell(map[string][]Bytes{"deleted": list}, "Deleted.")
}

func kvScan(s *kvSession, args [][]byte) error {
	args = append(args, nil, nil)
	start, end := args[0], args[1]
	found := []KVPair{}
	columns := []string{"key"}
	if !s.keysOnly {
		columns = append(columns, "value")
	}
	t := newTable("There are no such keys.", columns...)
	add := func(key, value []byte) bool {
		p := KVPair{Key: append(Bytes{}, key...)}
		if s.keysOnly {
			t.row(p.Key)
		} else {
			p.Value = append(Bytes{}, value...)
			t.row(p.Key, p.Value)
		}
		found = append(found, p)
		return s.limit == 0 || len(found) < s.limit
	}
	if s.raw {
		for p, err := range s.rawPairs.Scan(s.ctx, start, end, rawkv.ScanOptions{Limit: s.limit, KeyOnly: s.keysOnly}) {
			if err != nil {
				return err
			}
			if !add(p.Key, p.Value) {
				break
			}
		}
		return s.showFound(found, t)
	}
	r, err := s.reader()
	if err != nil {
		return err
	}
	for p, err := range r.Scan(s.ctx, start, end, txnkv.ScanOptions{Reverse: s.reverse, Limit: s.limit, KeyOnly: s.keysOnly}) {
		if err != nil {
			return err
		}
		if !add(p.Key, p.Value) {
			break
		}
	}
	return s.showFound(found, t)
}

// showFound says when the limit may have left something out.
func (s *kvSession) showFound(found []KVPair, t *printed) error {
	if err := s.show(found, t); err != nil || s.json || s.limit == 0 || len(found) < s.limit {
		return err
	}
	return s.tell(nil, "The first %d; --limit 0 shows all.", len(found))
}

// KVSwap is what is printed of a compare-and-swap as JSON.
type KVSwap struct {
	Swapped bool  `json:"swapped"`
	Had     Bytes `json:"had"` // null = nothing
}

func kvCAS(s *kvSession, args [][]byte) error {
	if !s.raw {
		return errors.New("only raw pairs are compared and swapped; --raw does that")
	}
	swap := rawkv.Swap{Old: args[1], New: args[2], TTL: s.ttl}
	if string(swap.Old) == "-" {
		swap.Old = nil
	}
	if string(swap.New) == "-" {
		swap.New = nil
	}
	swapped, had, err := s.rawPairs.CompareAndSwap(s.ctx, args[0], swap)
	if err != nil {
		return err
	}
	out := KVSwap{swapped, had}
	switch {
	case swapped:
		return s.tell(out, "Swapped.")
	case had == nil:
		return errors.Join(s.tellJSON(out), fmt.Errorf("key %s has no value", Bytes(args[0])))
	}
	return errors.Join(s.tellJSON(out), fmt.Errorf("key %s has the value %s", Bytes(args[0]), Bytes(had)))
}

// tellJSON is for what the error says to people.
func (s *session) tellJSON(v any) error {
	if !s.json {
		return nil
	}
	return s.show(v, nil)
}
