"""Imports of fds that this library exported, on a Vulkan device."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from extmem import errors, vk
from extmem.api import Device, DeviceMemory
from extmem.devices.types import ExaminedFd
from extmem.devices.vulkan.fd_check import FdCheck
from extmem.handles import FdHandle

FD = vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_FD
USAGE = vk.BufferUsageFlagBits.TRANSFER_SRC | vk.BufferUsageFlagBits.TRANSFER_DST


def buffer_info(size: int) -> vk.BufferCreateInfo:
    return vk.BufferCreateInfo(size=size, usage=USAGE, p_next=vk.ExternalMemoryBufferCreateInfo(FD))


@pytest.fixture
def exporter(vulkan_device: Device) -> Callable[[int], DeviceMemory]:
    def export(size: int) -> DeviceMemory:
        with vulkan_device.create_buffer(buffer_info(size)) as buffer:
            needs = buffer.requirements
        kind = (needs.memory_type_bits & -needs.memory_type_bits).bit_length() - 1
        return vulkan_device.allocate_memory(vk.MemoryAllocateInfo(needs.size, kind, vk.ExportMemoryAllocateInfo(FD)))

    return export


def fd_of(device: Device, memory: DeviceMemory) -> FdHandle:
    return device.get_memory_fd(vk.MemoryGetFdInfoKHR(memory, FD))


def import_fd(device: Device, memory: DeviceMemory, handle: FdHandle) -> DeviceMemory:
    size, kind = memory.allocation_size, memory.memory_type_index
    return device.allocate_memory(vk.MemoryAllocateInfo(size, kind, vk.ImportMemoryFdInfoKHR(FD, handle)))


@pytest.mark.linux_only("Vulkan drivers share by fd on Linux alone")
def test_a_number_that_is_another_file_by_now_is_refused(
    vulkan_device: Device, exporter: Callable[[int], DeviceMemory]
) -> None:
    reader, writer = os.pipe()
    with exporter(4096) as memory, fd_of(vulkan_device, memory) as handle:
        os.dup2(reader, int(handle), inheritable=False)
        with pytest.raises(errors.RuleViolation, match="handleType-00670"):
            import_fd(vulkan_device, memory, handle)
        assert not handle.closed, "what is refused stays the caller's"
    os.close(reader)
    os.close(writer)


@pytest.mark.linux_only("Vulkan drivers share by fd on Linux alone")
def test_each_import_and_buffer_has_what_was_stated_for_it(
    vulkan_device: Device, exporter: Callable[[int], DeviceMemory]
) -> None:
    """One call leaves nothing to the next."""
    for size in (1 << 20, 4096, 1 << 16):
        with exporter(size) as memory, vulkan_device.create_buffer(buffer_info(size)) as buffer:
            assert buffer.requirements.size == memory.allocation_size
            with import_fd(vulkan_device, memory, fd_of(vulkan_device, memory)) as imported:
                vulkan_device.bind_buffer_memory(buffer, imported)
                assert imported.allocation_size == memory.allocation_size
                memory.write(bytes([size % 251]) * 64)
                assert bytes(imported.read()[:64]) == bytes([size % 251]) * 64
    with vulkan_device.create_buffer(vk.BufferCreateInfo(size=4096, usage=USAGE)) as plain:
        assert plain.requirements.size >= 4096


@pytest.mark.linux_only("Vulkan drivers share by fd on Linux alone")
@pytest.mark.parametrize("check", ["raise", "off"])
def test_an_fd_is_examined_once_for_each_import(
    vulkan_device: Device, exporter: Callable[[int], DeviceMemory], monkeypatch: pytest.MonkeyPatch, check: str
) -> None:
    """By the rules and by the import together; and again at the next import, though it was of the same kind."""
    examined: list[int] = []
    real = FdCheck.examine

    def examine(self: FdCheck, fd: int, handle_type: int, *, trusted: bool = False) -> ExaminedFd:
        examined.append(fd)
        return real(self, fd, handle_type, trusted=trusted)

    vulkan_device.check = check  # type: ignore[assignment]  # one of its values
    with exporter(4096) as memory:
        monkeypatch.setattr(FdCheck, "examine", examine)
        for times in (1, 2, 3):
            handle = fd_of(vulkan_device, memory)
            numbers = [*examined, int(handle)]
            import_fd(vulkan_device, memory, handle).close()
            assert examined == numbers and len(examined) == times
