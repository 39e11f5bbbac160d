# What a person or a CI machine does with this repository. Every target may be repeated and asks nothing.
#
# PYTHON=/path/to/python3   the interpreter of .venv (see tools/venv for the choice without it)
# CONFIG=FILE PORT=N        what `make run` serves, and where on 127.0.0.1 (PORT: `make boot` as well)
# RUN_DIR=DIR               where the supervisor of `make run` keeps its sockets, to have several beside each other
# ARGS=...                  further arguments for pytest, or targets for `make fuzz`; `make soak` takes none
# FUZZ_SECONDS=N            how long `make fuzz` stays with one target

PYTHON ?=
CONFIG ?= configs/demo.yaml
PORT ?= 1234
RUN_DIR ?=
ARGS ?=
FUZZ_SECONDS ?= 60
export PYTHON

BIN := .venv/bin
# One more than there are processors: many tests wait, and the whole takes three quarters of the time.
PYTEST := $(BIN)/python -m pytest -n $(shell expr $$(nproc) + 1)
# As many processes as guests may run at one time: GUESTS in qemu/machine.py.
GUESTS := $(BIN)/python -m pytest -n 2

.DEFAULT_GOAL := help
.PHONY: help setup run test-setup test quick lint types image boot test-guest test-aarch64 fuzz soak soak-tests soak-guests bench clean

help: ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

setup: ## .venv with initspawn and its gateway; needs no compiler
	@tools/venv gateway

run: setup ## serve $(CONFIG) on 127.0.0.1:$(PORT) in the foreground
	@exec $(BIN)/initspawn serve $(CONFIG) --port $(PORT) $(if $(RUN_DIR),--run-dir $(RUN_DIR))

test-setup: setup ## what the tests need besides, system packages included
	@tools/venv test

test: lint types ## lint, types and all tests; those of the guest, which keep both processors busy, last
	$(PYTEST) --dist worksteal --ignore tests/boot $(ARGS)
	$(GUESTS) tests/boot

quick: lint types ## lint, types and the tests without privileges
	$(PYTEST) tests/unit tests/law tests/fuzz $(ARGS)

lint: test-setup ## ruff
	$(BIN)/ruff check

types: test-setup ## mypy
	$(BIN)/mypy initspawn qemu

image: test-setup ## the image of a small Debian with initspawn, for QEMU (docs/image.md)
	$(BIN)/python -m qemu image

boot: test-setup ## boot it with the console here and its web page on a port of 127.0.0.1
	$(BIN)/python -m qemu boot --port $(PORT)

test-guest: test-setup ## the system tests inside it; an hour or so
	$(BIN)/python -m qemu test --timeout 14400 -- -n 2 tests/system $(ARGS)

test-aarch64: test-setup ## the unit tests under an emulated aarch64 Python; needs root
	tools/aarch64-tests $(if $(ARGS),$(ARGS),-q tests/unit)

fuzz: test-setup ## a coverage-guided fuzzer on all that reads what strangers write, $(FUZZ_SECONDS) s for each target
	@tools/venv fuzz
	$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS) $(ARGS)

soak: ## all tests with many more generated cases, the guest's, aarch64's, the fuzzer, then the benchmarks
	@$(MAKE) -k -j1 soak-tests soak-guests test-guest test-aarch64 fuzz bench ARGS=

soak-tests: test-setup
	$(PYTEST) --dist worksteal --ignore tests/boot --hypothesis-profile=soak $(ARGS)

soak-guests: test-setup
	$(GUESTS) tests/boot --hypothesis-profile=soak $(ARGS)

bench: setup ## the benchmarks
	$(BIN)/python benchmarks/run.py

clean: ## remove everything that was made here
	rm -rf .venv .venv.lock build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find initspawn tests -name __pycache__ -type d -prune -exec rm -rf {} +
