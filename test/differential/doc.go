// Package differential compares CairnDB with a MySQL or MariaDB server: the same random statements must have the same effects.
//
//	go test ./test/differential -dsn 'root@tcp(127.0.0.1:4000)/' -reference 'root@tcp(127.0.0.1:3306)/' -rounds 5000
//
// Without the two servers the test is skipped.
package differential
