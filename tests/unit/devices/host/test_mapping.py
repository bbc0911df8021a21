"""Which addresses of this process may be imported: mapped, readable, writable, and within the file if it is one."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import mmap
import os
import resource
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import extmem
from extmem import vk
from extmem.api import Device
from extmem.devices import host
from extmem.devices.host.mapping import range_is_mapped
from extmem.errors import OutOfMemoryError, RuleViolation

PAGE = mmap.PAGESIZE
HOST = vk.ExternalMemoryHandleTypeFlagBits.HOST_ALLOCATION


@contextlib.contextmanager
def file_of(where: str, pages: int) -> Iterator[int]:
    """Return the fd of a new file of so many pages."""
    if where == "memory file":
        fd = os.memfd_create("ranges")
    else:
        fd, path = tempfile.mkstemp(dir=where)
        os.unlink(path)
    try:
        os.ftruncate(fd, pages * PAGE)
        yield fd
    finally:
        os.close(fd)


@pytest.fixture(params=["host", "vulkan"])
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    if request.param == "vulkan":
        yield request.getfixturevalue("vulkan_device")
        return
    with extmem.open_device(kind="host") as host:
        yield host


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    """Within the block no fd can be opened: the limit is 64, and 64 are open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                held.append(os.dup(0))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in held:
            os.close(fd)


@contextlib.contextmanager
def mapped(fd: int, pages: int) -> Iterator[int]:
    """Return the address of a mapping that may reach past its file's end, which Python's own class refuses to make."""
    before = os.fstat(fd).st_size
    os.ftruncate(fd, pages * PAGE)
    with mmap.mmap(fd, pages * PAGE) as area:
        os.ftruncate(fd, before)
        held = ctypes.c_char.from_buffer(area)
        try:
            yield ctypes.addressof(held)
        finally:
            del held


@pytest.mark.parametrize("where", ["memory file", "/dev/shm", "/tmp"])
@pytest.mark.parametrize(("length", "first", "count", "there"), [
    (0, 0, 1, False),
    (1, 0, 1, True),
    (1, 0, 2, False),
    (1, 1, 1, False),
    (3, 1, 2, True),
    (3, 2, 2, False),
    (4, 0, 4, True),
])  # fmt: skip
def test_a_mapping_past_the_end_of_its_file_is_not_there(
    where: str, length: int, first: int, count: int, there: bool
) -> None:
    with file_of(where, length) as fd, mapped(fd, 4) as address:
        assert range_is_mapped(address + first * PAGE, count * PAGE) is there
        os.ftruncate(fd, 4 * PAGE)
        assert range_is_mapped(address + first * PAGE, count * PAGE), "the file has grown"


def test_a_file_that_ends_within_a_page_has_the_whole_page() -> None:
    with file_of("memory file", 1) as fd, mapped(fd, 2) as address:
        os.ftruncate(fd, PAGE + 1)
        assert range_is_mapped(address, 2 * PAGE)


def test_memory_without_a_file_and_mappings_of_devices_are_there() -> None:
    with mmap.mmap(-1, 4 * PAGE) as area:
        address = ctypes.addressof(held := ctypes.c_char.from_buffer(area))
        assert range_is_mapped(address, 4 * PAGE) and range_is_mapped(address + PAGE, 1)
        del held
    zero = os.open("/dev/zero", os.O_RDWR)
    with mmap.mmap(zero, PAGE) as area:
        address = ctypes.addressof(held := ctypes.c_char.from_buffer(area))
        assert range_is_mapped(address, PAGE)
        del held
    os.close(zero)
    private = bytearray(PAGE)
    assert range_is_mapped(ctypes.addressof(ctypes.c_char.from_buffer(private)), PAGE)
    assert not range_is_mapped(0, PAGE) and not range_is_mapped(PAGE, 0) and not range_is_mapped(1 << 62, PAGE)


def test_import_past_the_end_of_a_file_is_refused_and_within_it_is_not(device: Device) -> None:
    with file_of("memory file", 1) as fd, mapped(fd, 2) as address:
        index = device.get_memory_host_pointer_properties(HOST, address).memory_type_bits
        info = vk.ImportMemoryHostPointerInfoEXT(HOST, address)
        kind = (index & -index).bit_length() - 1
        with pytest.raises(RuleViolation) as error:
            device.allocate_memory(vk.MemoryAllocateInfo(2 * PAGE, kind, info))
        assert "VUID-VkImportMemoryHostPointerInfoEXT-handleType-01750" in error.value.vuids
        assert "past the end of its file" in str(error.value)
        os.ftruncate(fd, 2 * PAGE)
        device.allocate_memory(vk.MemoryAllocateInfo(2 * PAGE, kind, info)).close()


def test_without_a_descriptor_the_lack_is_named(device: Device) -> None:
    with mmap.mmap(-1, PAGE) as area:
        held = ctypes.c_char.from_buffer(area)
        address = ctypes.addressof(held)
        bits = device.get_memory_host_pointer_properties(HOST, address).memory_type_bits
        kind = (bits & -bits).bit_length() - 1
        info = vk.MemoryAllocateInfo(PAGE, kind, vk.ImportMemoryHostPointerInfoEXT(HOST, address))
        device.allocate_memory(info).close()
        asked = [lambda: device.allocate_memory(info)]
        if device.kind == "host":  # which checks for itself
            asked.append(lambda: device.get_memory_host_pointer_properties(HOST, address))  # type: ignore[arg-type,return-value]
        with no_descriptors():
            for ask in asked:
                with pytest.raises(OutOfMemoryError, match=r"no file descriptor is left.*ulimit -n") as error:
                    ask()
                assert error.value.result == vk.Result.ERROR_TOO_MANY_OBJECTS
        device.allocate_memory(info).close()
        del held


def test_without_a_descriptor_to_load_the_code_with_the_lack_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check is loaded at its first use."""
    with mmap.mmap(-1, PAGE) as area:
        held = ctypes.c_char.from_buffer(area)
        address = ctypes.addressof(held)
        assert host.range_is_mapped(address, PAGE)
        monkeypatch.delattr(host, "system")
        monkeypatch.delitem(sys.modules, "extmem.devices.host.system")
        importlib.invalidate_caches()
        with no_descriptors(), pytest.raises(OutOfMemoryError, match=r"no file descriptor is left.*ulimit -n"):
            host.range_is_mapped(address, PAGE)
        assert host.range_is_mapped(address, PAGE)
        del held


def test_where_the_kernel_shows_no_memory_the_mapping_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = os.open

    def hidden(path: str, *arguments: int, **more: int) -> int:
        if Path(path).name == "mem":
            raise PermissionError
        return opened(path, *arguments, **more)

    with file_of("memory file", 1) as fd, mapped(fd, 2) as address:
        assert not range_is_mapped(address, 2 * PAGE)
        monkeypatch.setattr(os, "open", hidden)
        assert range_is_mapped(address, 2 * PAGE)
