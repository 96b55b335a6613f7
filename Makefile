# Six words. Each sets up what it needs in .venv first: a fresh machine needs only python3 and make.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# Threads of one torch process that spin while they wait starve every other process on the machine.
export OMP_WAIT_POLICY := PASSIVE

.PHONY: demo test lint type docs bench

demo: .venv/.core
	$(BIN)/sciddm demo

test: .venv/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist worksteal -m "not slow"

lint: .venv/.dev
	$(BIN)/ruff check .

type: .venv/.dev
	$(BIN)/mypy

docs: .venv/.docs
	$(BIN)/python docs/pictures.py
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

bench: .venv/.core
	@failed=0; for file in benchmarks/[!_]*.py; do \
	  echo "$$file --quick"; $(BIN)/python "$$file" --quick || failed=1; \
	done; exit $$failed

# The stamps: a second call installs nothing until the project file or the versions change.
.venv/.core .venv/.dev .venv/.docs: pyproject.toml constraints.txt

.venv/.core: | $(BIN)/python
	$(PIP) -e .
	@touch $@

.venv/.dev: | $(BIN)/python
	$(PIP) -e '.[dev]'
	@touch $@ .venv/.core

.venv/.docs: | $(BIN)/python
	$(PIP) -e '.[docs]'
	@touch $@ .venv/.core

$(BIN)/python:
	$(PYTHON) -m venv .venv
