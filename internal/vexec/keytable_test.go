package vexec

import (
	"encoding/binary"
	"math/rand"
	"testing"
	"time"
)

func TestKeyTableAgreesWithMap(t *testing.T) {
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewSource(seed))
	var table KeyTable
	for range 3 {
		model := map[string]int{}
		for range 20000 {
			key := make([]byte, rng.Intn(12))
			for i := range key {
				key[i] = byte(rng.Intn(4))
			}
			want, known := model[string(key)]
			if found := table.Find(key); known && found != want || !known && found != -1 {
				t.Fatalf("find %x: want %d %v, got %d", key, want, known, found)
			}
			if rng.Intn(2) == 0 {
				continue
			}
			if !known {
				want = len(model)
				model[string(key)] = want
			}
			if id, added := table.Insert(key); id != want || added == known {
				t.Fatalf("insert %x: want %d added %v, got %d %v", key, want, !known, id, added)
			}
		}
		for k, id := range model {
			if string(table.Key(id)) != k {
				t.Fatalf("key %d: want %x, got %x", id, k, table.Key(id))
			}
		}
		table.Reset()
	}
}

func BenchmarkKeyTableInsertExisting(b *testing.B) {
	var table KeyTable
	var key [8]byte
	for i := 0; b.Loop(); i++ {
		binary.LittleEndian.PutUint64(key[:], uint64(i&1023))
		table.Insert(key[:])
	}
}
