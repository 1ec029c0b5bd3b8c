# What a newcomer needs: `make embed`, `make test`. The rest: `make help`. Works with make 3.81 (macOS) and BSD tools.

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

# Through the environment into the recipes, so that a space or a quote in them does no harm.
DOCS ?= sample_docs
export DOCS Q
ifdef COLLECTION
export PIPELINE_COLLECTION := $(COLLECTION)
endif

.DEFAULT_GOAL := help
.PHONY: help embed ask nightly serve test check bench lock clean

help:
	@echo 'make embed [DOCS=folder]   read, chunk, embed and index a folder (sample_docs)'
	@echo 'make ask Q="question"      answer a question from what was embedded'
	@echo '                           both take COLLECTION=name, to keep several sets of documents apart'
	@echo 'make nightly [DOCS=folder] what `pipeline schedule` starts every night; the settings are CONFIG=file,'
	@echo '                           left out pipeline.toml, or else configs/nightly.toml'
	@echo 'make serve [ARGS=...]      a page for the browser, and Dify, OpenAI-compatible clients; ARGS go to pipeline serve'
	@echo 'make test [ARGS=...]       run the tests; ARGS go to pytest'
	@echo 'make check                 lint, format, types, imports and tests: what a change must pass'
	@echo 'make bench                 print the figures of the README (some minutes; best on a quiet machine)'
	@echo 'make lock [ARGS=--upgrade] resolve requirements/*.lock anew'
	@echo 'make clean                 remove .venv and caches; never your data'

embed: $(VENV)/.base
	@$(BIN)/pipeline run "$$DOCS" || { code=$$?; \
	  if [ $$code -eq 3 ]; then echo 'All but the files named above can be searched now.' >&2; fi; exit $$code; }
	@if [ "$$DOCS" = sample_docs ]; then \
	  echo 'Such as: make ask Q="How thick must rime be before the duty technician is called?"'; fi
	@echo 'Or with a browser: make serve'

ask: $(VENV)/.base
	@if [ -z "$$Q" ]; then echo 'Which question? make ask Q="..."' >&2; exit 2; fi
	@$(BIN)/pipeline ask "$$Q" || [ $$? -eq 4 ]

CONFIG ?= $(firstword $(wildcard pipeline.toml) configs/nightly.toml)
export CONFIG

nightly: $(VENV)/.base
	@$(BIN)/pipeline --config "$$CONFIG" -q run --wait-lock 1800 $(if $(filter file,$(origin DOCS)),,"$$DOCS")

serve: $(VENV)/.base
	@$(BIN)/pipeline serve $(ARGS)

# Two thirds of the time of one process on two cores; a file's tests stay in one process and share what they built. Byte
# code is kept whatever this shell says: without it each of the hundreds of processes of the tests compiles the package.
PYTEST = PYTHONDONTWRITEBYTECODE= $(BIN)/pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder $(ARGS)

test: $(VENV)/.dev
	$(PYTEST)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTEST)

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks.incremental
	$(BIN)/python -m benchmarks.versions
	$(BIN)/python -m benchmarks.embed_limit
	$(BIN)/python -m benchmarks.crash --kills 40
	$(BIN)/python -m benchmarks.nights --nights 16 --files 100 --svg build/nights.svg
	PIPELINE_DATA=build/bench $(BIN)/pipeline --provider builtin --quiet run sample_docs
	$(BIN)/python -m benchmarks.cold_search --data build/bench

# The newest Python of those that fit, tried by running it: a name on the PATH may be a shim without a Python behind it.
$(VENV)/bin/python:
	@for python in $(PYTHON) python3.13 python3.12 python3.11 python3; do \
	  if "$$python" -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "Making $(VENV) with $$("$$python" --version)"; exec "$$python" -m venv $(VENV); \
	  fi; \
	done; \
	echo 'No Python 3.11 or newer with venv was found. Install one (Debian, Ubuntu: sudo apt install python3 python3-venv;' >&2; \
	echo 'macOS: brew install python@3.13), or name it: make embed PYTHON=/path/to/python3' >&2; \
	exit 1

# The stamps are written last: an installation that was interrupted is begun again. dev.lock holds all of base.lock.
$(VENV)/.base: $(VENV)/bin/python requirements/base.lock pyproject.toml
	@echo 'Installing packages into $(VENV) (a minute or two the first time)'
	@$(PIP) install --no-deps --require-hashes -r requirements/base.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.base requirements/dev.lock
	@echo 'Installing the tools for tests into $(VENV)'
	@$(PIP) install --no-deps --require-hashes -r requirements/dev.lock
	@touch $@

COMPILE = build/uv/bin/uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --generate-hashes \
	--override requirements/overrides.txt --custom-compile-command 'make lock'

lock: $(VENV)/bin/python
	@$(BIN)/python -m venv build/uv && build/uv/bin/python -m pip --disable-pip-version-check --quiet install uv
	$(COMPILE) $(ARGS) --group dev pyproject.toml -o requirements/dev.lock
	$(COMPILE) --constraint requirements/dev.lock --group build pyproject.toml -o requirements/base.lock

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
