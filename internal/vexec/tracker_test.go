package vexec

import (
	"testing"

	"github.com/cairndb/cairn/internal/sqlerr"
)

func TestTrackerRefusesOverQuota(t *testing.T) {
	tr := NewTracker(100)
	a, b := NewAccount(tr), NewAccount(tr)
	if err := a.Resize(60); err != nil {
		t.Fatal(err)
	}
	err := b.Resize(41)
	if e, ok := sqlerr.As(err); !ok || e.Code != 1038 || e.State != "HY001" {
		t.Fatalf("want 1038 HY001, got %v", err)
	}
	if tr.Used() != 60 {
		t.Errorf("a refused charge must not stay: used %d", tr.Used())
	}
	if err := a.Resize(10); err != nil {
		t.Fatal(err)
	}
	if err := b.Resize(90); err != nil {
		t.Fatal(err)
	}
	a.Release()
	b.Release()
	if tr.Used() != 0 || tr.Peak() != 100 {
		t.Errorf("want used 0 peak 100, got %d %d", tr.Used(), tr.Peak())
	}
	var none Account
	if err := none.Resize(1 << 40); err != nil {
		t.Errorf("no tracker means no limit: %v", err)
	}
}
