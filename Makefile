# `make demo` and `make test` need Python (>= 3.10), pip, make and git, nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: demo test test-slow lint pretrain clean

demo: $(VENV)/.installed
	$(BIN)/simprompt demo --out runs/demo

test: $(VENV)/.installed-test lint
	$(BIN)/python -m pytest

test-slow: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.installed-test
	$(BIN)/ruff check src tests benchmarks pretrain
	$(BIN)/ruff format --check --quiet src tests benchmarks pretrain
	$(BIN)/mypy

# Rebuilds the embedded icon CLIP from public icon packs: about 90 minutes on two cores.
pretrain: $(VENV)/.installed-pretrain
	$(BIN)/python -m pretrain

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.installed-%: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$*]'
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) build dist runs
