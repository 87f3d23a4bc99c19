// Package clustertest runs whole clusters of stores in one process: real stores, replicas,
// logs and databases, in a testing/synctest bubble (virtual time), over file systems
// that can crash (vfs.NewCrashableMem) and a network with faults (simnet). Placement is a
// scripted fake (fakePD).
//
// Everything random comes from a seed, which a failure names; -seed N runs one again, -rounds N
// runs more. What goroutines do at the same instant of virtual time is not ordered by the
// seed: a failure that needs a certain order may take several runs of its seed.
//
// While a cluster runs, a watcher (watch_test.go) sees all messages and looks at all stores from time to
// time; at the end everything is healed, and histories and copies are compared (check_test.go).
//
// TestTransactions runs random transactions over such clusters, through the clients' own code, on a way
// on which requests and answers are lost and late (sqlnode_test.go, txn_test.go, txnbed_test.go).
//
// TestRounds counts what SQL statements cost: rounds, requests, Raft entries and fsyncs (rounds_test.go).
package clustertest
