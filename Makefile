# Each target does its own set-up: `make demo` and `make test` work in a fresh clone.

# Nothing that a caller's environment says about where modules lie may reach ours.
unexport PYTHONHOME
unexport PYTHONPATH

.DEFAULT_GOAL := help
.PHONY: help setup demo test bench lint pins

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1|/p' Makefile | awk -F'|' '{printf "  make %-7s %s\n", $$1, $$2}'

setup: ## build .venv, and install the Debian packages that are missing
	@tools/setup

demo: setup ## watch a program without privileges get files and devices, and be refused others
	@tools/demo

test: setup ## run the tests; root runs them a second time as an ordinary uid
	@tools/test

bench: setup ## measure the broker beside one in C that decides nothing, the sandbox, and large policies
	@.venv/bin/python -m benchmarks.run

lint: setup ## ruff and mypy --strict, which the tests run too
	@.venv/bin/python -m ruff check
	@.venv/bin/python -m mypy

COMPILE := uv pip compile --quiet --universal --generate-hashes --custom-compile-command 'make pins'

pins: ## rewrite requirements/*.txt from pyproject.toml (needs uv)
	@$(COMPILE) --group build --output-file requirements/build.txt
	@$(COMPILE) pyproject.toml --output-file requirements/runtime.txt
	@$(COMPILE) --group test --constraint requirements/runtime.txt --output-file requirements/test.txt
