# Every task by one verb. `make demo` and `make test` set up all that they need on a fresh machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"expected Python 3.11 or newer, got {sys.version.split()[0]} (make PYTHON=…)")'
	@echo "Installing into $(VENV): some minutes, torch is large …"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,test,otel,postgresql,report]'
	@touch $@

.PHONY: help setup demo serve test check format bench clean

help:  ## what there is to do
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 14

setup: $(STAMP)  ## the environment, in .venv

demo: $(STAMP)  ## train on digits, serve, predict with sensitivity, stop (STAY=1 goes on serving; PORT=8081)
	$(BIN)/python docs/demo.py $(if $(STAY),--stay) $(if $(PORT),--port $(PORT))

serve: $(STAMP)  ## serve the bundles of ./bundles
	$(BIN)/chainzrule-serve --repository bundles

check: $(STAMP)  ## formatter, linter, type checker, import contracts
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	@mkdir -p build
	@$(BIN)/lint-imports --no-cache > build/imports.log 2>&1 || { cat build/imports.log; exit 1; }

test: check  ## make check, then the tests, two to four files at a time
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

format: $(STAMP)  ## put the code into its form
	$(BIN)/ruff check --quiet --fix .
	$(BIN)/ruff format --quiet .

bench: $(STAMP)  ## side-by-side measurements (minutes; not part of the tests)
	$(BIN)/python benchmarks/plans.py
	$(BIN)/python benchmarks/dreg.py
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/serving.py  # needs wrk and taskset

clean:  ## remove what the tasks made, the environment included; bundles stay
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
