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
core="tests/rules tests/property tests/unit/objects tests/unit/rules tests/unit/handles tests/unit/broker"
step "tests of the core, with branch coverage (EXTMEM_EXPECT=${EXTMEM_EXPECT:-})"
$py -m coverage erase
tally=.windows/linux.json
rm -f $tally
# shellcheck disable=SC2086  # a list of folders
$py -m pytest -q --tally=$tally --cov --cov-report= $core
step "branch coverage of rules, objects and handles (at least 95 %)"
# What calls Windows runs there, and tests there see it.
$py -m coverage report --include='src/extmem/rules/*,src/extmem/objects/*,src/extmem/handles/*' \
    --omit='src/extmem/handles/_win32/*' --fail-under=95
step "everything else: behaviours, conformance, faults, processes, the repository itself"
echo "Beside it all of it on the Windows kernel (CPython for Windows under Wine), which is shown afterwards."
mkdir -p .windows
# Linux's tests take longest, and go first where both want a processor.
nice $py -m scripts.windows suite >.windows/suite.log 2>&1 &
windows=$!
# Told to end early, it ends its Wine. (A shell that a signal ends runs no EXIT trap of its own accord.)
trap 'kill $windows 2>/dev/null && wait $windows' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
# Tracing would triple the time of these, and they are not what the figure above is about.
$py -m pytest -q --tally=$tally tests $(printf -- '--ignore=%s ' $core)
step "the same tests on the Windows kernel"
wait $windows && status=0 || status=$?
trap - EXIT
cat .windows/suite.log
step "the counts of both systems"
$py -m scripts.windows compare
exit $status
