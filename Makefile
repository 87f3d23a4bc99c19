SHELL := /bin/bash
export CGO_ENABLED ?= 0
TOOLS := $(CURDIR)/bin/tools
# The packages where goroutines share data.
CORE := ./kvnode/... ./pd/... ./sqlnode/wire ./sqlnode/catalog ./sqlnode/ddl ./sqlnode/privilege ./sqlnode/session

# Everything in one process on ./cairn-data, for MySQL clients on 127.0.0.1:4000.
run: build
	bin/cairn start $(ARGS)

build:
	go build -trimpath -o bin/cairn ./cmd/cairn

# The whole suite. Packages that start servers are never taken from the cache.
test: build
	go vet ./...
	go test -timeout 15m $$(go list ./... | grep -v /test/)
	CAIRN_BINARY=$(CURDIR)/bin/cairn go test -count=1 -timeout 15m $$(go list ./test/... | grep -v /chaos$$)
	CAIRN_BINARY=$(CURDIR)/bin/cairn go test -count=1 -v -timeout 5m ./test/chaos -run TestSmoke

# Everything that happens to machines, at random, to a cluster of processes under load; docs/ops/chaos.md:
#   make chaos [DURATION=30m] [SEED=...]
chaos: build
	CAIRN_BINARY=$(CURDIR)/bin/cairn go test -count=1 -v -timeout 0 ./test/chaos -run TestSoak -duration $(or $(DURATION),30m) -seed $(or $(SEED),0) $(ARGS)

# Transactions of all kinds under kills and partitions, one history each; docs/ops/chaos.md:
#   make transactions [DURATION=10m] [WORKLOAD=bank,lists] [SEED=...]
transactions: build
	CAIRN_BINARY=$(CURDIR)/bin/cairn go test -count=1 -v -timeout 0 ./test/chaos -run TestTransactionsUnderFaults -duration $(or $(DURATION),10m) -workload '$(WORKLOAD)' -seed $(or $(SEED),0) $(ARGS)

race:
	CGO_ENABLED=1 go test -race -timeout 20m $(CORE)

lint:
	go vet ./...
	go test -count=1 ./internal/lint

# make bench ARGS='--threads 16 --workloads point_select,insert' (see --help)
bench: build
	go run ./test/bench $(ARGS)

compat: build
	CAIRN_BINARY=$(CURDIR)/bin/cairn go test -count=1 -v ./test/compat $(ARGS)

# Fill in the expected results of new scenarios from a MySQL or MariaDB server, then read the diff:
#   make sqltest-record DSN='root@tcp(127.0.0.1:3306)/' FILES=my_new_scenario
sqltest-record:
	go test ./test/sqltest -count=1 -run TestScenarios -rewrite -dsn '$(DSN)' -files '$(FILES)'

# Compare random statements with a reference server: make differential DSN=... REFERENCE=... [ROUNDS=5000]
differential:
	go test ./test/differential -count=1 -v -dsn '$(DSN)' -reference '$(REFERENCE)' -rounds $(or $(ROUNDS),2000)

generate:
	cd tools && go build -o $(TOOLS)/ google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc github.com/planetscale/vtprotobuf/cmd/protoc-gen-go-vtproto github.com/bufbuild/buf/cmd/buf
	PATH=$(TOOLS):$$PATH buf generate

fmt:
	gofmt -w cmd internal kvnode pd sqlnode test

clean:
	rm -rf bin

.PHONY: run build test chaos transactions race lint bench compat sqltest-record differential generate fmt clean
