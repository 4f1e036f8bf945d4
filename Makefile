# The one door for developers. `make help` lists what it opens.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
EXAMPLES ?= 1000
DEMO_HOME := $(CURDIR)/.backfill/demo

export PIP_ROOT_USER_ACTION := ignore
# Where it is set, each of the many processes of a test or benchmark would compile everything anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo check test test-failed test-slow simulate chaos bench format docs clean

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.for-dev ## Make .venv with everything that development needs.

demo: $(VENV)/.for-demo ## Backfill January 2013 of examples/flights.py, and show what came of it.
	@BACKFILL_HOME=$(DEMO_HOME) $(BIN)/python examples/flights_demo.py

check: $(VENV)/.for-dev ## Lint, types, layers, and that docs/ fit the code.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m backfill.cli.reference --check
	$(BIN)/python docs/state_machine.py --check

test: $(VENV)/.for-dev ## Run the suite against real PostgreSQL, Valkey and Celery workers.
	$(BIN)/pytest -n auto -m "not slow"

test-failed: $(VENV)/.for-dev ## Run again what failed last, one after the other, up to the first that fails again.
	$(BIN)/pytest --last-failed --last-failed-no-failures none --exitfirst -m "not slow"

test-slow: $(VENV)/.for-dev ## Run the tests that take longer.
	$(BIN)/pytest -n auto -m slow

simulate: $(VENV)/.for-dev ## Let the loop run in EXAMPLES simulated worlds of each kind, full of faults; SEED finds a failure again.
	SIMULATE_EXAMPLES=$(EXAMPLES) SIMULATE_SEED=$(SEED) $(BIN)/pytest -n 2 -m slow tests/simulation/test_many_worlds.py $(if $(ONLY),-k $(ONLY))

chaos: $(VENV)/.for-dev ## Kill, freeze and cut off everything, and print what a journal says. SEEDS=20: at random; SEED=7: again.
	@CHAOS_SEED=$(SEED) CHAOS_SEEDS=$(SEEDS) CHAOS_FIRST_SEED=$(if $(SEEDS),$(shell date +%s)) \
		$(BIN)/pytest -n auto -q $(if $(SEED)$(SEEDS),tests/chaos/test_mixed_faults.py,tests/chaos)

bench: $(VENV)/.for-dev ## Measure what is promised about speed, for 35 minutes; QUICK=1: two minutes, ONLY=latency,idle: some of it.
	$(BIN)/python -m benchmarks $(if $(QUICK),--quick) $(if $(ONLY),--only $(ONLY))

format: $(VENV)/.for-dev ## Put code into the one form, and mend what ruff can mend.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.for-dev ## Write the parts of docs/ that come from the code.
	$(BIN)/python -m backfill.cli.reference --write
	$(BIN)/python docs/state_machine.py

clean: ## Remove .venv, caches, and the data of the demo and of tests.
	rm -rf $(VENV) .backfill build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An installation is complete when its mark is there, and out of date when pyproject.toml is younger.

$(VENV)/.for-dev: pyproject.toml | $(VENV)/.made
	@echo "Installing what development needs into $(VENV) ..."
	@$(PIP) install --editable '.[dev]'
	@touch $(VENV)/.for-demo $@

$(VENV)/.for-demo: pyproject.toml | $(VENV)/.made
	@echo "Installing what the demo needs into $(VENV) ..."
	@$(PIP) install --editable '.[embedded,examples]'
	@touch $@

$(VENV)/.made:
	@command -v $(PYTHON) > /dev/null || \
		{ echo "There is no $(PYTHON) here; install Python 3.11 or newer, or name yours: make PYTHON=/path/to/python." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is $$($(PYTHON) -V); this needs Python 3.11 or newer: make PYTHON=/path/to/python." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@touch $@
