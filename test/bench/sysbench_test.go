package main

import (
	"errors"
	"testing"
)

const sample = `SQL statistics:
    queries performed:
        read:                            140
        write:                           40
        other:                           20
        total:                           200
    transactions:                        10     (99.50 per sec.)
    queries:                             200    (1990.10 per sec.)
    ignored errors:                      3      (0.10 per sec.)
    reconnects:                          0      (0.00 per sec.)

Latency (ms):
         min:                                    5.00
         avg:                                    9.00
         95th percentile:                       12.50
`

func TestParse(t *testing.T) {
	want := result{txns: 10, tps: 99.5, qps: 1990.1, queries: 200, p95: 12.5, ignored: 3}
	if got := parse(sample); got != want {
		t.Fatalf("want %+v, got %+v", want, got)
	}
	if got := parse("nothing"); got.err == nil {
		t.Fatal("no figures were taken for a result")
	}
}

func TestJoinAddsUp(t *testing.T) {
	broken := errors.New("broken")
	got := join([]result{{tps: 1, qps: 10, queries: 100, p95: 5}, {tps: 2, qps: 20, queries: 200, p95: 3, ignored: 1, err: broken}})
	if got.tps != 3 || got.qps != 30 || got.queries != 300 || got.p95 != 5 || got.ignored != 1 || !errors.Is(got.err, broken) {
		t.Fatalf("got %+v", got)
	}
}

func TestFullName(t *testing.T) {
	for short, want := range map[string]string{
		"point_select": "oltp_point_select", "oltp_insert": "oltp_insert", "bulk_insert": "bulk_insert",
		"random_points": "select_random_points", "own": "own",
	} {
		if got := fullName(short); got != want {
			t.Errorf("%s: want %s, got %s", short, want, got)
		}
	}
}
