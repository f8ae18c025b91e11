# whisper-appliance. `make help` lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

VERSION := $(shell cat VERSION)
COMMIT  := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)$(shell git diff --quiet HEAD 2>/dev/null || echo -dirty)
DATE    := $(shell git log -1 --format=%cd --date=format-local:%Y-%m-%dT%H:%M:%SZ 2>/dev/null || echo unknown)
STAMP   := whisper-appliance/internal/version
LDFLAGS := -s -w -X $(STAMP).number=$(VERSION)+dev -X $(STAMP).commit=$(COMMIT) -X $(STAMP).date=$(DATE)

export TZ := UTC
export GOFLAGS := -buildvcs=false -trimpath

BUILD   := build
RUNTIME := $(BUILD)/engine-runtime
SLOT    := $(BUILD)/slot
CACHE   := $(BUILD)/cache
LOCK    := packaging/engine-runtime.lock
ENGINE_TAGS := whisper,netgo,osusergo
GO_SOURCES  := $(shell git ls-files -co --exclude-standard '*.go' '*.c' '*.h' 2>/dev/null) go.mod go.sum VERSION

PROGRAMS := whisper-appliance whisper-appliance-server whisper-appliance-decode

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

## ---- build ----

setup: ## install what building and running needs (asks apt; does nothing twice)
	@packaging/setup.sh build

build: setup $(SLOT)/.built ## build every program into build/slot

engine-runtime: setup ## assemble whisper.cpp, ggml and their libraries from Debian's packages
	@packaging/engine-runtime.sh $(RUNTIME) $(LOCK)

$(RUNTIME)/lock: packaging/engine-runtime.sh $(LOCK)
	@packaging/engine-runtime.sh $(RUNTIME) $(LOCK)
	@touch $@

$(SLOT)/.built: $(RUNTIME)/lock $(GO_SOURCES)
	@mkdir -p $(SLOT)/bin $(SLOT)/lib $(SLOT)/share
	@for p in $(PROGRAMS); do \
		CGO_ENABLED=0 go build -ldflags '$(LDFLAGS)' -o $(SLOT)/bin/$$p ./cmd/$$p; done
	@CGO_ENABLED=1 go build -tags $(ENGINE_TAGS) -ldflags '$(LDFLAGS)' -o $(SLOT)/bin/whisper-appliance-engine ./cmd/whisper-appliance-engine
	@rm -rf $(SLOT)/lib/engine && cp -a $(RUNTIME)/lib $(SLOT)/lib/engine && rm -f $(SLOT)/lib/engine/lib*.so
	@mkdir -p $(SLOT)/share/doc && rm -rf $(SLOT)/share/doc/engine && cp -a $(RUNTIME)/doc $(SLOT)/share/doc/engine
	@cp VERSION LICENSE $(SLOT)/ && touch $@

clean: ## remove what was built, keep what was fetched
	rm -rf $(SLOT) $(BUILD)/run

.PHONY: help setup build engine-runtime clean
