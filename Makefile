# engram. `make serve` and `make test` do all the set-up they need; nothing is installed outside this folder.
#
# make serve            run a node on 127.0.0.1:3000, data in ./data (settings: docs/settings.md)
# make test             run the tests
# make verify           what CI runs: format, lint, types, imports, benchmarks once, tests with coverage; changes nothing
# make fix              format, and repair what the linter can repair
# make property         the property tests, long
# make simulate         clusters in one thread: SEED=7 repeats one, COUNT=200000 JOBS=2 runs many
# make disk             the log's file on a failing disk: TRIALS=100000
# make histories        record what clients see of a cluster under faults, and judge it
# make mutants          break engram in one place at a time, and see that a test notices
# make crash            kill -9 a server under load, 20 rounds
# make drill-forgetting delete, then look for the text in every file
# make drill-projections lose, break and put back Redis, LanceDB and the read models under load: ROUNDS=30 SEED=7
# make drill            hurt a cluster under load in every way that it has to stand, and plot how soon it writes again
# make cluster          three nodes in containers: build, form the cluster, verify it, take it down (needs Docker)
# make bench            measure, and write benchmarks/results/
# make recall           measure how well memories are found, where the data is at hand
# make quality          the same over HTTP, on LongMemEval, LoCoMo and BEAM: which aims are met, with a picture
# make pins             write requirements/*.txt anew from pyproject.toml
# make clean            remove what the commands above made, but no data

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
ROUNDS ?= 20
SEED ?= 1
COUNT ?= 1
TRIALS ?= 1000
JOBS ?= 1

# One thread: the matrices are small, and a second one only takes the core from the event loop.
export OPENBLAS_NUM_THREADS := 1
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help setup serve test verify format-check lint types imports coverage bench-once fix property simulate disk \
	histories mutants crash drill-forgetting drill-projections drill cluster bench recall quality pins clean

help:
	@sed -n '3,21s/^# //p' Makefile

setup: $(VENV)/dev.stamp

$(BIN)/python:
	@python= ; \
	for candidate in $${PYTHON:-} python3.11 python3.12 python3.13 python3; do \
		if $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$$candidate; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
		echo 'engram needs Python 3.11 or newer: none was found on PATH. Name one: make PYTHON=/path/to/python' >&2; exit 1; \
	fi; \
	echo "setting up $(VENV) with $$($$python --version)" >&2; \
	$$python -m venv $(VENV) || { \
		rm -rf $(VENV); echo "$$python has no venv module; on Debian or Ubuntu: apt install python3-venv" >&2; exit 1; }

$(VENV)/runtime.stamp: requirements/runtime.txt requirements/build.txt pyproject.toml | $(BIN)/python
	@echo 'installing what engram runs on' >&2
	@$(PIP) install -r requirements/runtime.txt -r requirements/build.txt
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/dev.stamp: requirements/dev.txt $(VENV)/runtime.stamp
	@echo 'installing what the tests and checks need' >&2
	@$(PIP) install -r requirements/dev.txt
	@touch $@

$(VENV)/bench.stamp: requirements/bench.txt $(VENV)/dev.stamp
	@echo 'installing what the plots need' >&2
	@$(PIP) install -r requirements/bench.txt
	@touch $@

serve: $(VENV)/runtime.stamp
	@exec $(BIN)/python -m engram serve

# All of them on every core, up to four; a module's tests stay together, as they share its servers. Some: in one process.
test: $(VENV)/dev.stamp
	$(BIN)/python -m pytest $(if $(ARGS),$(ARGS),-n auto --maxprocesses 4 --dist loadfile)

# The tests come last, so that their closing line is at the end of what a reader sees.
verify: format-check lint types imports bench-once coverage

format-check: $(VENV)/dev.stamp
	$(BIN)/ruff format --check .

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .

types: $(VENV)/dev.stamp
	$(BIN)/mypy

imports: $(VENV)/dev.stamp
	$(BIN)/lint-imports --no-cache

bench-once: $(VENV)/dev.stamp
	$(BIN)/python -m benchmarks.bench_http --quick
	$(BIN)/python -m benchmarks.bench_transport --quick
	$(BIN)/python -m benchmarks.bench_consensus --quick
	$(BIN)/python -m benchmarks.bench_cluster --quick
	$(BIN)/python -m benchmarks.bench_rebuild --quick
	$(BIN)/python -m benchmarks.bench_events --quick

coverage: $(VENV)/dev.stamp
	THOROUGH=1 CONTAINERS=1 $(BIN)/python -m coverage run -m pytest $(ARGS)
	$(BIN)/python -m coverage report

fix: $(VENV)/dev.stamp
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

property: $(VENV)/dev.stamp
	HYPOTHESIS_PROFILE=deep $(BIN)/python -m pytest --timeout=0 tests/property tests/contracts tests/log/test_storage_model.py \
		tests/log/test_codec.py tests/log/consensus/test_quorum.py tests/test_events.py $(ARGS)

simulate: $(VENV)/dev.stamp
	$(BIN)/python -m tests.simulation.run --seed $(SEED) --count $(COUNT) --jobs $(JOBS) \
		$(if $(PROJECTIONS),--projections) $(ARGS)

disk: $(VENV)/dev.stamp
	$(BIN)/python -m tests.disk.run --seed $(SEED) --trials $(TRIALS) $(ARGS)

histories: $(VENV)/dev.stamp
	$(BIN)/python -m tests.linearizability.run $(ARGS)

mutants: $(VENV)/dev.stamp
	$(BIN)/python -m tests.mutants.run $(ARGS)

crash: $(VENV)/dev.stamp
	$(BIN)/python -m tests.crash.crash --rounds $(ROUNDS) $(ARGS)

drill-forgetting: $(VENV)/dev.stamp
	THOROUGH=1 $(BIN)/python -m pytest --timeout=0 tests/drills $(ARGS)

drill-projections: ROUNDS = 30
drill-projections: $(VENV)/dev.stamp
	$(BIN)/python -m tests.projection_drill.drill --rounds $(ROUNDS) $(if $(filter-out file,$(origin SEED)),--seed $(SEED)) \
		--out benchmarks/results $(ARGS)

drill: $(VENV)/bench.stamp
	$(BIN)/python -m tests.cluster.drill --out benchmarks/results $(ARGS)

cluster:
	@scripts/cluster-try.sh

bench: $(VENV)/bench.stamp
	$(BIN)/python -m benchmarks.bench_http $(ARGS)
	$(BIN)/python -m benchmarks.bench_transport
	$(BIN)/python -m benchmarks.bench_consensus
	$(BIN)/python -m benchmarks.bench_cluster
	$(BIN)/python -m benchmarks.bench_rebuild
	$(BIN)/python -m benchmarks.bench_events
	$(BIN)/python -m benchmarks.bench_redis
	$(BIN)/python -m benchmarks.bench_past
	$(BIN)/python -m benchmarks.bench_lance

recall: $(VENV)/dev.stamp
	$(BIN)/python -m benchmarks.recall_quality $(ARGS)
	$(BIN)/python -m benchmarks.context_quality $(ARGS)

quality: $(VENV)/bench.stamp
	scripts/run_quality_benchmarks.sh $(ARGS)

pins: $(BIN)/python
	$(BIN)/python requirements/pin.py

clean:
	rm -rf $(VENV) .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache build dist ./*.egg-info
