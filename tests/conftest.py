"""What every test shares: a private object manager, no children that outlive the session, and an allow-list of skips.

A skipped test has checked nothing. So the reason of a skip must be in the list below, under the part of the machine
that is missing; and where EXTMEM_EXPECT (comma-separated) names that part, a skip is a failure.
"""

from __future__ import annotations

import gc
import itertools
import os
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests import frameworks, wine_starts
from tests.systems import Systems, under_wine
from tests.tiers import Tiers, workers

ALLOWED_SKIPS = {
    "numpy": r"NumPy is not installed",
    "torch": r"PyTorch is not installed",
    "cc": r"no C compiler",
    "buffer-protocol": r"__buffer__ needs Python 3\.12",
    "root": r"needs root, to be another user",
    "fuse": r"this machine mounts no FUSE file system",
    "network": r"needs the network",
    "kcmp": r"this kernel refuses kcmp",
    "io-uring": r"this machine has no io_uring with futexes",
    "cgroup": r"no control group can be limited here",
    "huge-pages": r"no huge pages in this kernel",
    "vulkan": r"no Vulkan device here",
    "layer": r"no Khronos validation layer here",
    "swiftshader": r"no SwiftShader here",
    "cuda": r"no CUDA device here",
    "two-gpus": r"only one CUDA device here",
    "cupy": r"CuPy is not installed",
    "jax": r"JAX is not installed",
    "ml_dtypes": r"ml_dtypes is not installed",
    "slangpy": r"slangpy is not installed",
    "pyarrow": r"PyArrow is not installed",
    "safetensors": r"safetensors is not installed",
    "pandas": r"pandas is not installed",
    "polars": r"Polars is not installed",
    "vulkan-sharing": r"the driver reports beforehand that it cannot",
    "planar": r"this driver has no multi-planar images",
    "modifiers": r"this driver has no DRM format modifiers",
    "linear-modifier": r"this driver has no linear DRM format modifier",
    "dma-buf-sharing": r"this driver shares no images with DRM format modifiers as dma-bufs",
    "llvmpipe": r"this driver is not Mesa's software driver",
    "no-dma-buf": r"this driver has the extension of DMA_BUF",
    "payload-files": r"this driver's payloads are not memory files",
    "mappable-sharing": r"this device shares nothing that the host sees",
}
"""Parts that a machine may lack, and the pattern of the reason that a skip may give for each."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--tally FILE`: see tests/systems.py. `--layer`: tests/layer/plugin.py. `--swiftshader`: tests/swiftshader.py."""
    parser.addoption("--tally", metavar="FILE", help="add what becomes of each test to this JSON file")
    parser.addoption("--layer", action="store_true", help="run under the Khronos validation layer; its messages fail")
    parser.addoption("--swiftshader", action="store_true", help="run on SwiftShader instead of the machine's drivers")


@pytest.hookimpl(optionalhook=True)  # pytest-xdist's hook, which is called before the plugins below are registered
def pytest_xdist_auto_num_workers() -> int:
    """Return what `-n auto` means."""
    return workers()


def pytest_configure(config: pytest.Config) -> None:
    """Add the marks of tests/systems.py and tests/tiers.py, and the plugins that implement them."""
    for mark in ("linux_only(reason)", "windows_only(reason)", "wine_differs(reason, when=None)"):
        config.addinivalue_line("markers", f"{mark}: see tests/systems.py")
    config.addinivalue_line("markers", "slow(reason): left to `make test-all`; see tests/tiers.py")
    config.addinivalue_line("markers", "framework(*packages): needs PyTorch, JAX, …; see tests/frameworks.py")
    config.pluginmanager.register(frameworks.Frameworks())
    config.pluginmanager.register(Tiers())
    if under_wine():
        wine_starts.install()
    in_a_worker = hasattr(config, "workerinput")  # pytest-xdist sets it in its workers
    if config.getoption("--layer"):
        from tests.layer.plugin import Layer

        config.pluginmanager.register(Layer())
    if config.getoption("--swiftshader"):
        from tests.swiftshader import OnSwiftShader

        config.pluginmanager.register(OnSwiftShader())
    config.pluginmanager.register(Systems(None if in_a_worker else config.getoption("--tally")))


def refused_skip(reason: str, expected: set[str]) -> str | None:
    """Return why this skip is a failure; None if it is acceptable."""
    for part, pattern in ALLOWED_SKIPS.items():
        if re.search(pattern, reason):
            return f"skipped ({reason}), but EXTMEM_EXPECT contains {part}" if part in expected else None
    return f"skipped for a reason that tests/conftest.py does not list: {reason}"


def _expected() -> set[str]:
    return {part.strip() for part in os.environ.get("EXTMEM_EXPECT", "").split(",") if part.strip()}


def _judge(report: pytest.TestReport | pytest.CollectReport, marked: bool) -> None:
    if not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    problem = refused_skip(reason, _expected())
    if problem is None and not marked and frameworks.named_in(reason):
        problem = f'skipped ({reason}) without the mark framework("…"), which tests/frameworks.py explains'
    if problem is not None:
        report.outcome = "failed"
        report.longrepr = problem


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report = yield
    _judge(report, item.get_closest_marker(frameworks.MARK) is not None)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Any:
    report = yield
    _judge(report, collector.path.is_file() and bool(frameworks.needs_of(collector.path).module))
    return report


@pytest.fixture(scope="session", autouse=True)
def runtime() -> Iterator[Any]:
    """This session's own runtime directory; its broker and other processes that use it end with the session."""
    from extmem.testing import children
    from extmem.testing.runtime import VARIABLE, Runtime

    if sys.platform != "win32":
        from multiprocessing import resource_tracker

        # Spawned children start it, once; it is not one of this runtime's processes, and ends with this process.
        resource_tracker.ensure_running()
    with Runtime() as private, pytest.MonkeyPatch.context() as environment:
        environment.setenv(VARIABLE, str(private.path))
        # The default device: thousands of processes need not load every GPU driver.
        environment.setenv("EXTMEM_DEVICE", os.environ.get("EXTMEM_DEVICE", "host"))
        # pytest-xdist sets it in its workers, and the output of the command line depends on it.
        environment.delenv("COLUMNS", raising=False)
        try:
            yield private
            left = children.kill_all()
            assert not left, f"children outlived the session: {left}"
        finally:
            children.kill_all()


@pytest.fixture(scope="module", autouse=True)
def frozen(runtime: Any) -> None:
    """Exclude what earlier modules left in memory from the garbage collections of the leak checks.

    Otherwise a collection takes ten times as long at the end of a run as at its beginning.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture
def own_runtime() -> Iterator[Any]:
    """A runtime directory for one test alone. Peers use it with `env=own_runtime.environment`."""
    from extmem.testing.runtime import Runtime

    with Runtime() as private:
        yield private


_names = itertools.count(1)


@pytest.fixture
def name() -> str:
    """A name that no other test uses."""
    return f"extmem-test-{os.getpid()}-{next(_names)}"


@pytest.fixture
def device() -> Iterator[Any]:
    """A device that the test closes with everything on it."""
    import extmem

    with extmem.open_device(kind="host") as opened:
        yield opened


@pytest.fixture(scope="session")
def vulkan_begun(runtime: Any) -> None:
    """Use Vulkan once, before anything is counted.

    Drivers open files and fill caches at their first use, and keep them; and this process keeps the device that
    `extmem.open` chooses. None of that is a leak of the test that happens to be the first.
    """
    import extmem

    extmem.enumerate_devices()  # a search for a payload's device loads the driver of CUDA, too
    try:
        opened = extmem.open_device(kind="vulkan")
    except extmem.UnsupportedError:
        return  # the fixture `vulkan_device` reports it
    name = f"extmem-test-{os.getpid()}-begun"
    with opened:
        with opened.allocate(64) as alone:
            alone.write(b"once")
        try:
            shared = opened.allocate(64, name=name)
        except extmem.UnsupportedError:
            return  # the driver shares nothing
        with shared as memory, extmem.open(name) as other:
            memory.write(b"once")
            assert other.read_bytes(0, 4) == b"once"


@pytest.fixture
def vulkan_device(vulkan_begun: None) -> Iterator[Any]:
    """A Vulkan device that the test closes with everything on it; the test is skipped where there is no driver."""
    import extmem

    try:
        opened = extmem.open_device(kind="vulkan")
    except extmem.UnsupportedError as error:
        pytest.skip(f"no Vulkan device here: {error}")
    with opened:
        yield opened


@pytest.fixture
def peer() -> Iterator[Any]:
    """Another process."""
    from extmem.testing.children import Peer

    with Peer() as other:
        yield other
