# The two commands of the README are `make quickstart` and `make test`; both set up the environment in .venv first if it is not there.
#
#   make quickstart   fine-tune SevenNet-0 with ELoRA on the embedded Cu-Au set
#   make acac         the same on real DFT data (acetylacetone; downloaded, or found in ZOO_DATA)
#   make test         style, types and the tests that take seconds
#   make slow         the tests that take longer
#   make kill-sweep   of these, the one that kills commands 100 times, with its figures
#   make benchmarks   rewrite the tables of README and docs that a script makes, but for AcAc's (minutes)
#   make benchmark-acac   README's AcAc table: trains what has not been trained
#   make benchmark-scale  the table of data at scale: 200,000 frames from disk (5 minutes)
#   make zero-shot    a record of SevenNet-0 on every data set that is on this disk (an hour), and their table
#   make rows         the leaderboard's own rows that are not on it yet (many hours; goes on where it was stopped)
#   make lint         style and types only
#   make format       rewrite the sources in the house style
#   make clean        remove .venv and the caches
#
# Variables: PYTHON (3.11 or newer), WORKERS (test processes).

PYTHON ?= python3
WORKERS ?= 2
BIN := .venv/bin
PIP := $(BIN)/python -m pip
INSTALLED := .venv/installed.stamp

.PHONY: quickstart acac test slow kill-sweep benchmarks benchmark-acac benchmark-scale zero-shot rows lint format clean
.DEFAULT_GOAL := quickstart

.venv: $(INSTALLED)

# torch before the packages that look for it, mace-torch and fairchem-core last and alone: constraints.txt says why.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "equizoo needs Python 3.11 or newer, found: $$($(PYTHON) --version 2>&1); run: make PYTHON=python3.11" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(PIP) install --quiet --upgrade pip
	$(PIP) install -c constraints.txt torch
	$(PIP) install -c constraints.txt -e ".[dev,mace,allegro,fairchem,torchsim]"
	$(PIP) install --no-deps mace-torch==0.3.16
	$(PIP) install --no-deps fairchem-core==2.24.0
	@touch $@

quickstart: $(INSTALLED)
	$(BIN)/zoo train experiment=quickstart

acac: $(INSTALLED)
	$(BIN)/zoo train experiment=acac

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n $(WORKERS) --dist loadfile

slow: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow -n $(WORKERS) --dist loadfile

kill-sweep: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow tests/unit_zoo/test_kill_sweep.py

benchmarks: $(INSTALLED)
	for name in cards counts imports parity step_cost attach lifecycle routing_parts contracts; do OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.$$name || exit 1; done

benchmark-acac: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.acac

benchmark-scale: $(INSTALLED)
	$(BIN)/python -m benchmarks.data_scale

zero-shot: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.zero_shot

rows: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.rows --workers $(WORKERS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache
