#!/bin/sh
# What `make test` runs, in the order in which a mistake is cheapest to find. Stops at the first that fails.
set -eu
cd "$(dirname "$0")/.."
py=.venv/bin/python
step() { printf '\n== %s\n' "$*"; }

step "lint (ruff)"
$py -m ruff check .
$py -m ruff format --check .
step "generated code is what the registry says (codegen --check)"
$py -m codegen --check
step "types (mypy --strict, linux and win32)"
$py -m mypy --platform linux
$py -m mypy --platform win32
step "tests (EXTMEM_EXPECT=${EXTMEM_EXPECT:-})"
$py -m coverage erase
$py -m pytest -q --cov --cov-report= "$@"
step "branch coverage of the core: rules, objects, handles (at least 95 %)"
$py -m coverage report --include='src/extmem/rules/*,src/extmem/objects/*,src/extmem/handles/*' --fail-under=95
