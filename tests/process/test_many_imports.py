"""However often a payload is imported, it exists once: bytes, fds and mappings do not accumulate."""

from __future__ import annotations

import contextlib
import sys

import pytest

import extmem
from extmem import vk
from extmem.api import Device
from extmem.testing.children import Peer
from extmem.testing.leaks import descriptors, mappings, memory_file_bytes
from tests.behaviours.steps import FD, KMT, W32, export, get, import_any, import_win32, nt, put
from tests.systems import on_linux

LARGE = 256 << 20


def test_a_thousand_imports_of_256_mib_hold_256_mib(device: Device, name: str, peer: Peer) -> None:
    with export(device, name=name, size=LARGE) as memory, nt(device, memory) as handle, contextlib.ExitStack() as stack:
        put(memory, b"once", LARGE - 4)
        open_before = len(descriptors())
        # On Windows bytes are counted for each handle; all imports share one handle.
        stack.enter_context(import_win32(device, handle, size=LARGE))
        bytes_before = memory_file_bytes()
        for _ in range(999):
            stack.enter_context(import_win32(device, handle, size=LARGE))
        assert memory_file_bytes() == bytes_before
        assert len(descriptors()) <= open_before + 1
        # Another process has one fd of the same payload, too.
        peer("from tests.behaviours.steps import *\nfrom extmem.testing.leaks import memory_file_bytes")
        peer("import contextlib")
        peer("device = extmem.open_device()\nstack = contextlib.ExitStack()")
        peer("stack.enter_context(by_name(device, name, size=size))\nNone", name=name, size=LARGE)
        bytes_before = peer("memory_file_bytes()")
        assert LARGE <= bytes_before < 2 * LARGE
        peer("for _ in range(199): stack.enter_context(by_name(device, name, size=size))", name=name, size=LARGE)
        assert peer("memory_file_bytes()") == bytes_before
        last = peer("memory = by_name(device, name, size=size)\nget(memory, at=size - 4)", name=name, size=LARGE)
        assert last == b"once"
        peer("memory.close()\nstack.close()")


@pytest.mark.slow("4,096 imports")
@pytest.mark.parametrize("kind", [W32, KMT, on_linux(FD)])
def test_4096_imports_at_once_and_none_is_left(device: Device, kind: vk.ExternalMemoryHandleTypeFlagBits) -> None:
    """The leak check around each test shows that closing them releases everything."""
    with export(device, types=kind) as memory, memory.export_handle(kind) as handle, contextlib.ExitStack() as stack:
        put(memory, b"many")
        before, mapped = len(descriptors()), sum(mappings().values())
        # Each import of an fd needs one of its own, as it consumes it: the number stays below the usual limit of 1024.
        count = 256 if isinstance(handle, extmem.FdHandle) else 4096
        imports = []
        for _ in range(count):
            own = handle.duplicate() if isinstance(handle, extmem.FdHandle) else handle
            imports.append(stack.enter_context(import_any(device, own, kind=kind)))
        assert get(imports[0]) == get(imports[-1]) == b"many"
        one = 1 + (kind == KMT and sys.platform == "win32")  # the number exists as long as its section
        assert len(descriptors()) <= before + (count if isinstance(handle, extmem.FdHandle) else one)
        assert sum(mappings().values()) <= mapped + 3  # the first and the last were mapped
