# Needs GNU make, Go and git; the checks fetch their pinned tools by themselves.

# A describable commit names the build; anything else is a development build.
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)

# Arguments for `make run`, as in: make run ARGS="--listen 127.0.0.1:9443"
ARGS ?=

# The race detector needs a C compiler, which not everyone has at hand.
RACE = $(if $(filter 1,$(shell go env CGO_ENABLED)),-race,$(warning no C compiler: testing without the race detector))

PROTOS  := $(wildcard proto/coatcheck/v1/*.proto)
PLUGINS := bin/protoc-gen-go bin/protoc-gen-go-grpc
CHECKERS := bin/buf bin/staticcheck bin/govulncheck

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: run build test soak check bench-compare generate release-api tools clean help

run: build ## Build, then serve a development instance from .coatcheck/
	bin/coatcheck dev $(ARGS)

build: ## Build bin/coatcheck
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-X main.version=$(VERSION)" -o bin/coatcheck ./cmd/coatcheck

test: ## Run all tests, with the race detector and in random order
	go test $(RACE) -shuffle=on -timeout 20m ./...

soak: ## Run the long versions of the tests: crashes, canaries, a million tokens of each kind
	COATCHECK_SOAK=1 go test $(RACE) -count=1 -timeout 60m -run 'Soak|Crash|Canary' ./cmd/...
	COATCHECK_SOAK=1 go test -count=1 -timeout 60m -run 'EveryFormat|ConvergentRace|Incident' ./tokenizer ./server ./server/exposure

check: $(CHECKERS) $(PLUGINS) ## Run every static check: format, lint, API, generated code, modules, links
	.ci/check

# Arguments for `make bench-compare`, as in: make bench-compare BASE=v1.0.0 BENCH=Seal
BASE  ?= HEAD~1
BENCH ?= .

bench-compare: bin/benchstat ## Run the benchmarks here and at BASE in turn, and compare them
	.ci/bench-compare "$(BASE)" "$(BENCH)"

generate: bin/buf $(PLUGINS) ## Generate gen/ from proto/
	bin/buf generate

release-api: bin/buf ## Record the API as released; `make check` then forbids breaking it
	@mkdir -p .ci/api
	bin/buf build --exclude-source-info -o .ci/api/released.binpb

tools: bin/grpcurl ## Put the pinned grpcurl into bin/

clean: ## Remove bin/ (never .coatcheck/, which holds keys)
	rm -rf bin

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# The API as one descriptor set, for clients that load it when they run.
bin/coatcheck.binpb: $(PROTOS) buf.yaml | bin/buf
	bin/buf build --as-file-descriptor-set --exclude-source-info -o $@

# Each tool comes from a module that pins it and all that it is built from.
# The plugins have one of their own, for buf asks for an unreleased protobuf.
bin/buf:                MODULE = tools
bin/buf:                PACKAGE = github.com/bufbuild/buf/cmd/buf
bin/staticcheck:        MODULE = tools
bin/staticcheck:        PACKAGE = honnef.co/go/tools/cmd/staticcheck
bin/govulncheck:        MODULE = tools
bin/govulncheck:        PACKAGE = golang.org/x/vuln/cmd/govulncheck
bin/benchstat:          MODULE = tools
bin/benchstat:          PACKAGE = golang.org/x/perf/cmd/benchstat
bin/protoc-gen-go:      MODULE = plugins
bin/protoc-gen-go:      PACKAGE = google.golang.org/protobuf/cmd/protoc-gen-go
bin/protoc-gen-go-grpc: MODULE = plugins
bin/protoc-gen-go-grpc: PACKAGE = google.golang.org/grpc/cmd/protoc-gen-go-grpc
bin/grpcurl:            MODULE = grpcurl
bin/grpcurl:            PACKAGE = github.com/fullstorydev/grpcurl/cmd/grpcurl

$(CHECKERS) bin/benchstat: .ci/tools/go.mod .ci/tools/go.sum
$(PLUGINS):   .ci/plugins/go.mod .ci/plugins/go.sum
bin/grpcurl:  .ci/grpcurl/go.mod .ci/grpcurl/go.sum
$(CHECKERS) $(PLUGINS) bin/benchstat bin/grpcurl:
	cd .ci/$(MODULE) && CGO_ENABLED=0 go build -trimpath -o ../../$@ $(PACKAGE)
