SHELL := /bin/bash
export CGO_ENABLED ?= 0
TOOLS := $(CURDIR)/bin/tools

build:
	go build -trimpath -o bin/cairn ./cmd/cairn

generate:
	cd tools && go build -o $(TOOLS)/ google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc github.com/planetscale/vtprotobuf/cmd/protoc-gen-go-vtproto github.com/bufbuild/buf/cmd/buf
	PATH=$(TOOLS):$$PATH buf generate

# Fill in the expected results of new scenarios from a MySQL or MariaDB server, then read the diff:
#   make sqltest-record DSN='root@tcp(127.0.0.1:3306)/' FILES=my_new_scenario
sqltest-record:
	go test ./test/sqltest -count=1 -run TestScenarios -rewrite -dsn '$(DSN)' -files '$(FILES)'

# Compare random statements with a reference server: make compat DSN=... REFERENCE=... [ROUNDS=5000]
compat:
	go test ./test/compat -count=1 -v -dsn '$(DSN)' -reference '$(REFERENCE)' -rounds $(or $(ROUNDS),2000)

.PHONY: build generate sqltest-record compat
