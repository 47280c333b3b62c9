.DEFAULT_GOAL := help
.PHONY: help setup demo lab test test-server check bench bench-check growth fuzz bundle deb

BIN := .venv/bin
# Three more than the smallest machine has processors: the tests of real components mostly wait for them.
WORKERS ?= 5

help: ## List what one can do here.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-11s  %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Install what is needed on a Debian 12 machine (as root) and make .venv; does nothing when all is there.
	@deploy/setup.sh

demo: setup ## Watch an agent bring up, change and repair services on this machine, and clean up after itself.
	@$(BIN)/python -m tests.lab.demo

lab: setup ## Bring up simulated servers to play with; they are gone when you leave.
	@$(BIN)/python -m tests.lab.playground

test: setup check ## Run all checks and the tests, those on real components included (as root).
	$(BIN)/pytest --ignore tests/server --numprocesses $(WORKERS) --dist worksteal

test-server: setup ## Install on a Debian folder, under a real systemd and in a virtual machine, and test the whole server (as root).
	$(BIN)/pytest tests/server --numprocesses $(WORKERS) --dist worksteal

check: setup ## Check format, lint, imports between modules, and types.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy

bench: setup ## Measure speed and memory against their goals, and write it down (about five minutes; FLAGS=--full for all sizes).
	@PYTHONHASHSEED=0 $(BIN)/python -m benchmarks $(FLAGS)

bench-check: setup ## See whether a ratio of the small sizes is worse than the one that is recorded.
	@PYTHONHASHSEED=0 $(BIN)/python -m benchmarks --check

growth: setup ## See that no parser takes more than 2.4 times as long for twice the input, up to a million (about ten minutes).
	@$(BIN)/python -m benchmarks.growth

fuzz: setup ## Feed a million odd inputs to every parser, and as many odd documents to a daemon (some hours; FLAGS=--seed=2).
	@$(BIN)/python -m tests.fuzz --inputs 1000000 $(FLAGS)
	@$(BIN)/python -m tests.fuzz.daemon $(FLAGS)

bundle: setup ## Make what a server is installed from: dist/techulus-agent-<version>.tar.gz.
	@deploy/bundle.sh

deb: setup ## Make the Debian package: dist/techulus-agent_<version>_<architecture>.deb.
	@deploy/deb.sh
