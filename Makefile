# What can be done in this repository; `make` alone lists it. Needs nothing but make and Python 3.11 to 3.13.

.DEFAULT_GOAL := help
.PHONY: help setup demo dev test check lint types floors lock check-lock tables check-tables docs bench clean

BIN := .venv/bin
READY := .venv/.ready
SUITABLE := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))
PYTHON ?= $(firstword $(foreach name,python3 python3.13 python3.12 python3.11,\
	$(shell $(name) -c "$(SUITABLE)" 2>/dev/null && echo $(name))) python3)
COMPILE := pip compile --quiet --extra dev --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-annotate --no-header
DLT := "dlt[parquet,postgres]==1.31.0"
AIRBYTE := "airbyte-cdk==7.39.1"
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1
# Child processes of the tests start twice as fast with compiled modules.
unexport PYTHONDONTWRITEBYTECODE

help: ## List what can be done
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## Make the virtual environment .venv with the pinned dependencies

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c "$(SUITABLE)" || { echo "Muxly needs Python 3.11, 3.12 or 3.13: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing the pinned dependencies into .venv (once per change of requirements.lock)"
	@$(BIN)/python -m pip install --quiet --no-deps --require-hashes --requirement requirements.lock
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(READY) ## Run the main job on the sample API; again: only what changed
	@$(BIN)/muxly demo

dev: $(READY) ## Start API, Dagster UI, daemon and code server on MUXLY_PROJECT, or else on the demo with its API
ifdef MUXLY_PROJECT
	@$(BIN)/muxly dev $(ARGS)
else
	@test -f .demo/day || $(MAKE) --no-print-directory demo
	@$(BIN)/muxly dev --demo $(ARGS)
endif

test: $(READY) .venv-bench/.ready .venv-airbyte/.ready ## Run the test suite (arguments for pytest: make test ARGS="-k lake")
	@$(BIN)/python -m pytest -n auto $(ARGS)

check: lint types floors check-lock check-tables docs ## Do what CI does, besides the tests

lint: $(READY) ## Check style and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(READY) ## Check types, strictly
	@$(BIN)/mypy

floors: $(READY) ## Check that rooms import downward only
	@$(BIN)/lint-imports

lock: $(READY) ## Bring requirements.lock up to date with pyproject.toml
	@$(BIN)/uv $(COMPILE) pyproject.toml --output-file requirements.lock

# Seeded with the present lock, the compiler keeps every pin that still fits: a difference means that pyproject.toml asks for another.
check-lock: $(READY)
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && cp requirements.lock "$$folder" \
	&& $(BIN)/uv $(COMPILE) pyproject.toml --output-file "$$folder/requirements.lock" > /dev/null \
	&& { diff -u requirements.lock "$$folder/requirements.lock" || { echo "requirements.lock is out of date: run make lock" >&2; exit 1; }; }
	@! grep -nE '://|^-' requirements.lock || { echo "requirements.lock must name no index address" >&2; exit 1; }

tables: $(READY) ## Write what README and docs say of connectors, from their declarations
	@$(BIN)/python -m docs.tables

check-tables: $(READY)
	@$(BIN)/python -m docs.tables --check

docs: $(READY) ## Build the documentation into site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(READY) .venv-bench/.ready .venv-airbyte/.ready ## Measure how fast it is (docs/development/benchmarks.md)
	@$(BIN)/python -m benchmarks

# dlt, which Muxly is measured against and whose sources it runs, in an environment of its own: its dependencies must not bind Muxly's.
.venv-bench/.ready: pyproject.toml | $(READY)
	@$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python .venv-bench
	@$(BIN)/uv pip install --quiet --python .venv-bench/bin/python $(DLT)
	@touch $@

# airbyte-cdk, which runs Airbyte's manifests, for the tests of that: it pins what Muxly must be free to choose.
.venv-airbyte/.ready: pyproject.toml | $(READY)
	@$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python .venv-airbyte
	@$(BIN)/uv pip install --quiet --python .venv-airbyte/bin/python $(AIRBYTE)
	@touch $@

clean: ## Delete everything that was made here, the virtual environment and the demo too
	@rm -rf .venv .venv-bench .venv-airbyte .demo .muxly .dagster site build dist .coverage .*_cache *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
