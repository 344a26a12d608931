PYTHON ?= python3
BIN := .venv/bin
TYPES := --jaxtyping-packages=jaxopt_study,beartype.beartype
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: study experiments docs test test-slow lint clean

study: .venv/study  ## install, then run the main job on embedded data
	$(BIN)/jaxopt-study compare

experiments: .venv/study  ## install, then write the page of the study's stored results, results/study.html
	$(BIN)/python -m experiments report

docs: .venv/docs  ## install, then build the documentation site, docs/_build/html/index.html
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet docs docs/_build/html

test: .venv/test lint docs  ## install, then lint, type-check, build the site and run the default tests
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

test-slow: .venv/test  ## the long checks, then the default tests on optimized programs with all types checked
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal -m slow
	JAX_DISABLE_MOST_OPTIMIZATIONS=0 $(BIN)/python -m pytest --numprocesses 2 --dist worksteal $(TYPES)

lint: .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright

.venv/pip:
	$(PYTHON) -m venv .venv
	$(INSTALL) --upgrade pip
	@touch $@

.venv/study: .venv/pip pyproject.toml constraints.txt
	$(INSTALL) --editable .
	@touch $@

.venv/docs: .venv/study
	$(INSTALL) --group docs
	@touch $@

.venv/test: .venv/study
	$(INSTALL) --group dev
	@touch $@

clean:
	rm -rf .venv docs/_build docs/written docs/reference
