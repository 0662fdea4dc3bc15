# Two commands on a fresh machine: `make demo` and `make test`. They need Python 3.10 or newer, make
# and a package index; everything is installed into .venv.

PYTHON ?= python3
DATA ?=
OUT ?= demo-output
VENV := .venv
BIN := $(VENV)/bin
# Pinned here so that the tests are repeatable; the library itself takes torch >= 2.4.
TORCH ?= torch==2.13.0
# Tests of the library compute on one thread each, so two run at a time; a file stays together, its
# fixtures are made once. Those of scene and panel get a process for each file: Slicer's parts pile
# up in one, which makes it ever slower.
WORKERS ?= 2

.PHONY: demo test lint clean

demo: $(VENV)/library
	$(BIN)/glidereg demo $(if $(DATA),--data $(DATA)) -o $(OUT)

# Pictures need a GL library; with none VTK would end pytest without a word, so this asks first.
test: $(VENV)/tests lint
	$(BIN)/python Testing/slicer_harness/views.py
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile Testing/library Testing/packaging
	printf '%s\n' Testing/panel/test_*.py Testing/scene/test_*.py \
	  | xargs -P $(WORKERS) -n 1 $(BIN)/python -m pytest

lint: $(VENV)/tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

$(VENV)/library: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check "$(TORCH)"
	$(BIN)/pip install --quiet --disable-pip-version-check -e .
	touch $@

$(VENV)/tests: $(VENV)/library
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[test]"
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
