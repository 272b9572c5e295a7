# `make demo` and `make test` need Python (>= 3.10), pip, make and git, nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: demo test test-slow lint chaos pretrain clean

demo: $(VENV)/.installed
	$(BIN)/simprompt demo --out runs/demo

# One process for each core, up to four. Python warns of text files that are opened without an
# encoding; pyproject.toml makes that an error in our own modules.
test: $(VENV)/.installed-test lint
	PYTHONWARNDEFAULTENCODING=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

test-slow: $(VENV)/.installed-test
	PYTHONWARNDEFAULTENCODING=1 $(BIN)/python -m pytest -m slow

lint: $(VENV)/.installed-test
	$(BIN)/ruff check src tests benchmarks pretrain
	$(BIN)/ruff format --check --quiet src tests benchmarks pretrain
	$(BIN)/mypy

# At least 300 kills of every long command, each followed by a restart: under half an hour.
chaos: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python tests/chaos.py

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
