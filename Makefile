# Skyshore. `make` alone lists what can be made.
.DEFAULT_GOAL := help
.PHONY: help setup demo test check fmt bench bench-gpu papers up down docs
PYTHON ?= python3
BIN := .venv/bin
CODE := skyshore services gateway edge_node cloud_node simulator loadgen experiments training cli benchmarks scripts tests
export PIP_DISABLE_PIP_VERSION_CHECK := 1

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Two stamps: what the system needs to run, and what its makers need on top (tests, linters, torch).
.venv/.run: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Skyshore needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install -q -e '.[run]'
	@touch $@
.venv/.dev: .venv/.run
	$(BIN)/python -m pip install -q -e '.[all]' --group dev
	@touch $@

setup: .venv/.dev ## make .venv with everything: services, tests, linters, torch

demo: .venv/.run ## start everything, send real requests, replay a trace, print the report
	$(BIN)/skyshore demo

# The first run measures what the pure packages' own tests cover; the floor is in pyproject.toml.
test: .venv/.dev ## run every test but the gpu ones; says what it skipped and why, prints coverage
	$(BIN)/coverage run -m pytest tests/unit tests/replay tests/contract $(ARGS)
	$(BIN)/coverage report
	$(BIN)/python -m pytest tests/component tests/e2e $(ARGS)

check: .venv/.dev ## style, types, layers, protos, stubs, sizes, names, words, dead code
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports
	@if command -v npm >/dev/null; then npm exec --yes @bufbuild/buf@1.75.0 -- lint; \
	  else echo "SKIPPED proto lint: npm is not installed"; fi
	$(BIN)/python scripts/gen_protos.py --check
	$(BIN)/python -m scripts.check_sizes
	$(BIN)/python -m scripts.check_names
	$(BIN)/python -m scripts.check_words
	$(BIN)/vulture

fmt: .venv/.dev ## regenerate skyshore/v1 from protos/, format, fix what can be fixed
	$(BIN)/python scripts/gen_protos.py
	$(BIN)/ruff check --fix -q $(CODE) || true
	$(BIN)/ruff format -q $(CODE)

bench: .venv/.dev ## run every bench and regenerate docs/benchmarks.md
	$(BIN)/python scripts/run_benches.py

bench-gpu: .venv/.dev ## run the DSP bench of a machine with NVIDIA GPUs
	$(BIN)/skyshore bench dsp_gpu --json

papers: .venv/.dev ## simulate the papers' experiments and regenerate docs/papers.md
	$(BIN)/python scripts/make_papers.py

up: ## start the system and leave it running, in containers where an engine answers
	@scripts/containers_up.sh up

down: ## stop the system
	@scripts/containers_up.sh down

docs: .venv/.dev ## regenerate docs/openapi.json and the diagrams, check the links between pages
	$(BIN)/python -m scripts.make_diagrams
	PYTHONPATH=. $(BIN)/python scripts/make_docs.py
