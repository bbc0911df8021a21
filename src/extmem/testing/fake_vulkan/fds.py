"""Sharing on Linux: opaque fds, as VK_KHR_external_memory_fd specifies them."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

if sys.platform != "linux":
    raise ImportError("a driver's fds are Linux's; on Windows the fake driver has NT handles and KMT numbers")

from extmem import vk
from extmem.testing.fake_vulkan.files import dma_buf_size
from extmem.testing.fake_vulkan.import_check import check_match
from extmem.testing.fake_vulkan.machine import Refusal
from extmem.testing.fake_vulkan.objects import Device, Memory, Resource, Source
from extmem.testing.fake_vulkan.payloads import FilePayload, Tag, read_tag

if TYPE_CHECKING:
    from extmem.testing.fake_vulkan.machine import FakeVulkan

__all__ = ["created", "imported"]

Result = vk.Result
HandleType = vk.ExternalMemoryHandleTypeFlagBits
_FD, _DMA_BUF = int(HandleType.OPAQUE_FD), int(HandleType.DMA_BUF)
_NO_MEMORY = int(Result.ERROR_OUT_OF_DEVICE_MEMORY)
_BAD_HANDLE = int(Result.ERROR_INVALID_EXTERNAL_HANDLE)
_TOO_MANY = int(Result.ERROR_TOO_MANY_OBJECTS)


def created(
    fake: FakeVulkan, device: Device, info: vk.MemoryAllocateInfo, size: int, kind: int, dedicated: Resource | None
) -> Source:
    """Make the payload of new memory: always a file, so that any can be exported."""
    return Source(_new(device, size, kind, dedicated), size)


def imported(
    fake: FakeVulkan, device: Device, info: vk.MemoryAllocateInfo, size: int, kind: int, dedicated: Resource | None
) -> Source | None:
    """Return the payload of the fd that is imported, and consume the fd; None where the call imports no fd."""
    fd_info = vk.find(info, vk.ImportMemoryFdInfoKHR)
    if fd_info is None or not fd_info.handle_type:
        return None
    fd = fd_info.fd if isinstance(fd_info.fd, int) else -1
    if fd_info.handle_type == HandleType.DMA_BUF:
        return Source(_from_dma_buf(fake, device, fd, size, kind), size, _DMA_BUF)
    return Source(_from_fd(fake, device, fd, size, kind, dedicated), size, _FD)


def _new(device: Device, size: int, kind: int, dedicated: Resource | None) -> FilePayload:
    alone = type(dedicated).__name__ if dedicated is not None else ""
    try:
        return FilePayload.new(Tag(device.gpu.device_uuid, device.gpu.driver_uuid, size, kind, alone))
    except OSError:
        raise Refusal(_NO_MEMORY) from None


def _from_fd(
    fake: FakeVulkan, device: Device, fd: int, size: int, kind: int, dedicated: Resource | None
) -> FilePayload:
    manners = fake.manners
    if "VK_KHR_external_memory_fd" not in device.extensions:
        fake.misuse("an fd is imported on a device without VK_KHR_external_memory_fd")
    if fd == -1 and manners.takes_minus_one:
        fake.misuse("fd -1 is imported")
        return _new(device, size, kind, dedicated)
    problem = _problem(fd)
    if problem and not (manners.short_files_pass and _is_file(fd)):
        fake.bad_imports.append((device.number, problem))
        if manners.bad_fd_poisons:
            fake.poisoned_by = device.number
            raise Refusal(_NO_MEMORY)
        raise Refusal(_BAD_HANDLE)
    tag = read_tag(fd)
    if tag is not None:
        check_match(fake, device, tag, size, kind, dedicated)
    return FilePayload(fd)


def _from_dma_buf(fake: FakeVulkan, device: Device, fd: int, size: int, kind: int) -> FilePayload:
    """Import a dma-buf of another driver: memory that is visible to the host, of at most the file's size."""
    if "VK_EXT_external_memory_dma_buf" not in device.extensions:
        fake.misuse("a dma-buf is imported on a device without VK_EXT_external_memory_dma_buf")
    whole = dma_buf_size(fd)
    if whole is None:
        fake.bad_imports.append((device.number, f"fd {fd} is not a dma-buf"))
        raise Refusal(_BAD_HANDLE)
    if size > whole:
        raise Refusal(_BAD_HANDLE)
    if not device.gpu.memory_types[kind].flags & vk.MemoryPropertyFlagBits.HOST_VISIBLE:
        fake.misuse(f"a dma-buf is imported to memory type {kind}, which is not one that it supports")
    return FilePayload(fd)


def _problem(fd: int) -> str:
    """Return what is wrong with an fd; empty for a payload."""
    try:
        link = os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return f"fd {fd} is not open"
    return "" if read_tag(fd) is not None else f"fd {fd} is {link}, which is not a payload"


def _is_file(fd: int) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{fd}").startswith("/memfd:")
    except OSError:
        return False


def vkGetMemoryFdKHR(fake: FakeVulkan, handle: Any, info: Any, out: Any) -> int:
    """Export the memory as a new fd, each time."""
    memory = fake.get(info.memory, Memory, fake.get(handle, Device))
    kind = int(info.handleType)
    if not memory.export_types & kind or kind != _FD or not isinstance(memory.payload, FilePayload):
        raise fake.wrong(f"{memory} was not made to be exported as {HandleType(kind)!r}")
    try:
        out[0] = os.dup(memory.payload.fd)
    except OSError:
        raise Refusal(_TOO_MANY) from None
    return 0
