# Every chore of the project. `make demo` and `make test` need a Rust toolchain and nothing else.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# The build cache lives outside the checkout, so that a fresh clone builds warm.
CARGO_TARGET_DIR ?= $(HOME)/.cache/ringraft/target
export CARGO_TARGET_DIR
BIN := $(CARGO_TARGET_DIR)/release/ringraft
# The simulator with its assertions on and the mutants compiled in; one build for all of them.
SIM := $(CARGO_TARGET_DIR)/sim/ringraft
# loom needs a configuration flag for the whole build: its own folder keeps the ordinary one warm.
LOOM_DIR := $(CARGO_TARGET_DIR)-loom
# So does shuttle.
SHUTTLE_DIR := $(CARGO_TARGET_DIR)-shuttle
# How many times the schedules of `make test` a run of `make shuttle` makes: forty are two million.
SHUTTLE_TIMES ?= 40
PEERS ?= ../shared/peers
# The program that `make mixed` runs beside the new one, built from the history: its sources lie in the cache, its build beside it.
OLD := 0228df8
OLD_SOURCES := $(CARGO_TARGET_DIR)/old-$(OLD)
OLD_DIR := $(CARGO_TARGET_DIR)-$(OLD)
OLD_BIN := $(OLD_DIR)/release/ringraft
CARGO ?= cargo
LOCKED := --locked

.PHONY: help demo test build where lint format loom schedules shuttle sim sim-test sim-ci build-sim canary mutants bench bench-ring bench-peers scripts rewrite-scripts docs setup hostile mixed power nightly old clean

help: ## What can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

setup: ## Installs the system packages that the build needs (only a linker)
	@if ! command -v cc >/dev/null; then \
	  echo "ringraft: no C linker found, installing gcc (Debian package) for rustc to link with"; \
	  if [ "$$(id -u)" = 0 ]; then apt-get update -q && apt-get install -y -q --no-install-recommends gcc libc6-dev; \
	  else sudo apt-get update -q && sudo apt-get install -y -q --no-install-recommends gcc libc6-dev; fi; \
	fi
	@command -v $(CARGO) >/dev/null || { echo "ringraft: no cargo found; install the Rust toolchain named in rust-toolchain.toml"; exit 1; }

build: setup ## The release program
	$(CARGO) build $(LOCKED) --release -p ringraft-cli

where: ## Prints the path of the release program
	@echo $(BIN)

demo: build ## Three processes, load, kill -9, verdict
	$(BIN) demo

test: setup loom schedules canary sim-test ## Every test, and 20 million simulated events
	$(CARGO) test $(LOCKED) --workspace

build-sim: setup ## The program with assertions and mutants
	$(CARGO) build $(LOCKED) --profile sim -p ringraft-cli --features mutants

canary: build-sim ## A bug that the simulator must find
	$(SIM) sim --mutant canary --seeds 5

mutants: build-sim ## Puts each known bug back: the simulator must find every one
	$(SIM) sim --mutant all --length short --draws 3

hostile: setup ## Attacks on real clusters under honest load; five minutes (WORDS="stderr slots" runs some of them)
	$(CARGO) test $(LOCKED) --release -p ringraft-cli --test hostile -- $(WORDS)

mixed: setup ## The program of an earlier commit and this one in one cluster, and replaced by this one
	@if ! git cat-file -e $(OLD)^{commit} 2>/dev/null; then \
	  echo "ringraft: commit $(OLD) is not in the history here, so that there is no earlier program to run beside this one; skipped"; \
	else \
	  $(MAKE) --no-print-directory old; \
	  RINGRAFT_OLD=$(OLD_BIN) $(CARGO) test $(LOCKED) --release -p ringraft-cli --test mixed -- $(WORDS); \
	fi

power: setup ## All servers lose what they have not synced, and end: 30 times (ROUNDS=, SEED=); Linux only
	$(CARGO) build $(LOCKED) --release -p ringraft-power-undo
	RINGRAFT_UNDO=$(CARGO_TARGET_DIR)/release/libringraft_undo.so ROUNDS=$(ROUNDS) SEED=$(SEED) \
	  $(CARGO) test $(LOCKED) --release -p ringraft-cli --test power

nightly: mutants hostile mixed power ## What takes too long for each change

old: $(OLD_BIN)
	@true

$(OLD_BIN):
	rm -rf $(OLD_SOURCES) && mkdir -p $(OLD_SOURCES)
	git archive $(OLD) | tar -x -C $(OLD_SOURCES)
	cd $(OLD_SOURCES) && CARGO_TARGET_DIR=$(OLD_DIR) $(CARGO) build $(LOCKED) --release -p ringraft-cli

loom: setup ## The ring under every interleaving that loom can make
	CARGO_TARGET_DIR=$(LOOM_DIR) RUSTFLAGS="--cfg loom" $(CARGO) test $(LOCKED) -p ringraft-ring --release --test loom

under_shuttle = CARGO_TARGET_DIR=$(SHUTTLE_DIR) RUSTFLAGS="--cfg shuttle" $(CARGO) test $(LOCKED) --profile shuttle $(1)

# One set of schedules, the same in every run.
schedules: setup ## The ring and the loops of a host under some schedules of shuttle
	$(call under_shuttle,-p ringraft-ring --test shuttle)
	$(call under_shuttle,-p ringraft --lib shuttle_tests)

shuttle: setup ## The same under two million new schedules (SHUTTLE_RANDOM_SEED makes a run again)
	@export SHUTTLE_TIMES=$(SHUTTLE_TIMES) SHUTTLE_RANDOM_SEED=$${SHUTTLE_RANDOM_SEED:-$$(date +%s)}; \
	echo "ringraft: SHUTTLE_RANDOM_SEED=$$SHUTTLE_RANDOM_SEED"; \
	$(call under_shuttle,-p ringraft-ring --test shuttle); \
	$(call under_shuttle,-p ringraft --lib shuttle_tests)

lint: setup ## The rules of the house, format, clippy and rustdoc, all without a warning
	docs/rules.sh
	$(CARGO) fmt --all --check
	$(CARGO) clippy $(LOCKED) --workspace --all-targets -- -D warnings
	$(CARGO) clippy $(LOCKED) -p ringraft-cli --features mutants -- -D warnings
	CARGO_TARGET_DIR=$(LOOM_DIR) RUSTFLAGS="--cfg loom" $(CARGO) clippy $(LOCKED) -p ringraft-ring --tests -- -D warnings
	CARGO_TARGET_DIR=$(SHUTTLE_DIR) RUSTFLAGS="--cfg shuttle" $(CARGO) clippy $(LOCKED) -p ringraft-ring -p ringraft --tests -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc $(LOCKED) --workspace --no-deps --document-private-items

format: ## Formats the code
	$(CARGO) fmt --all

docs: setup ## The API documentation
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc $(LOCKED) --workspace --no-deps

scripts: build ## Runs the golden scripts with the release program
	for file in crates/core/testdata/*.txt; do $(BIN) script $$file; done

rewrite-scripts: ## Writes the golden scripts anew; commit only what you understand
	REWRITE=1 $(CARGO) test $(LOCKED) -p ringraft-core --test scripts

sim: build ## The long simulation: 20,000 short seeds, 20,000 with everything on, 1,000 long ones, eight times sixty days
	$(BIN) sim --seeds 20000 --length short --full
	$(BIN) sim --seeds 20000 --start 3000001 --length short --profile all
	$(BIN) sim --seeds 1000 --start 1000001 --length long --full
	$(BIN) sim --seeds 8 --start 2000001 --profile days

# The parts that make test and .ci/run can afford: 20 million events, and more than 100 million.
sim-test: build-sim
	$(SIM) sim --seeds 900 --length short

sim-ci: build-sim
	$(SIM) sim --seeds 4500 --start 10001 --length short --full

bench: build bench-ring ## Throughput and latency of this machine
	benches/run.sh

bench-ring: ## The ring beside crossbeam-channel and std
	$(CARGO) bench $(LOCKED) -p ringraft-ring --bench ring

bench-peers: build ## ringraft, SOFAJRaft, hashicorp/raft, Dragonboat and the floor on the same work, interleaved
	PEERS=$(PEERS) benches/peers.sh

clean: ## Removes the build cache
	rm -rf $(CARGO_TARGET_DIR) $(LOOM_DIR) $(SHUTTLE_DIR) $(OLD_DIR)
