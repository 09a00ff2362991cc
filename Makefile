# placemat: everything that a person or CI runs. A bare `make` prints this help.
.DEFAULT_GOAL := help
SHELL := /bin/bash

PYTHON ?= /usr/bin/python3
PREFIX ?= /usr/local
VENV := .venv
BIN := $(VENV)/bin
RUFF := $(BIN)/ruff
RUFF_CONFIG := --config packaging/ruff.toml
QUICKSTART := examples/quickstart/cluster.yml
PYTEST := $(BIN)/python -m pytest
# Many tests wait for processes or timers, so more of them than cores run side by side.
SIDE_BY_SIDE := --numprocesses 4 --dist loadfile

.PHONY: help packages setup guest run check unit coverage integration e2e test golden install uninstall clean

help: ## show this help
	@sed -nE 's/^([a-z0-9-]+):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

packages: ## install the Debian packages that are missing (root)
	@packaging/install-packages packaging/apt-runtime.txt packaging/apt-dev.txt

$(VENV)/.ready: setup.cfg pyproject.toml packaging/requirements-dev.txt
	$(PYTHON) -m venv --system-site-packages $(VENV)
	$(BIN)/python -m pip install --quiet --requirement packaging/requirements-dev.txt
	$(BIN)/python -m pip install --quiet --no-build-isolation --no-deps --editable .
	touch $@

setup: packages $(VENV)/.ready ## make .venv with placemat-cli and placematd

guest: packages ## build the example guest from Debian's packages
	examples/guest/build.py

run: setup guest ## bring the quick start up in a sandbox until Ctrl-C (ONCE=1: check it and tear it down)
	$(BIN)/placemat-cli sandbox --nat -- $(if $(ONCE),env PLACEMAT_CLI=$(BIN)/placemat-cli examples/quickstart/check,$(BIN)/placemat-cli up --attach $(QUICKSTART))

check: $(VENV)/.ready ## format, lint, types, unit tests: no root, under a minute
	$(RUFF) format $(RUFF_CONFIG) --check .
	$(RUFF) check $(RUFF_CONFIG) --output-format concise .
	$(BIN)/mypy placematd cli
	$(PYTEST) -q $(SIDE_BY_SIDE) tests/unit

unit: $(VENV)/.ready ## unit tests, one after the other
	$(PYTEST) tests/unit

coverage: $(VENV)/.ready ## unit tests with branch coverage
	$(PYTEST) -q $(SIDE_BY_SIDE) --cov --cov-config setup.cfg --cov-report term tests/unit

integration: setup guest ## tests of the adapters against the real thing, in namespaces of their own
	$(PYTEST) -m "integration and not e2e" tests

e2e: setup guest ## tests of whole clusters in sandboxes
	$(PYTEST) -m e2e tests

test: setup guest check ## everything: installs what it needs, then unit, integration and end-to-end tests
	$(PYTEST) -m "integration or e2e" tests

golden: $(VENV)/.ready ## write the golden files anew (read the diff!)
	$(PYTEST) -q tests/unit --update-golden

install: guest ## install under $(PREFIX) with the quick start as placemat@quickstart (root)
	@packaging/install-packages packaging/apt-runtime.txt
	packaging/install $(PREFIX)

uninstall: ## remove what install installed
	packaging/uninstall $(PREFIX)

clean: ## remove what setup, guest and the tests made
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
	rm -rf examples/quickstart/data examples/cloud-init/data
