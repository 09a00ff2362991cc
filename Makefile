# placemat: everything a person or CI runs. A bare `make` prints this help.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= /usr/bin/python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help setup check lint types unit

help: ## show this help
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | column -t -s "$$(printf '\t')"

$(VENV)/.ready: setup.cfg pyproject.toml packaging/requirements-dev.txt
	$(PYTHON) -m venv --system-site-packages $(VENV)
	$(BIN)/python -m pip install --quiet --requirement packaging/requirements-dev.txt
	$(BIN)/python -m pip install --quiet --no-build-isolation --no-deps --editable .
	touch $@

setup: $(VENV)/.ready ## make .venv with placemat-cli and placematd

check: setup ## format, lint, types and unit tests with coverage: no root, under a minute
	$(BIN)/ruff format --config packaging/ruff.toml --check .
	$(BIN)/ruff check --config packaging/ruff.toml --output-format concise .
	$(BIN)/mypy placematd cli
	$(BIN)/coverage run -m pytest -q tests/unit
	$(BIN)/coverage report

unit: setup ## unit tests alone
	$(BIN)/python -m pytest -q tests/unit
