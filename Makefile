# Two commands do everything on a fresh machine: `make demo` (the main job) and `make test` (all tests).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH := 2.13.0
export OMP_NUM_THREADS ?= 1

.PHONY: demo demo-full test test-fast lint bench clean
demo: $(VENV)/.ready
	$(BIN)/python examples/demo.py

demo-full: $(VENV)/.ready
	$(BIN)/python examples/demo.py --full

test: $(VENV)/.ready lint
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-fast: $(VENV)/.ready
	$(BIN)/python -m pytest -m "not slow"

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.ready
	$(BIN)/python benchmarks/engine_overhead.py

# torch first: a CPU build, so that nothing pulls CUDA packages
$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet torch==$(TORCH) -c constraints.txt
	$(BIN)/python -m pip install --quiet --editable ".[dev]" -c constraints.txt
	$(BIN)/mlplugins build
	touch $@

clean:
	rm -rf $(VENV) demo build dist .pytest_cache .mypy_cache .ruff_cache
