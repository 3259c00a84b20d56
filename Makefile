.DEFAULT_GOAL := help
.PHONY: help demo test test-export lint triton requirements clean
SHELL := /bin/bash

PYTHON ?= $(firstword $(foreach p,python3.12 python3.11 python3,$(shell $(p) -c 'import sys; 0x030b0000 <= sys.hexversion < 0x030d0000 and print("$(p)")' 2>/dev/null)))

help: ## show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

# Two environments on purpose: Triton's Python backend needs numpy 1, the gateway wants current libraries.
.venv/.ready: requirements/gateway.txt requirements/dev.txt pyproject.toml | python
	@$(PYTHON) -m venv .venv && .venv/bin/python -m pip install -q --disable-pip-version-check uv==$(UV)
	.venv/bin/uv pip install --python .venv/bin/python --no-deps --require-hashes -r requirements/gateway.txt -r requirements/dev.txt
	@.venv/bin/uv pip install -q --python .venv/bin/python --no-deps -e .
	@touch $@

.venv-triton/.ready: requirements/triton.txt .venv/.ready
	@$(PYTHON) -m venv .venv-triton
	.venv/bin/uv pip install --python .venv-triton/bin/python --no-deps --require-hashes -r requirements/triton.txt
	@touch $@

.PHONY: python
python:
	@test -n "$(PYTHON)" || { echo "Touchline needs Python 3.11 or 3.12 (found neither). Install one, or say: make PYTHON=/path/to/python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) has no venv module. On Debian or Ubuntu: apt-get install python3-venv" >&2; exit 1; }

UV := 0.13.9
