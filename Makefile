# `make up` runs a fleet, `make test` runs the tests. Both need only Python 3.11 or newer, make and a package index.
.DEFAULT_GOAL := help
SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
MEMBERS := libs/common libs/api libs/cli libs/sim \
	services/agent services/autoscaler services/controlplane services/gateway services/health services/provisioner
PINS := constraints.txt $(MEMBERS:%=%/pyproject.toml)
RUNTIME := $(VENV)/.runtime-installed
TOOLS := $(VENV)/.tools-installed
PYTEST_ARGS ?= -q

# Where bytecode is not kept, each process of a fleet spends a third of its start on compiling what the last one compiled.
unexport PYTHONDONTWRITEBYTECODE

# uv where it is, pip where not. The build backend goes in first, so that ten members need no environment of their own each.
install = if command -v uv >/dev/null 2>&1; \
	then set -- uv pip install --quiet --python $(BIN)/python; \
	else set -- $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input; fi; \
	"$$@" -c constraints.txt hatchling editables && \
	"$$@" -c constraints.txt --no-build-isolation $(MEMBERS:%=-e %) $(1)

.PHONY: help up install test test-long sim chaos chaos-recovery lint format bench clean
help:
	@echo "make up       run a fleet here: installs the runtime into $(VENV), then starts navarch up (options: ARGS=...)"
	@echo "make test     run every test that needs nothing from outside (JOBS=2 files at a time)"
	@echo "make test-long   run those that take clusters of real servers and their time"
	@echo "make sim      run SEEDS=500 seeds of the simulated world (FROM=1 JOBS=2 ARGS='--plant NAME')"
	@echo "make chaos    kill, hang and break everything at random, and check that nothing is lost"
	@echo "              (FAILURES=300 or SECONDS=600, SEED=7, PROVIDER=local)"
	@echo "make chaos-recovery  kill one part after the other, and measure how long the next failure takes to be acted on"
	@echo "make install  install everything, test tools included"
	@echo "make lint     ruff, mypy, import-linter"
	@echo "make format   let ruff format and fix"
	@echo "make bench    benchmarks against a ceiling measured in the same run"
	@echo "make clean    remove the virtual environment and caches; a fleet's state in navarch-data stays"

up: $(RUNTIME)
	@exec $(BIN)/navarch up $(ARGS)

install: $(TOOLS)

# Two files at a time: most of them wait for real processes. A file's tests stay together, for they share a fleet.
test: JOBS ?= 2
test: $(TOOLS)
	@$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile $(PYTEST_ARGS)

test-long: $(TOOLS)
	@$(BIN)/python -m pytest -m long $(PYTEST_ARGS)

sim: SEEDS ?= 500
sim: FROM ?= 1
sim: $(TOOLS)
	@$(BIN)/navarch sim seeds $(SEEDS) --from $(FROM) $(if $(JOBS),--jobs $(JOBS)) $(ARGS)

# The seed is printed: with the same one the same things are done, though not at the same instants.
chaos: SEED ?= $(shell date +%s)
chaos: $(TOOLS)
	@$(if $(FAILURES),NAVARCH_CHAOS_FAILURES=$(FAILURES) )$(if $(or $(SECONDS),$(if $(FAILURES),,120)),NAVARCH_CHAOS_SECONDS=$(or $(SECONDS),120) )\
	$(if $(PROVIDER),NAVARCH_CHAOS_PROVIDER=$(PROVIDER) )NAVARCH_CHAOS_SEED=$(SEED) \
	$(BIN)/python -m pytest tests/faults/test_chaos.py -s $(PYTEST_ARGS)

chaos-recovery: ROUNDS ?= 3
chaos-recovery: $(TOOLS)
	@NAVARCH_RECOVERY_ROUNDS=$(ROUNDS) $(BIN)/python -m pytest tests/faults/test_recovery.py -s $(PYTEST_ARGS)

lint: $(TOOLS)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(TOOLS)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(TOOLS)
	@$(BIN)/python -m bench $(ARGS)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@scripts/make-venv $(VENV)

# An environment that has the tools has the runtime too.
$(RUNTIME): $(PINS) | $(BIN)/python
	@echo "installing the runtime into $(VENV)"
	@$(call install)
	@touch $@

$(TOOLS): $(PINS) tests/requirements.txt | $(BIN)/python
	@echo "installing everything into $(VENV)"
	@$(call install,-r tests/requirements.txt)
	@touch $(RUNTIME) $@
