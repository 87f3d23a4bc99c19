package txn

import (
	"testing"

	"github.com/cairndb/cairn/kvnode/engine"
	"github.com/cairndb/cairn/kvnode/mvcc"
)

type committedVersion struct {
	key               string
	startTS, commitTS uint64
}

// versionsOf lists every committed record of the store's fake KV tier.
func versionsOf(t *testing.T, s *Store) []committedVersion {
	t.Helper()
	it, err := s.kv.(*fakeKV).st.DB.NewIter(engine.IterOptions{CF: engine.CFWrite})
	if err != nil {
		t.Fatal(err)
	}
	defer it.Close()
	var list []committedVersion
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.Value()
		if err != nil {
			t.Fatal(err)
		}
		w, err := mvcc.ParseWrite(v)
		if err != nil {
			t.Fatal(err)
		}
		if w.Type != mvcc.WriteRollback {
			list = append(list, committedVersion{string(it.Key()), w.StartTS, it.TS()})
		}
	}
	return list
}
