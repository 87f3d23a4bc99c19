SHELL := /bin/bash
export CGO_ENABLED ?= 0
TOOLS := $(CURDIR)/bin/tools

build:
	go build -trimpath -o bin/cairn ./cmd/cairn

generate:
	cd tools && go build -o $(TOOLS)/ google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc github.com/planetscale/vtprotobuf/cmd/protoc-gen-go-vtproto github.com/bufbuild/buf/cmd/buf
	PATH=$(TOOLS):$$PATH buf generate

.PHONY: build generate
