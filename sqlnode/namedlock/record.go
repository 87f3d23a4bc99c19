package namedlock

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"github.com/cairndb/cairn/internal/keys"
	"github.com/cairndb/cairn/sqlnode/catalog"
)

// Names of the records among the metadata; see docs/formats/meta.md.
const (
	allPrefix   = "lock/"
	leasePrefix = "lock/lease/"
	namePrefix  = "lock/name/"
	waitPrefix  = "lock/wait/"
)

// leaseRecord says until when the locks of a node count, in physical milliseconds of PD's clock. Without a record they
// do not.
type leaseRecord struct {
	Expires int64 `json:"expires"`
}

// owner is a session.
type owner struct {
	Lease string `json:"lease"`
	Conn  uint64 `json:"conn"`
}

// lockRecord says who has a lock. Seq tells one time a session takes it from the next.
type lockRecord struct {
	owner
	Seq uint64 `json:"seq"`
}

// waitRecord says which lock a session waits for, and since which timestamp.
type waitRecord struct {
	Lease string `json:"lease"`
	Name  string `json:"name"`
	Since uint64 `json:"since"`
}

func leaseKey(id string) []byte  { return keys.Meta(leasePrefix + id) }
func nameKey(name string) []byte { return keys.Meta(namePrefix + name) }
func waitKey(o owner) []byte     { return keys.Meta(fmt.Sprintf("%s%s/%d", waitPrefix, o.Lease, o.Conn)) }

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("namedlock: %T: %v", v, err))
	}
	return b
}

// read reads a record; found is false when there is none.
func read(ctx context.Context, tx catalog.Tx, key []byte, into any) (raw []byte, found bool, err error) {
	raw, err = tx.Get(ctx, key)
	if err != nil || raw == nil {
		return nil, false, err
	}
	return raw, true, decode(key, raw, into)
}

func decode(key, raw []byte, into any) error {
	if err := json.Unmarshal(raw, into); err != nil {
		return fmt.Errorf("namedlock: record %s: %w", keys.Text(key), err)
	}
	return nil
}

func readLock(ctx context.Context, tx catalog.Tx, name string) (*lockRecord, []byte, error) {
	var rec lockRecord
	raw, found, err := read(ctx, tx, nameKey(name), &rec)
	if !found || err != nil {
		return nil, nil, err
	}
	return &rec, raw, nil
}

// alive says whether a lease counts at the moment of tx.
func alive(ctx context.Context, tx catalog.Tx, lease string) (bool, error) {
	var rec leaseRecord
	_, found, err := read(ctx, tx, leaseKey(lease), &rec)
	return found && rec.Expires > millis(tx.TS()), err
}

func millis(ts uint64) int64 { return int64(ts >> 18) }

// deleteRecord deletes a record that is still what it was.
func (l *Locks) deleteRecord(ctx context.Context, key, was []byte) error {
	return l.opts.KV.Update(ctx, func(tx catalog.Tx) error {
		now, err := tx.Get(ctx, key)
		if err != nil || !bytes.Equal(now, was) {
			return err
		}
		return tx.Delete(key)
	})
}
