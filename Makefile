# `make demo` and `make test` need Python (>= 3.10), pip, make and git, nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: demo test test-fast test-slow test-matrix lint chaos fuzz errors methods settings notebook mutants coverage offline \
	docs dist pretrain requirements audit sbom clean

demo: $(VENV)/.installed
	$(BIN)/simprompt demo --out runs/demo

# One process for each core, up to four. Python warns of text files that are opened without an
# encoding; pyproject.toml makes that an error in our own modules.
test: $(VENV)/.installed-test lint
	PYTHONWARNDEFAULTENCODING=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

# The edit loop: everything but tests that start processes or export graphs.
test-fast: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal -m "not slow and not integration"

test-slow: $(VENV)/.installed-test
	PYTHONWARNDEFAULTENCODING=1 $(BIN)/python -m pytest -m slow

# The wheel on every Python that is found here, with the lowest and the newest dependencies: the
# table is printed and written to runs/matrix.md. MATRIX="--python 3.12 --only lowest --tests all"
test-matrix: $(VENV)-tools/.installed
	$(VENV)-tools/bin/python tests/matrix.py $(MATRIX)

lint: $(VENV)/.installed-test
	$(BIN)/ruff check src tests benchmarks pretrain requirements
	$(BIN)/ruff format --check --quiet src tests benchmarks pretrain requirements
	$(BIN)/mypy

# At least 300 kills of every long command, each followed by a restart: under half an hour.
chaos: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python tests/chaos.py

# Broken inputs for everything that reads; what fails is kept in tests/corpus. For ten minutes, or
# for SECONDS, or with INPUTS=200000 until there were so many.
SECONDS ?= $(if $(INPUTS),86400,600)
SEED ?= 1
fuzz: $(VENV)/.installed-test
	$(BIN)/python tests/fuzz.py --seconds $(SECONDS) --seed $(SEED) $(if $(INPUTS),--inputs $(INPUTS))

# docs/errors.md again, from the messages in the code.
errors: $(VENV)/.installed
	$(BIN)/python tests/catalogue.py

# What each method learns, from the code: methods/described.json and the table of docs/methods.md.
methods: $(VENV)/.installed
	$(BIN)/python -m simprompt.cli.described

# docs/settings.md again: every key of --set.
settings: $(VENV)/.installed
	$(BIN)/python -m simprompt.cli.settings

# docs/example.ipynb again: its cells are run, without Jupyter, and their outputs written into it.
notebook: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python tests/notebook.py

# Which small wrong changes of the code no test notices: about half an hour on one core.
# MUTANTS="--module metrics" takes one module.
mutants: $(VENV)/.installed-test
	PYTHONWARNDEFAULTENCODING=1 $(BIN)/python tests/mutants.py $(MUTANTS)

# Lines of src/ that the tests run, also in the processes that they start; fails under 92 %.
# `coverage` is no part of what is installed by hash, so it is asked for here.
coverage: $(VENV)/.installed-test
	$(PIP) 'coverage>=7.10'
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n auto --maxprocesses 4 --dist worksteal
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --include='src/*'  # a test runs copies of the package elsewhere

# The demo and the tests, once installed, with no network but this machine's own loopback.
offline: $(VENV)/.installed-test
	$(BIN)/python tests/offline $(BIN)/simprompt demo --out runs/offline
	PYTHONWARNDEFAULTENCODING=1 $(BIN)/python tests/offline \
		$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

# The documentation site in site/, strict, and without a network once the tools are there.
docs: $(VENV)/.installed-docs
	$(BIN)/python tests/offline $(BIN)/mkdocs build --quiet

$(VENV)/.installed-docs: $(VENV)/.installed
	$(PIP) 'mkdocs-material>=9.6' 'mkdocstrings-python>=1.16'
	touch $@

# The wheel and the source package in dist/, and the wheel tried in an empty environment.
dist: $(VENV)/.installed
	rm -rf dist build
	$(PIP) 'build>=1.2'
	$(BIN)/python -m build --no-isolation --outdir dist .
	$(BIN)/python tests/wheel.py dist

# Rebuilds the embedded icon CLIP from public icon packs: about 90 minutes on two cores.
pretrain: $(VENV)/.installed-pretrain
	$(BIN)/python -m pretrain

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# Only files whose hashes stand in requirements/, and nothing is built but this package. torch's
# usual build for Linux asks for CUDA's libraries, a CPU build does not.
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check
HASHED = $(PIP) --require-hashes --no-deps --only-binary :all:
define install
$(HASHED) -r requirements/$(1).txt
if $(BIN)/python requirements/asks_for_cuda.py; then $(HASHED) -r requirements/cuda.txt; fi
$(PIP) --no-deps --no-build-isolation -e .
endef

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml requirements/run.txt requirements/cuda.txt
	$(call install,run)
	touch $@

$(VENV)/.installed-%: $(VENV)/bin/python pyproject.toml requirements/%.txt requirements/cuda.txt
	$(call install,$*)
	touch $@ $(VENV)/.installed

# The lists of requirements/ again, from pyproject.toml (Python >= 3.11); UPGRADE=--upgrade takes
# new versions.
requirements: $(VENV)-tools/.installed
	$(VENV)-tools/bin/python requirements/make.py $(UPGRADE)

# Known weaknesses in what the lists name; one that cannot be looked up fails too.
audit: $(VENV)-tools/.installed
	for list in run test pretrain cuda tools; do \
	  $(VENV)-tools/bin/pip-audit --strict --disable-pip --require-hashes \
	    -r requirements/$$list.txt || exit 1; done

# What the package installs, as CycloneDX: requirements/sbom.cdx.json.
sbom: $(VENV)-tools/.installed
	$(VENV)-tools/bin/python requirements/make.py --sbom

$(VENV)-tools/.installed: requirements/tools.txt
	$(PYTHON) -m venv $(VENV)-tools
	$(VENV)-tools/bin/python -m pip install --quiet --disable-pip-version-check \
	  --require-hashes --no-deps --only-binary :all: -r requirements/tools.txt
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-tools build dist runs .coverage .coverage.*
