# Everything from a fresh checkout: each target makes the virtual environment and the build that it needs.
# PYTHON chooses the interpreter, VENV where its environment lives, ARGS goes to pytest or to the demo.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
SANITIZED := $(VENV)/sanitized
SOURCES := setup.py $(wildcard src/zmqpub/*.pyx src/zmqpub/*.pxd src/zmqpub/*.pxi src/zmqpub/_c/*.[ch])

.PHONY: demo test lint format types sanitize fuzz bench wheel clean

demo: $(VENV)/.built
	$(BIN)/zmqpub demo $(ARGS)

test: $(VENV)/.built $(VENV)/.test
	@$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The stubs are held against what they describe, too.
types: $(VENV)/.built $(VENV)/.lint $(VENV)/.test
	$(BIN)/mypy src
	$(BIN)/mypy $(shell find examples -name '*.py') tests
	$(BIN)/python -m mypy.stubtest zmqpub._fast zmqpub._build --ignore-disjoint-bases --allowlist tests/stubtest-allowlist.txt --ignore-unused-allowlist

# A build of its own, installed beside the other: nothing of it can end up in a wheel. Python's own allocator is set aside,
# so that AddressSanitizer knows the bounds of each object. No leak detection: CPython itself leaves memory behind at exit.
# Left out are tests whose compiled part others have, and clients that cannot run under a preloaded AddressSanitizer.
PURE := addresses bitcoin_node* block_files blocks_of_node blocks_source chain_view cli* conf_file config follower* foreign_clients ipc* mending \
    new_subscribers node* pace regtest* replay_config replay_protocol rpc* settings simulated* soak subscriber_async subscriber_places \
    subscriber_rpc testing_kit* wire

sanitize: $(SANITIZED)/.built
	@LD_PRELOAD="$$($(CC) -print-file-name=libasan.so):$$($(CC) -print-file-name=libstdc++.so)" PYTHONMALLOC=malloc \
	    ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=1:strict_string_checks=1 \
	    UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 \
	    $(SANITIZED)/bin/python -m pytest -m "not packaging and not unsanitized" $(PURE:%='--ignore-glob=tests/test_%.py') \
	    -o timeout=600 -o cache_dir=$(SANITIZED)/cache $(ARGS)

fuzz: $(VENV)/.built $(VENV)/.fuzz
	mkdir -p $(VENV)/corpus
	$(BIN)/python tests/fuzz/fuzz_decode.py $(or $(ARGS),-max_total_time=60) -artifact_prefix=tests/fuzz/ $(VENV)/corpus tests/fuzz/corpus

bench: $(VENV)/.built $(VENV)/.bench
	$(BIN)/python -m pytest benchmarks --benchmark-json=$(VENV)/results.json $(ARGS)
	$(BIN)/python benchmarks/figures.py $(VENV)/results.json
	$(BIN)/python benchmarks/charts.py $(VENV)/results.json

wheel: $(VENV)/.base
	$(PIP) install "build>=1.2"
	$(BIN)/python -m build $(ARGS)

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks src/*.egg-info
	rm -f src/zmqpub/*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# ---- environments ----

$(VENV)/.base: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "zmqpub needs Python 3.10 or newer: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade "pip>=25.1"
	@touch $@

$(VENV)/.test $(VENV)/.lint $(VENV)/.bench $(VENV)/.fuzz: $(VENV)/.%: $(VENV)/.base
	$(PIP) install --group $*
	@touch $@

# Editable: the compiled modules lie beside their sources, for this interpreter. To install compiles them, once; from then
# on only what changed is compiled again.
$(VENV)/.built: $(VENV)/.base $(SOURCES)
	@if [ $(VENV)/.editable -nt $(VENV)/.base ]; then \
	    set -x; $(BIN)/python setup.py -q build_ext --inplace; \
	else \
	    set -x; $(PIP) install --group compile && $(PIP) install --no-build-isolation -e ".[cli,ipc]" && touch $(VENV)/.editable; \
	fi
	@touch $@

$(SANITIZED)/.built: pyproject.toml $(SOURCES) $(shell find src -name '*.py')
	$(PYTHON) -m venv $(SANITIZED)
	$(SANITIZED)/bin/python -m pip --disable-pip-version-check -q install --upgrade "pip>=25.1"
	$(SANITIZED)/bin/python -m pip --disable-pip-version-check -q install --group test
	ZMQPUB_SANITIZE=address,undefined ZMQPUB_WERROR=1 CC="$(CC)" \
	    $(SANITIZED)/bin/python -m pip --disable-pip-version-check -q install --no-build-isolation ".[cli,ipc]"
	@touch $@
