"""The steps of the tests of numbered behaviours. Peers import this module, too."""

from __future__ import annotations

import random

from extmem import vk
from extmem.api import Device, DeviceMemory
from extmem.handles import FdHandle, KmtHandle, NtHandle
from extmem.objects import Token
from tests.described_manager import DescribedManager

W32 = vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_WIN32
KMT = vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_WIN32_KMT
FD = vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_FD

READ = 0x8000_0000
READ_WRITE = 0x8000_0001
GENERIC_WRITE = 0x4000_0000
GENERIC_ALL = 0x1000_0000
READ_CONTROL = 0x0002_0000
WRITE_BIT = 0x1
SIZE = 4096

COLLISION, NOT_FOUND, NAME_INVALID, PATH_NOT_FOUND = 0xC0000035, 0xC0000034, 0xC0000033, 0xC000003A
TYPE_MISMATCH, INVALID_HANDLE, NOT_CLOSABLE = 0xC0000024, 0xC0000008, 0xC0000235
ACCESS_DENIED, INVALID_PARAMETER = 0xC0000022, 0xC000000D

PEER = "from tests.behaviours.steps import *\ndevice = extmem.open_device()\nNone"
"""What a peer runs first, to import the steps and open a device."""


def export(
    device: Device,
    *,
    name: str | None = None,
    access: int = READ_WRITE,
    security: vk.SecurityAttributes | None = None,
    types: int = W32,
    size: int = SIZE,
) -> DeviceMemory:
    """Call vkAllocateMemory with export info; for OPAQUE_WIN32 with VkExportMemoryWin32HandleInfoKHR too."""
    info = vk.ExportMemoryWin32HandleInfoKHR(security, access, name) if types & W32 else None
    return device.allocate_memory(vk.MemoryAllocateInfo(size, 0, vk.ExportMemoryAllocateInfo(types, info)))


def nt(device: Device, memory: DeviceMemory) -> NtHandle:
    """Call vkGetMemoryWin32HandleKHR for OPAQUE_WIN32."""
    handle = device.get_memory_win32_handle(vk.MemoryGetWin32HandleInfoKHR(memory, W32))
    assert isinstance(handle, NtHandle)
    return handle


def kmt(device: Device, memory: DeviceMemory) -> KmtHandle:
    """Call vkGetMemoryWin32HandleKHR for OPAQUE_WIN32_KMT."""
    handle = device.get_memory_win32_handle(vk.MemoryGetWin32HandleInfoKHR(memory, KMT))
    assert isinstance(handle, KmtHandle)
    return handle


def fd(device: Device, memory: DeviceMemory) -> FdHandle:
    """Call vkGetMemoryFdKHR."""
    return device.get_memory_fd(vk.MemoryGetFdInfoKHR(memory, FD))


def import_win32(
    device: Device, handle: object = None, name: str | None = None, *, kind: int = W32, size: int = SIZE, index: int = 0
) -> DeviceMemory:
    """Call vkAllocateMemory with VkImportMemoryWin32HandleInfoKHR."""
    source = vk.ImportMemoryWin32HandleInfoKHR(kind, handle, name)
    return device.allocate_memory(vk.MemoryAllocateInfo(size, index, source))


def by_name(device: Device, name: str, *, size: int = SIZE) -> DeviceMemory:
    """Import by name."""
    return import_win32(device, None, name, size=size)


def import_fd(device: Device, handle: FdHandle | int, *, size: int = SIZE, index: int = 0) -> DeviceMemory:
    """Call vkAllocateMemory with VkImportMemoryFdInfoKHR."""
    return device.allocate_memory(vk.MemoryAllocateInfo(size, index, vk.ImportMemoryFdInfoKHR(FD, handle)))


def import_any(device: Device, handle: NtHandle | KmtHandle | FdHandle, *, kind: int) -> DeviceMemory:
    """Import from a handle of any type."""
    return import_fd(device, handle) if isinstance(handle, FdHandle) else import_win32(device, handle, kind=kind)


def put(memory: DeviceMemory, data: bytes, at: int = 0) -> None:
    """Write bytes."""
    if not memory.host_visible:
        memory.write(data, offset=at)
        return
    with memory.map() as view:
        view[at : at + len(data)] = data


def get(memory: DeviceMemory, count: int = 4, at: int = 0) -> bytes:
    """Read bytes."""
    if not memory.host_visible:
        return bytes(memory.read_bytes(at, count))
    with memory.map() as view:
        return bytes(view[at : at + count])


def model(**options: object) -> DescribedManager:
    """The model of the object manager alone, for tests of objects of other types or of other users."""
    return DescribedManager(random=random.Random(7).randrange, **options)  # type: ignore[arg-type]  # passed through


ALICE, BOB, CAROL = Token(1000, 1000), Token(1001, 1001), Token(1002, 1002, frozenset({1000}))
