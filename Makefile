# Two commands a newcomer needs: `make run` and `make test`. Everything installs into .venv from requirements.lock.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help venv run test check format proto lock bench bench-extproc clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

venv: $(VENV)/.installed  ## create .venv from requirements.lock

$(VENV)/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "fairlead needs Python 3.11 or newer; set PYTHON=python3.x")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

run: venv  ## start the local stack and send a first request through it (ARGS=--once to exit afterwards)
	$(BIN)/fairlead up --first-request $(ARGS)

test: venv  ## run every test (ARGS are passed to pytest)
	$(BIN)/python -m pytest $(ARGS)

check: venv  ## lint, types, import floors, generated code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python proto/generate.py --check
	$(BIN)/python -m picker.plugin_table docs/plugins.md

format: venv  ## apply the formatter and the safe lint fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

proto: venv  ## regenerate picker/extproc/pb from proto/
	$(BIN)/python proto/generate.py

lock:  ## resolve pyproject.toml into requirements.lock again (needs uv)
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --all-extras \
		--upgrade --output-file requirements.lock pyproject.toml

bench: venv  ## run the micro benchmarks (ARGS: --json, --only NAME, --repeat N)
	$(BIN)/python -m bench.micro $(ARGS)

bench-extproc: venv  ## measure the picker behind the real Envoy (ARGS: --only, --arms, --rounds, --peer, --markdown FILE)
	$(BIN)/python -m bench.extproc $(ARGS)

clean:  ## remove .venv and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist *.egg-info
