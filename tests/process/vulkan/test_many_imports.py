"""However often a payload is imported on Vulkan and closed again, fds, mappings and memory do not accumulate."""

from __future__ import annotations

import contextlib
import gc
import itertools
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from extmem import vk
from extmem.api import Device
from extmem.testing.leaks import descriptors, mappings
from tests.behaviours.steps import FD, KMT, W32, export, get, import_any, put
from tests.systems import on_linux

COUNT = 4096
PAGE = 4096


def resident() -> int:
    """Bytes of this process in memory, the driver's heap among them."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


@pytest.mark.slow("4,096 imports")
@pytest.mark.parametrize("kind", [W32, KMT, on_linux(FD)])
def test_4096_imports_and_closes_leave_nothing(device: Device, kind: vk.ExternalMemoryHandleTypeFlagBits) -> None:
    with export(device, types=kind) as memory, memory.export_handle(kind) as handle:
        put(memory, b"many")

        def once(look: bool = False) -> None:
            own = handle.duplicate() if kind == FD else handle  # an import consumes an fd
            with import_any(device, own, kind=kind) as imported:
                assert not look or get(imported) == b"many"

        for _ in range(COUNT // 4):  # what is made once and kept exists afterwards
            once()
        gc.collect()
        fds, mapped, before = len(descriptors()), sum(mappings().values()), resident()
        for number in range(COUNT):
            once(number % 256 == 0)
        gc.collect()
        assert (len(descriptors()), sum(mappings().values())) == (fds, mapped)
        grown = resident() - before
        assert grown < COUNT * 256, f"{COUNT} imports cost {grown} bytes: {grown / COUNT:.0f} each"


def least_growth(once: Callable[[], object]) -> int:
    """Return the bytes of Python's own that stay after 256 calls: the least of four rounds, after one that is not
    counted.

    What accumulates grows in every round. A table of the process that is reallocated meanwhile counts in one round
    alone.
    """
    kept = []
    tracemalloc.start()
    try:
        for _ in range(5):
            for _ in range(256):
                once()
            gc.collect()
            kept.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    return min(later - earlier for earlier, later in itertools.pairwise(kept))


def test_python_keeps_nothing_of_them(device: Device) -> None:
    with export(device) as memory, memory.export_handle(W32) as handle:
        grown = least_growth(lambda: import_any(device, handle, kind=W32).close())
        assert grown < 256 * 32, f"256 imports keep {grown} bytes"


def test_what_each_call_keeps_is_found() -> None:
    left: list[bytearray] = []
    assert least_growth(lambda: left.append(bytearray(32))) >= 256 * 32
    assert least_growth(lambda: bytearray(32)) < 256 * 32


@pytest.mark.parametrize("kind", [W32, KMT])
def test_hundreds_at_once_are_one_payload(device: Device, kind: vk.ExternalMemoryHandleTypeFlagBits) -> None:
    """Drivers may keep an fd and a mapping for each import; closing releases them."""
    with export(device, types=kind) as memory, memory.export_handle(kind) as handle, contextlib.ExitStack() as stack:
        imports = [stack.enter_context(import_any(device, handle, kind=kind)) for _ in range(256)]
        put(imports[0], b"once")
        assert {get(one) for one in imports} == {b"once"} == {get(memory)}
        assert device.live_allocations == 257
    assert device.live_allocations == 0


def test_opening_and_closing_devices_leaves_nothing(device: Device) -> None:
    import extmem

    for _ in range(3):
        extmem.open_device(kind="vulkan").close()
    fds, before = len(descriptors()), resident()
    for number in range(40):
        with extmem.open_device(kind="vulkan") as other, other.allocate(4096) as memory:
            if number % 8 == 0:
                memory.write(b"used")
    gc.collect()
    assert len(descriptors()) == fds
    assert resident() - before < 64 << 20
