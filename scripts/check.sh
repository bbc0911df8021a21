#!/bin/sh
# The checks of `make test` (check.sh quick), and those that `make test-all` adds (check.sh rest). The cheapest checks run
# first. The script stops at the first failure. Marks select the tests: see tests/tiers.py.
set -eu
cd "$(dirname "$0")/.."
py=.venv/bin/python
results=.results
frameworks=torch,jax,pyarrow,safetensors,pandas,polars
# The tests start Python some thousand times. Without its cache each start would compile every module again.
unset PYTHONDONTWRITEBYTECODE
tally=$results/linux.json

step() { printf '\n== %s\n' "$*"; }

tier() { # tier NAME MARKS: run these tests on Linux, in several processes (see tests/tiers.py), with the time of each
    $py -m pytest -q -n auto --dist loadfile -m "$2" \
        --tally=$tally --junitxml=$results/$1.xml --durations=15 tests
}

vulkan_tests() { # vulkan_tests OPTION [MORE...]: run the quick tests of the Vulkan device with an option
    $py -m pytest -q -n auto --dist loadfile -m "not slow" "$@" tests/conformance/test_suite_vulkan.py \
        tests/process/vulkan tests/unit/devices/vulkan tests/unit/api tests/unit/core tests/unit/interop/test_device_arrays.py
}

tests_with_frameworks() { # in an environment of their own (scripts/setup.sh frameworks), where none may be missing
    python=.frameworks/bin/python
    # shellcheck disable=SC2046  # a list of files
    EXTMEM_EXPECT="${EXTMEM_EXPECT:-},$frameworks" $python -m pytest -q -n auto --dist loadfile -m framework \
        --junitxml=$results/frameworks.xml --durations=15 $($python -m tests.frameworks)
}

quick() {
    step "lint (ruff)"
    make -s lint
    step "generated code matches the registry (codegen --check)"
    $py -m codegen --check
    step "types (mypy --strict, linux and win32)"
    make -s types
    step "tests on Linux (EXTMEM_EXPECT=${EXTMEM_EXPECT:-}); $results/quick.xml will contain the time of each"
    rm -rf $results
    tier quick "not slow"
}

rest() {
    mkdir -p $results
    echo "The tests on Windows (CPython for Windows under Wine) run at the same time. Their output is shown at the end."
    # The tests on Linux have priority where both need a processor.
    nice $py -m scripts.windows suite >$results/windows.log 2>&1 &
    windows=$!
    # On SIGTERM it ends its Wine. (A shell that is ended by a signal does not run the EXIT trap by itself.)
    trap 'kill $windows 2>/dev/null && wait $windows' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    step "the documentation as a site, with every link and reference checked (Sphinx)"
    $py -m scripts.site
    step "slow tests on Linux (EXTMEM_EXPECT=${EXTMEM_EXPECT:-}); $results/slow.xml will contain the time of each"
    tier slow slow
    step "tests with PyTorch, JAX, PyArrow and safetensors; $results/frameworks.xml will contain the time of each"
    tests_with_frameworks
    # `make test` has run these tests already. They run again here because coverage doubles their time.
    step "these tests again, for the branch coverage of rules, objects and handles (at least 95 %)"
    $py -m coverage erase
    $py -m pytest -q -n auto --dist loadfile --cov --cov-report= \
        tests/rules tests/property tests/unit/objects tests/unit/rules tests/unit/handles tests/unit/broker \
        tests/unit/manager tests/unit/sharing tests/unit/wire
    # Code that calls Windows runs, and is tested, only there.
    $py -m coverage report --include='src/extmem/rules/*,src/extmem/objects/*,src/extmem/handles/*' \
        --omit='src/extmem/handles/_win32/*' --fail-under=95
    step "the Vulkan tests under the Khronos validation layer with synchronization validation; a message is a failure"
    vulkan_tests --layer tests/threads tests/interrupts
    step "the examples and the programs of the documentation on the Vulkan device, under the layer"
    EXTMEM_DEVICE=vulkan $py -m pytest -q -n auto -m "not slow" --layer -k "example_runs or blocks_run" \
        tests/meta/test_examples.py tests/meta/test_docs_blocks.py
    step "the Vulkan tests on SwiftShader, a second software driver"
    vulkan_tests --swiftshader
    step "the tests on Windows"
    wait $windows && status=0 || status=$?
    trap - EXIT
    cat $results/windows.log
    step "the counts of both systems"
    $py -m scripts.windows compare
    return $status
}

case ${1:-} in
quick | rest) "$1" ;;
frameworks) mkdir -p $results && tests_with_frameworks ;;
*)
    echo "usage: check.sh quick|rest|frameworks" >&2
    exit 2
    ;;
esac
