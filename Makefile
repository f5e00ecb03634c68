# What a developer types. Everything happens in .venv; `make demo` and `make test` also use the lab, which needs root on Linux.

PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed
INVOKE := $(VENV)/bin/invoke

.DEFAULT_GOAL := help
.PHONY: help venv demo test lint bench clean

help:
	@echo "make demo    deploy a new version under load, in the lab, and count failed requests (root, Linux)"
	@echo "make test    all tests, with coverage; those that need the lab run as root on Linux"
	@echo "make lint    ruff, mypy, shellcheck"
	@echo "make bench   the benchmark (root, Linux)"
	@echo "make clean   remove the lab, caches and .venv"
	@echo "make venv    only install"

venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@PYTHON=$(PYTHON) .ci/venv
	@touch $@

demo: $(STAMP)
	@$(INVOKE) demo

test: $(STAMP)
	@.ci/test

lint: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	@if command -v shellcheck >/dev/null; then echo shellcheck; shellcheck .ci/apart .ci/run .ci/test .ci/venv axon_tasks/lab/sample/*.sh axon_tasks/lab/bench/floor.sh axon_tasks/lab/prove/*.sh; \
	else echo "shellcheck is not installed: the shell scripts were not checked"; fi

bench: $(STAMP)
	@$(INVOKE) bench

clean:
	@if [ -x $(INVOKE) ] && [ -d .lab ]; then $(INVOKE) lab.down; fi
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.* .coverage-apart*
	find axon_tasks fabfile tests -name __pycache__ -type d -prune -exec rm -rf {} +
