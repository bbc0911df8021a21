"""Which tests belong to one operating system, and the record that each run leaves, to compare it with another system's.

How this works. A test that another system cannot run is marked, with the reason: whole files and folders in `ONLY`
below (their imports may fail on other systems), single tests by the marks `linux_only(reason)` and
`windows_only(reason)`. On the other system they are not collected, so they do not count as skipped. Where Wine differs
from Windows, the mark `wine_differs(reason)` with the behaviour's number makes the failure expected there, and only
there; the test fails once Wine does what Windows does. `wine_differs(reason, when=function)` calls the function to find
out whether this Wine differs. With `--tally FILE` a run writes the outcome of each test, which tests belong to its
system alone, and the reasons. An existing file is extended: the runs of both tiers (tests/tiers.py) share one.
"""

from __future__ import annotations

import ctypes
import functools
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from _pytest.mark.structures import ParameterSet

TESTS = Path(__file__).parent
HERE = "windows" if sys.platform == "win32" else "linux"

_BROKER = "the broker is Linux's object manager; Windows has one in its kernel"
_MEMORY_FILES = "sealed memory files and their descriptors are Linux's; Windows has sections"
_REPOSITORY = "looks at the repository's own files alone, which are the same everywhere"
_OWN = "own"
"""The property of a test's reports with the reason why only this system has the test."""
_FDS = "file descriptors carry memory on Linux alone"

ONLY = {
    "linux": {
        "unit/broker": _BROKER,
        "unit/cli/_top/test_web.py": "the Windows test bed has no aiohttp, most of which is compiled",
        "unit/core/test_lending.py": "a payload has several handles, and a pipe beside them, on Linux alone",
        "unit/core/test_freezing.py": "Windows cannot keep writers out",
        "process/test_freeze.py": "Windows cannot keep writers out",
        "gpu/test_torch_memory.py": "PyTorch's memory has handles on Linux alone",
        "unit/cli/_bench/test_floor.py": "its C code is of opaque fds and futexes",
        "unit/cli/_bench/test_ordering_gpu.py": _FDS,
        "process/cli/test_bench_channel.py": "it measures the broker and memory by /proc",
        "unit/cli/_bench/test_channel.py": "it measures the broker and memory by /proc",
        "process/cli/test_bench_tensors.py": "it measures the broker and memory by /proc",
        "unit/cli/_bench/test_tensors.py": "it measures the broker and memory by /proc",
        "unit/manager/linux": _BROKER,
        "unit/sharing/test_payload.py": _BROKER,
        "unit/wire": _BROKER,
        "process/broker": _BROKER,
        "process/cuda/test_lending.py": "a payload has several handles, and a pipe beside them, on Linux alone",
        "users": _BROKER,
        "property/channel/test_ring_model.py": "a pure model, the same everywhere, which is searched for minutes",
        "process/channel/test_hostile.py": "other users, what the broker keeps, and open file descriptions",
        "process/test_broker_killed.py": _BROKER,
        "behaviours/test_bad_world.py": "a broker that may not start, and Linux's resource limits",
        "behaviours/test_bad_fds.py": _MEMORY_FILES,
        "faults/test_cuda_nth_call.py": "its operations are of fds; windows/cuda has those of NT handles",
        "arbitrary": "its child processes get their input by fd, and end by a signal",
        "layer": "the validation layer's messages go through a named pipe",
        "interrupts": "a process sends itself a signal at each instruction; Windows has no signal for that",
        "meta/test_behaviours_page.py": _REPOSITORY,
        "meta/test_both_systems.py": _REPOSITORY,
        "meta/test_codegen.py": _REPOSITORY,
        "meta/test_constraints.py": "the environment that setup.sh makes; the test bed's is made by hash",
        "meta/test_docs_blocks.py": "its console blocks are for a POSIX shell",
        "meta/test_docs_generated.py": _REPOSITORY,
        "meta/test_frameworks.py": "the step of continuous integration that has the frameworks is Linux's",
        "meta/test_links.py": _REPOSITORY,
        "meta/test_packaging.py": "builds a wheel, which is the same everywhere, with setup.sh's environment",
        "meta/test_site.py": "the site is built on Linux, with setup.sh's environment",
        "meta/test_standalone.py": _REPOSITORY,
        "meta/test_tiers.py": "what `make test` and `make test-all` select, which are Linux's commands",
        "meta/test_types.py": _REPOSITORY,
        "meta/test_soak_channels.py": "what it kills and counts is the broker",
        "meta/test_soak.py": "what it kills and counts is the broker",
        "meta/test_windows_bed.py": "what sets the Windows test bed up runs on Linux",
        "meta/test_wire_page.py": _BROKER,
        "meta/test_wrap.py": _REPOSITORY,
        "process/test_closed_standard.py": "Windows numbers no files as descriptors are numbered",
        "process/test_fork.py": "Windows has no fork",
        "process/test_fork_order.py": "Windows has no fork",
        "process/vulkan/test_leniency.py": "what drivers of Linux make of bad fds; windows/vulkan has bad handles",
        "process/vulkan/test_modifiers.py": _FDS,
        "process/vulkan/test_raw_fds.py": _FDS,
        "process/vulkan/test_two_drivers.py": "two drivers of Linux",
        "unit/devices/host/test_event.py": "an eventfd is Linux's",
        "unit/devices/host/test_futex.py": "futexes are Linux's",
        "unit/devices/host/test_range_locks.py": "locks of an open file description are Linux's",
        "unit/devices/host/test_io_ring.py": "io_uring is Linux's",
        "unit/devices/host/test_page_waits.py": "futexes are Linux's",
        "unit/devices/host/test_sync_async.py": "futexes are Linux's",
        "unit/devices/host/test_sync_check.py": _FDS,
        "unit/devices/host/test_timeline_page.py": _MEMORY_FILES,
        "unit/devices/host/test_mapping.py": "mappings are looked at in /proc",
        "unit/devices/host/test_limits.py": "Linux's resource limits, and " + _MEMORY_FILES,
        "unit/devices/host/test_memory.py": _MEMORY_FILES,
        "unit/devices/host/test_reserve.py": "what is left of memory is read from /proc and /sys",
        "unit/devices/host/test_fd_check.py": _MEMORY_FILES,
        "unit/devices/vulkan/test_fd_check.py": _FDS,
        "unit/devices/vulkan/test_descriptor_shortage.py": _FDS,
        "unit/core/test_repeated_calls.py": _FDS,
        "unit/testing/test_fake_vulkan_dma_buf.py": _FDS,
        "unit/testing/test_fake_vulkan_modifiers.py": _FDS,
        "unit/testing/test_fake_vulkan_manners.py": "what drivers do with bad fds; windows/vulkan has what "
        "they do with bad handles",
        "unit/api/test_sockets.py": "Unix sockets that carry descriptors are Linux's",
    },
    "windows": {
        "windows": "kernel objects, which Windows alone has",
        "unit/devices/host/test_windows_range_locks.py": "kernel objects, which Windows alone has",
        "unit/manager/windows/test_channel_security.py": "security descriptors of the Windows kernel",
    },
}
"""Files and folders below tests/ that belong to one system, and why."""


def on_linux(*values: object, id: str | None = None, reason: str = _FDS) -> ParameterSet:
    """Return a parameter that only Linux has: `parametrize("kind", [on_linux(FD), WIN32])`."""
    return pytest.param(*values, marks=pytest.mark.linux_only(reason), id=id)


def on_windows(
    *values: object, id: str | None = None, reason: str = "what sections can do, where Linux has memory files"
) -> ParameterSet:
    """Return a parameter that only Windows has."""
    return pytest.param(*values, marks=pytest.mark.windows_only(reason), id=id)


def owner(path: Path) -> tuple[str, str] | None:
    """Return the system that this file or folder belongs to, and why; None for all."""
    parts = path.relative_to(TESTS).as_posix() if path.is_relative_to(TESTS) else ""
    for system, entries in ONLY.items():
        for entry, reason in entries.items():
            if parts == entry or parts.startswith(f"{entry}/"):
                return system, reason
    return None


def owner_of_test(item: pytest.Item) -> tuple[str, str] | None:
    """Return the system that this test belongs to, and why; None for all."""
    for system in ONLY:
        mark = item.get_closest_marker(f"{system}_only")
        if mark is not None:
            return system, mark.args[0]
    return owner(item.path)


def is_here(where: tuple[str, str] | None) -> bool:
    """Return whether what belongs there runs on this system."""
    return where is None or where[0] == HERE


@functools.cache
def _differs(when: Callable[[], bool] | None) -> bool:
    return when is None or when()


@functools.cache
def under_wine() -> bool:
    """Return whether this Windows is Wine."""
    return sys.platform == "win32" and hasattr(ctypes.WinDLL("ntdll"), "wine_get_version")


class Systems:
    """The pytest plugin for it.

    tally: the file to extend; None in a worker of pytest-xdist, whose reports go to the process that writes the file.
    """

    def __init__(self, tally: str | None) -> None:
        self._tally = Path(tally) if tally else None
        self._collected: dict[str, str] = {}
        self._outcomes: dict[str, str] = {}
        self._own: dict[str, str] = {}
        self._reasons: dict[str, str] = {}
        self._started = time.monotonic()

    def pytest_ignore_collect(self, collection_path: Path) -> bool | None:
        """Do not collect the files of another system, not even import them."""
        return None if is_here(owner(collection_path)) else True

    @pytest.hookimpl(wrapper=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
        """Deselect the tests of another system, and mark those of this one."""
        owners = {item.nodeid: owner_of_test(item) for item in items}
        config.hook.pytest_deselected(items=[item for item in items if not is_here(owners[item.nodeid])])
        items[:] = [item for item in items if is_here(owners[item.nodeid])]
        yield
        self._collected = {item.nodeid: "collected" for item in items}
        for item in items:
            where = owners[item.nodeid]
            if where is not None:
                self._own[item.nodeid] = where[1]
                item.user_properties.append((_OWN, where[1]))  # the reports take it from a worker to its controller
            difference = item.get_closest_marker("wine_differs")
            if difference is not None and under_wine() and _differs(difference.kwargs.get("when")):
                item.add_marker(pytest.mark.xfail(reason=difference.args[0], strict=True))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Record the outcome of a test: the worst of its three phases."""
        for name, reason in report.user_properties:
            if name == _OWN:
                self._own[report.nodeid] = str(reason)
        known = hasattr(report, "wasxfail")
        if report.failed:
            self._outcomes[report.nodeid] = "failed"
        elif report.skipped:
            self._outcomes[report.nodeid] = "differs" if known else "skipped"
            self._reasons[report.nodeid] = report.wasxfail if known else str(report.longrepr[2])  # type: ignore[index]
        elif report.when == "call":
            self._outcomes[report.nodeid] = "passed"

    def pytest_sessionfinish(self) -> None:
        """Add the outcomes of this run to the tally; a test that was only collected replaces no earlier outcome."""
        if self._tally is None:
            return
        self._tally.parent.mkdir(parents=True, exist_ok=True)
        whole = json.loads(self._tally.read_text(encoding="utf-8")) if self._tally.exists() else {}
        whole["outcomes"] = {**self._collected, **whole.get("outcomes", {}), **self._outcomes}
        whole.setdefault("own", {}).update(self._own)
        whole.setdefault("reasons", {}).update(self._reasons)
        spent = time.monotonic() - self._started if self._outcomes else 0
        whole["seconds"] = round(whole.get("seconds", 0) + spent, 1)
        whole["system"] = HERE
        self._tally.write_text(json.dumps(whole, indent=0, sort_keys=True), encoding="utf-8")
