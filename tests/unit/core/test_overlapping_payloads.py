"""Copies between two memory objects of one payload: source and target overlap, though the objects differ."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import extmem
from extmem import raw, vk
from extmem.api import Device, DeviceMemory
from extmem.testing import fake_vulkan

T = vk.ExternalMemoryHandleTypeFlagBits
SIZE = 8192
ON_FDS = pytest.mark.linux_only("descriptors are Linux's")


@pytest.fixture(params=["host", "scripted"])
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    with contextlib.ExitStack() as stack:
        if request.param == "scripted":
            fake = fake_vulkan.FakeVulkan([fake_vulkan.INTEGRATED])
            stack.callback(lambda: fake.misuses and pytest.fail(str(fake.misuses)))
            stack.enter_context(fake_vulkan.installed(fake))
        yield stack.enter_context(extmem.open_device(kind="host" if request.param == "host" else "vulkan"))


def by_handle(device: Device, source: DeviceMemory) -> DeviceMemory:
    with source.export_handle(T.OPAQUE_WIN32) as handle:
        chain = vk.ImportMemoryWin32HandleInfoKHR(T.OPAQUE_WIN32, handle)
        return device.allocate_memory(vk.MemoryAllocateInfo(SIZE, 0, chain))


def by_number(device: Device, source: DeviceMemory) -> DeviceMemory:
    chain = vk.ImportMemoryWin32HandleInfoKHR(T.OPAQUE_WIN32_KMT, source.export_handle(T.OPAQUE_WIN32_KMT))
    return device.allocate_memory(vk.MemoryAllocateInfo(SIZE, 0, chain))


def by_fd(device: Device, source: DeviceMemory) -> DeviceMemory:
    chain = vk.ImportMemoryFdInfoKHR(T.OPAQUE_FD, source.export_handle(T.OPAQUE_FD))
    return device.allocate_memory(vk.MemoryAllocateInfo(SIZE, 0, chain))


def opened_fd(device: Device, source: DeviceMemory) -> DeviceMemory:
    return device.open(source.export_handle(T.OPAQUE_FD))


def bound(device: Device, memory: DeviceMemory, offset: int = 0) -> extmem.Buffer:
    external = memory.record.export_handle_types or memory.record.import_handle_type
    usage = vk.BufferUsageFlagBits.TRANSFER_SRC | vk.BufferUsageFlagBits.TRANSFER_DST
    info = vk.BufferCreateInfo(size=4096, usage=usage, p_next=vk.ExternalMemoryBufferCreateInfo(external))
    buffer = device.create_buffer(info)
    device.bind_buffer_memory(buffer, memory, offset)
    return buffer


def copied(device: Device, source: extmem.Buffer, target: extmem.Buffer, **places: int) -> None:
    """Copy, with memory that is acquired first where it is imported."""
    with device.commands() as commands:
        taken = [b for b in (source, target) if b.memory is not None and b.memory.record.import_handle_type]
        for buffer in taken:
            commands.acquire(buffer)
        commands.copy_buffer(source, target, **places)
        for buffer in taken:
            commands.release(buffer)


def refused(device: Device, source: extmem.Buffer, target: extmem.Buffer, **places: int) -> None:
    with device.commands() as commands, pytest.raises(extmem.RuleViolation) as error:
        commands.copy_buffer(source, target, **places)
    assert error.value.vuids == ("VUID-vkCmdCopyBuffer-pRegions-00117",)


def copies(device: Device, one: DeviceMemory, other: DeviceMemory, *, overlap: bool) -> None:
    """Copy 1024 bytes between two of them: the same bytes, some of them, and none of them."""
    with bound(device, one) as source, bound(device, other) as target, bound(device, other, 4096) as behind:
        for at in (0, 1020):
            (refused if overlap else copied)(device, source, target, target_offset=at, size=1024)
        copied(device, source, target, target_offset=1024, size=1024)
        copied(device, source, behind, size=1024)


@pytest.mark.parametrize(
    ("types", "again"),
    [
        (T.OPAQUE_WIN32, by_handle),
        (T.OPAQUE_WIN32_KMT, by_number),
        pytest.param(T.OPAQUE_FD, by_fd, marks=ON_FDS),
        pytest.param(T.OPAQUE_FD, opened_fd, marks=ON_FDS),
    ],
)
def test_one_payload_twice(device: Device, types: int, again: Callable[[Device, DeviceMemory], DeviceMemory]) -> None:
    info = vk.MemoryAllocateInfo(SIZE, 0, vk.ExportMemoryAllocateInfo(types))
    with device.allocate_memory(info) as source, device.allocate_memory(info) as another:
        with again(device, source) as first, again(device, source) as second, again(device, another) as third:
            copies(device, source, first, overlap=True)
            copies(device, first, second, overlap=True)
            copies(device, second, third, overlap=False)


def test_host_memory_by_its_address(device: Device) -> None:
    """Two imports of areas that overlap, each with an address of its own."""
    alignment = 4096
    pages = ctypes.create_string_buffer(6 * alignment)
    start = -(-ctypes.addressof(pages) // alignment) * alignment

    def imported(address: int) -> DeviceMemory:
        chain = vk.ImportMemoryHostPointerInfoEXT(T.HOST_ALLOCATION, address)
        bits = device.get_memory_host_pointer_properties(T.HOST_ALLOCATION, address).memory_type_bits
        return device.allocate_memory(vk.MemoryAllocateInfo(SIZE, (bits & -bits).bit_length() - 1, chain))

    with imported(start) as one, imported(start + alignment) as other, imported(start + 3 * alignment) as apart:
        with bound(device, one, 4096) as source, bound(device, other) as target, bound(device, apart) as free:
            refused(device, source, target, size=1024)
            copied(device, source, target, target_offset=1024, size=1024)
            copied(device, source, free, size=1024)


def test_one_memory_that_was_adopted_twice() -> None:
    fake = fake_vulkan.FakeVulkan([fake_vulkan.INTEGRATED])
    with fake_vulkan.installed(fake), extmem.open_device(kind="vulkan") as theirs:
        given = raw.vk_handles(theirs)
        handles: Any = (given.instance, given.physical_device, given.device)
        with raw.adopt_device(*handles, extensions=given.extensions, queue_family_index=0) as device:
            info = vk.MemoryAllocateInfo(SIZE, 0)
            usage = vk.BufferUsageFlagBits.TRANSFER_SRC | vk.BufferUsageFlagBits.TRANSFER_DST
            with theirs.allocate_memory(info) as memory, contextlib.ExitStack() as stack:
                buffers = []
                for offset in (0, 0, 4096):
                    adopted = stack.enter_context(raw.adopt_memory(device, raw.vk_memory(memory), info))
                    buffer = stack.enter_context(device.create_buffer(vk.BufferCreateInfo(size=4096, usage=usage)))
                    device.bind_buffer_memory(buffer, adopted, offset)
                    buffers.append(buffer)
                refused(device, buffers[0], buffers[1])
                copied(device, buffers[0], buffers[2])
    assert not fake.misuses
