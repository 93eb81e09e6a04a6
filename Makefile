# Two commands for everybody: `make demo` and `make test`. Both make .venv first, with the versions of constraints.txt.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DATASET ?=
# processes of the tests; each computes with one thread
JOBS ?= 2
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile

.PHONY: demo test test-all lint install bundles clean

demo: $(VENV)/.installed
	$(BIN)/python -m medmamba_monai demo $(if $(DATASET),--dataset_dir "$(DATASET)")

test: $(VENV)/.installed lint
	$(PYTEST) -m "not slow"

test-all: $(VENV)/.installed lint
	$(PYTEST)

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m medmamba_monai bundle build --check

bundles: $(VENV)/.installed
	$(BIN)/python -m medmamba_monai bundle build

install: $(VENV)/.installed

# torch first and by its exact version: what is installed after it must not choose another
$(VENV)/.installed: setup.cfg setup.py pyproject.toml constraints.txt $(wildcard medmamba_monai/ops/selective_scan/csrc/*)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev,dicom,export,system_metrics,triton,tune]"
	touch $@

clean:
	rm -rf $(VENV) build dist demo *.egg-info .pytest_cache .mypy_cache .ruff_cache
