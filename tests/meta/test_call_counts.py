"""How many Python functions of the library one operation calls, once the same operation was done before.

A profiler counts them, so that a repeated query, or a layer that only forwards, is noticed. The bounds are what the
paths need today; they may decrease, and increase only with a reason in the commit.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import pytest

import extmem
from extmem import vk
from extmem.api import Device
from extmem.testing import fake_vulkan
from extmem.testing.children import Peer

pytestmark = pytest.mark.linux_only("its calls are those of the broker's client and of memory files")

FD = vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_FD
SIZE = 65_536
WARM = 3
"""The number of operations before the one that is counted."""
_PACKAGE = str(Path(extmem.__file__).parent)
_DRIVER = str(Path(fake_vulkan.__file__).parent)
"""The scripted driver, whose calls are not the library's."""


class Closes(Protocol):
    """What an operation returns."""

    def close(self) -> None:
        """Release it."""


def in_driver(frame: FrameType | None) -> bool:
    """Return whether the scripted driver is among the callers."""
    while frame is not None:
        if frame.f_code.co_filename.startswith(_DRIVER):
            return True
        frame = frame.f_back
    return False


def calls_of(operation: Callable[[], Closes]) -> list[str]:
    """Return the library's functions that one operation calls, in order. Its result is closed."""
    called: list[str] = []

    def note(frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(_PACKAGE) and not in_driver(frame):
            called.append(f"{Path(frame.f_code.co_filename).name} {frame.f_code.co_qualname}")

    sys.setprofile(note)
    try:
        result = operation()
    finally:
        sys.setprofile(None)
    result.close()
    return called


def count(operation: Callable[[], Closes]) -> int:
    """Return the number of calls of a repeated operation; the output has the calls, for the reader of a failure."""
    for _ in range(WARM):
        operation().close()
    called = calls_of(operation)
    print("\n".join(called))
    return len(called)


def imports_of(device: Device) -> Callable[[], Closes]:
    """Return vkAllocateMemory of an fd that the device exported. The caller makes the structs, before."""
    memory = device.allocate_memory(vk.MemoryAllocateInfo(SIZE, 0, vk.ExportMemoryAllocateInfo(FD)))
    with device.get_memory_fd(vk.MemoryGetFdInfoKHR(memory, FD)) as handle:
        copies = [handle.duplicate() for _ in range(WARM + 1)]
    memory.close()
    infos = iter([vk.MemoryAllocateInfo(SIZE, 0, vk.ImportMemoryFdInfoKHR(FD, copy)) for copy in copies])
    return lambda: device.allocate_memory(next(infos))


def test_an_array_with_a_name_is_allocated(device: Device, name: str) -> None:
    numbers = itertools.count()
    assert count(lambda: device.allocate((64, 64), "float32", name=f"{name}-{next(numbers)}")) <= 100


def test_an_fd_is_imported(device: Device) -> None:
    assert count(imports_of(device)) <= 48


def test_an_fd_is_imported_by_a_driver() -> None:
    with fake_vulkan.installed(fake_vulkan.FakeVulkan([fake_vulkan.DISCRETE])):
        with extmem.open_device(kind="vulkan") as device:
            assert count(imports_of(device)) <= 59


def test_a_name_is_opened(device: Device, peer: Peer, name: str) -> None:
    peer("import extmem\nmemory = extmem.open_device().allocate(4096, name=name)", name=name)
    with extmem.open(name), extmem.open(name):
        pass  # names are watched from the second open on
    assert count(lambda: extmem.open(name)) <= 31


def test_a_call_too_many_is_counted(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """The counter finds what it is meant to find: a planted call of the library's adds one."""
    operation = imports_of(device)
    before = count(operation)
    real: Any = device.backend.import_fd

    def twice(request: Any) -> Any:
        device.check_open()
        return real(request)

    monkeypatch.setattr(device.backend, "import_fd", twice)
    assert count(imports_of(device)) == before + 1
