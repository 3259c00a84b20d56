.DEFAULT_GOAL := help
.PHONY: help demo doctor test test-export test-export-all lint audit triton-env requirements clean python
SHELL := /bin/bash
UV := 0.13.9

PYTHON ?= $(firstword $(foreach p,python3.12 python3.11 python3,$(shell $(p) -c 'import sys; 0x030b0000 <= sys.hexversion < 0x030d0000 and print("$(p)")' 2>/dev/null)))
BIN := .venv/bin

help: ## show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{sub(/:.*/, "", $$1); printf "  make %-16s %s\n", $$1, $$2}'

demo: .venv/.ready .venv-triton/.ready ## answer a synthetic match through the real stack; pictures in out/
	@$(BIN)/python -m commands.start demo

doctor: .venv/.ready ## what this host lacks for `docker compose up` on a GPU
	@$(BIN)/python -m commands.start doctor --gpu-host

# Else every process of a run would compile all that it imports, for two seconds of a core.
unexport PYTHONDONTWRITEBYTECODE

# More at a time than CI has cores, as most of their time is waiting. Neighbours share servers, so they go to a worker in
# runs, and who has none left takes half of what another still has.
WORKERS := -n 3 --dist worksteal
# Those of the exporter compute, and a file shares what it exported.
EXPORT_WORKERS := -n 2 --dist loadfile

test: .venv/.ready .venv-triton/.ready ## all tests that need no torch, one end-to-end run with a real Triton included
	$(BIN)/python -m pytest $(WORKERS) -m "not export" --cov --cov-report=term:skip-covered

test-export: .venv-export/.ready .venv-triton/.ready ## the export tests, which compare with Ultralytics (torch)
	.venv-export/bin/python -m pytest $(EXPORT_WORKERS) -m "not every_graph" tests/export tests/training

test-export-all: .venv-export/.ready .venv-triton/.ready ## the same, and every network family, size and precision through NVIDIA's builder
	.venv-export/bin/python -m pytest $(EXPORT_WORKERS) tests/export tests/training

lint: .venv/.ready ## ruff, mypy, and the floors: nothing imports upwards
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# Each file as it is pinned, without resolving: what is installed is what is asked about.
audit: .venv/.ready ## known vulnerabilities of the pinned packages (needs the network)
	@for file in gateway dev triton export; do echo "requirements/$$file.txt"; \
	  $(BIN)/uv tool run -q pip-audit@2.10.1 --strict --disable-pip --require-hashes --progress-spinner off -r requirements/$$file.txt || failed=1; done; \
	  test -z "$$failed"

# Two environments on purpose: Triton's Python backend needs numpy 1, the gateway wants current libraries.
# uv, because plain pip takes minutes to install the same pins; --no-deps, because the pins are complete.
.venv/.ready: requirements/gateway.txt requirements/dev.txt pyproject.toml | python
	@$(PYTHON) -m venv .venv
	@echo "installing the gateway's environment"
	@$(BIN)/python -m pip install -q --disable-pip-version-check uv==$(UV)
	@$(BIN)/uv pip install --python $(BIN)/python --no-deps --require-hashes -r requirements/gateway.txt -r requirements/dev.txt
	@$(BIN)/uv pip install -q --python $(BIN)/python --no-deps -e .
	@touch $@

triton-env: .venv-triton/.ready ## the local Triton's environment alone

# Triton's Python backend loads libpython, which Debian's and Ubuntu's python3 do not bring: there uv's own Python serves.
HAS_LIBPYTHON = $(PYTHON) -c 'import ctypes, os, sys; n = "libpython%d.%d.so.1.0" % sys.version_info[:2]; p = os.path.join(sys.base_prefix, "lib", n); ctypes.CDLL(p if os.path.exists(p) else n)' 2>/dev/null
.venv-triton/.ready: requirements/triton.txt | .venv/.ready
	@if $(HAS_LIBPYTHON); then $(PYTHON) -m venv .venv-triton; else \
	  $(BIN)/uv venv -q --clear --managed-python --python 3.12 .venv-triton || { \
	    echo "Triton needs libpython, which $(PYTHON) does not bring. On Debian or Ubuntu: apt-get install lib$$($(PYTHON) -c 'import sys; print("python%d.%d" % sys.version_info[:2])')" >&2; exit 1; }; fi
	@echo "installing the local Triton's environment"
	@$(BIN)/uv pip install --python .venv-triton/bin/python --no-deps --require-hashes --compile-bytecode -r requirements/triton.txt
	@touch $@

# torch comes by pip: it takes the CPU build where pip's configuration offers one, else the CUDA build. torchvision must
# fit it: where only the CUDA one is to be had beside a CPU torch it does not load and is taken away again; the tests
# then use a stand-in, and exporting .pt files asks for one that fits.
.venv-export/.ready: requirements/gateway.txt requirements/dev.txt requirements/export.txt requirements/export-tensorrt.txt requirements/export-check.txt | .venv/.ready
	@$(PYTHON) -m venv .venv-export
	@echo "installing the export environment"
	@.venv-export/bin/python -m pip install -q --disable-pip-version-check torch==2.13.0
	@.venv-export/bin/python -m pip install -q --disable-pip-version-check --no-deps torchvision==0.28.0
	@$(BIN)/uv pip install --python .venv-export/bin/python --no-deps --require-hashes -r requirements/gateway.txt -r requirements/dev.txt -r requirements/export.txt -r requirements/export-check.txt
	@.venv-export/bin/python -c 'import numpy, torchvision' 2>/dev/null || .venv-export/bin/python -m pip uninstall -q -y torchvision
	@$(BIN)/uv pip install -q --target .venv-export/tensorrt --no-deps --require-hashes -r requirements/export-tensorrt.txt
	@$(BIN)/uv pip install -q --python .venv-export/bin/python --no-deps -e .
	@touch $@

python:
	@test -n "$(PYTHON)" || { echo "Touchline needs Python 3.11 or 3.12, and neither is on PATH. Install one, or: make PYTHON=/path/to/python3.12 demo" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) has no venv module. On Debian or Ubuntu: apt-get install python3-venv" >&2; exit 1; }

COMPILE := $(BIN)/uv pip compile -q --universal --python-version 3.11 --fork-strategy fewest --generate-hashes --no-emit-index-url --no-header
requirements: .venv/.ready ## compile the pinned requirements anew
	$(COMPILE) --override requirements/overrides.txt requirements/gateway.in -o requirements/gateway.txt
	$(COMPILE) --override requirements/overrides.txt --constraint requirements/gateway.txt requirements/dev.in -o requirements/dev.txt
	$(COMPILE) requirements/triton.in -o requirements/triton.txt
	$(COMPILE) --override requirements/export-overrides.txt requirements/export.in -o requirements/export.txt
	$(COMPILE) --no-deps requirements/export-tensorrt.in -o requirements/export-tensorrt.txt
	$(COMPILE) --no-deps requirements/export-check.in -o requirements/export-check.txt

clean: ## remove the environments and all that was made
	rm -rf .venv .venv-triton .venv-export out .pytest_cache .mypy_cache .ruff_cache *.egg-info
