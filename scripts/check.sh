#!/bin/sh
# The checks of `make test` (check.sh quick) and what `make test-all` adds to them (check.sh rest): each in the order in
# which a mistake is cheapest to find. Stops at the first that fails. Marks select the tests: see tests/tiers.py.
set -eu
cd "$(dirname "$0")/.."
py=.venv/bin/python
results=.results
# The tests start Python some thousand times. Without its cache each start would compile every module anew.
unset PYTHONDONTWRITEBYTECODE
tally=$results/linux.json

step() { printf '\n== %s\n' "$*"; }

tier() { # tier NAME MARKS: these Linux tests, on several processes (see tests/tiers.py), with the time of each
    $py -m pytest -q -n auto --dist loadfile -m "$2" \
        --tally=$tally --junitxml=$results/$1.xml --durations=15 tests
}

vulkan_tests() { # vulkan_tests OPTION [MORE...]: the quick tests of the Vulkan device, in a world of their own
    $py -m pytest -q -n auto --dist loadfile -m "not slow" "$@" tests/conformance/test_suite_vulkan.py \
        tests/process/vulkan tests/unit/devices/vulkan tests/unit/memory tests/unit/arrays/test_device_arrays.py
}

quick() {
    step "lint (ruff)"
    make -s lint
    step "generated code is what the registry says (codegen --check)"
    $py -m codegen --check
    step "types (mypy --strict, linux and win32)"
    make -s types
    step "tests on Linux (EXTMEM_EXPECT=${EXTMEM_EXPECT:-}); the time of each will be in $results/quick.xml"
    rm -rf $results
    tier quick "not slow"
}

rest() {
    mkdir -p $results
    echo "Beside all of it, its output shown afterwards: the tests on the Windows kernel (CPython for Windows under Wine)."
    # Linux's tests go first where both want a processor.
    nice $py -m scripts.windows suite >$results/windows.log 2>&1 &
    windows=$!
    # Told to end early, it ends its Wine. (A shell that a signal ends runs no EXIT trap of its own accord.)
    trap 'kill $windows 2>/dev/null && wait $windows' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    step "the documentation as a site, every link and reference checked (Sphinx)"
    $py -m scripts.site
    step "slow tests on Linux (EXTMEM_EXPECT=${EXTMEM_EXPECT:-}); the time of each will be in $results/slow.xml"
    tier slow slow
    # `make test` has run these already. Coverage doubles their time, and is not what the others are about.
    step "the tests of the core again, for the branch coverage of rules, objects and handles (at least 95 %)"
    $py -m coverage erase
    $py -m pytest -q -n auto --dist loadfile --cov --cov-report= \
        tests/rules tests/property tests/unit/objects tests/unit/rules tests/unit/handles tests/unit/broker \
        tests/unit/manager tests/unit/sharing tests/unit/wire
    # What calls Windows runs there, and tests there see it.
    $py -m coverage report --include='src/extmem/rules/*,src/extmem/objects/*,src/extmem/handles/*' \
        --omit='src/extmem/handles/_win32/*' --fail-under=95
    step "the Vulkan tests under the Khronos validation layer with synchronization validation; its messages fail them"
    vulkan_tests --layer tests/threads tests/interrupts
    step "the examples and the documents' programs on the Vulkan device, under the layer"
    EXTMEM_DEVICE=vulkan $py -m pytest -q -n auto -m "not slow" --layer -k "example_runs or blocks_run" \
        tests/meta/test_examples.py tests/meta/test_docs_blocks.py
    step "the Vulkan tests on SwiftShader, a second software driver"
    vulkan_tests --swiftshader
    step "the tests on the Windows kernel"
    wait $windows && status=0 || status=$?
    trap - EXIT
    cat $results/windows.log
    step "the counts of both systems"
    $py -m scripts.windows compare
    return $status
}

case ${1:-} in
quick | rest) "$1" ;;
*)
    echo "usage: check.sh quick|rest" >&2
    exit 2
    ;;
esac
