"""VkDeviceMemory: its life, its mapping, its fd."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from extmem import vk
from extmem.api import Device
from extmem.devices.vulkan.backend import VulkanBackend
from extmem.errors import DriverError, HandleStateError, UnsupportedError
from extmem.vk.abi import ffi
from tests.unit.devices.importing import import_fd
from tests.unit.devices.vulkan.steps import (
    FD,
    HOST,
    KMT,
    SHARED,
    SIZE,
    W32,
    HandleType,
    allocate,
    buffer_info,
    image_info,
    lowest,
    mappable,
    read,
    still_works,
)


def test_it_is_freed_once_and_refuses_everything_afterwards(backend: VulkanBackend) -> None:
    memory = allocate(backend)
    assert memory.live and memory.size >= SIZE and not memory.closed
    assert memory.fd is not None
    memory.close()
    memory.close()
    assert memory.closed and memory.raw == 0
    for use in (lambda: memory.live, lambda: memory.fd, memory.map, lambda: backend.export_fd(memory)):
        with pytest.raises(HandleStateError, match="is freed"):
            use()
    with pytest.raises(HandleStateError, match="is freed"):
        backend.write(memory, 0, memoryview(b"late"))
    with pytest.raises(HandleStateError, match="is freed"):
        backend.bind(memory, 0, driver_buffer := backend.create_buffer(buffer_info()))
    driver_buffer.destroy()
    assert still_works(backend)


def test_it_is_mapped_once(backend: VulkanBackend) -> None:
    memory = mappable(backend)
    assert not memory.mapped
    first = memory.map()
    assert memory.mapped and memory.map() is first and first.writable
    memory.close()


def test_memory_that_the_host_does_not_see_is_refused_with_what_would_do(
    backend: VulkanBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = mappable(backend)
    monkeypatch.setattr(backend.device, "host_visible", (False,) * len(backend.device.host_visible))
    with pytest.raises(UnsupportedError, match="cannot be seen by the host; use memory.read"):
        memory.map()
    monkeypatch.undo()
    assert memory.map().address
    memory.close()


@pytest.mark.linux_only("Vulkan drivers share by fd on Linux alone")
def test_its_fd_is_borrowed_and_made_when_first_asked_for(backend: VulkanBackend) -> None:
    memory, plain = allocate(backend), allocate(backend, types=0)
    before = len(os.listdir("/proc/self/fd"))
    fd = memory.fd
    assert fd is not None and memory.fd == fd and len(os.listdir("/proc/self/fd")) == before + 1
    assert plain.fd is None, "it was not allocated for export"
    memory.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    plain.close()


@pytest.mark.linux_only("file descriptors carry memory on Linux alone")
def test_exported_fds_are_new_ones_and_close_on_exec(backend: VulkanBackend) -> None:
    memory = allocate(backend)
    fds = [backend.export_fd(memory).take() for _ in range(3)]
    assert len(set(fds)) == 3 and not any(os.get_inheritable(fd) for fd in fds)
    memory.close()
    other = import_fd(backend, fds[0], memory.size, memory.memory_type_index)
    other.close()
    for fd in fds:
        os.close(fd)


@pytest.mark.linux_only("file descriptors carry memory on Linux alone")
@pytest.mark.parametrize("types", [FD, W32, KMT])
def test_every_opaque_type_is_the_drivers_fd_underneath(backend: VulkanBackend, types: HandleType) -> None:
    memory = allocate(backend, types=types)
    assert memory.handle_types == FD and memory.stated_identity and memory.identity is None
    memory.close()


@pytest.mark.linux_only("file descriptors carry memory on Linux alone")
def test_payloads_have_identities_of_their_own(backend: VulkanBackend) -> None:
    memories = [allocate(backend) for _ in range(20)]
    assert len({memory.stated_identity for memory in memories}) == 20
    for memory in memories:
        memory.close()


def test_its_bytes_are_within_it(backend: VulkanBackend) -> None:
    memory = allocate(backend)
    backend.write(memory, memory.size - 4, memoryview(b"last"))
    assert read(backend, memory, memory.size - 4, 4) == b"last"
    for offset in (-1, memory.size - 3, memory.size, 1 << 60):
        with pytest.raises(ValueError, match="reach outside the allocation"):
            backend.write(memory, offset, memoryview(b"lost"))
        with pytest.raises(ValueError, match="reach outside the allocation"):
            read(backend, memory, offset, 4)
    memory.close()


def test_host_memory_comes_in_where_it_is(backend: VulkanBackend) -> None:
    import ctypes
    import mmap

    alignment = backend.min_imported_host_pointer_alignment
    area = mmap.mmap(-1, alignment * 4)
    address = ctypes.addressof(ctypes.c_char.from_buffer(area))
    bits = backend.host_pointer_memory_type_bits(int(HOST), address)
    index = (bits & -bits).bit_length() - 1
    memory = backend.import_host_pointer(address, alignment * 2, index)
    assert memory.map().address == address and memory.fd is None, "the driver reports no file for it"
    backend.write(memory, 8, memoryview(b"in place"))
    assert area[8:16] == b"in place"
    memory.close()
    for wrong in ((address + 1, alignment), (address, alignment + 1), (1 << 46, alignment)):
        with pytest.raises(DriverError, match="must be multiples of") as error:
            backend.import_host_pointer(*wrong, index)
        assert error.value.result == vk.Result.ERROR_INVALID_EXTERNAL_HANDLE
    assert area[8:16] == b"in place", "the pages are the host's"
    area.close()


def test_a_dedicated_allocation_is_bound_to_what_it_is_for(backend: VulkanBackend) -> None:
    buffer = backend.create_buffer(buffer_info(types=SHARED))
    memory = backend.allocate(
        buffer.requirements.size, lowest(buffer.requirements), b"", handle_types=SHARED, dedicated=buffer
    )
    if backend.device.host_visible[memory.memory_type_index]:
        backend.write(memory, 0, memoryview(b"mine"))
        assert not buffer.bound, "the buffer is its owner's, who binds it"
        assert read(backend, memory, 0, 4) == b"mine"
    buffer.private = True
    backend.write(memory, 0, memoryview(b"more"))
    assert buffer.bound, "bytes are moved through the buffer itself"
    backend.bind(memory, 0, buffer)  # what is bound to it already
    assert read(backend, memory, 0, 4) == b"more"
    memory.close()
    buffer.destroy()


def test_bytes_of_memory_for_an_image_are_not_moved_by_buffers(backend: VulkanBackend) -> None:
    image = backend.create_image(image_info(types=SHARED))
    memory = backend.allocate(
        image.requirements.size, lowest(image.requirements), b"", handle_types=SHARED, dedicated=image
    )
    with pytest.raises(UnsupportedError, match=r"dedicated to an image.*Device\.commands"):
        backend.write(memory, 0, memoryview(b"texel"))
    memory.close()
    image.destroy()


def test_a_device_closed_while_memory_is_open_ends_with_it(vulkan_device: Device) -> None:
    """The device refuses; the driver object stays until what is left ends."""
    device = vulkan_device
    memory = device.allocate(100)
    with pytest.raises(HandleStateError, match="1 memory objects of .* are open; close them first"):
        device.close()
    memory.write(b"still here")
    memory.close()
    backend = device.backend
    assert isinstance(backend, VulkanBackend)
    last = mappable(backend)
    backend.write(last, 0, memoryview(b"last"))
    device.close()
    assert backend.device.owner.owes, "something of it lives"
    assert last.map().size == last.size
    with pytest.raises(HandleStateError, match="is closed; open it again"):
        allocate(backend)
    with pytest.raises(HandleStateError, match="is closed; open it again"):
        backend.write(last, 0, memoryview(b"more"))
    last.close()
    assert not backend.device.owner.owes
    device.close()


@pytest.mark.linux_only("loaded libraries are listed in /proc")
def test_the_library_is_not_loaded_by_who_wants_the_host_device() -> None:
    from extmem.testing.children import Peer

    with Peer() as peer:
        peer("device = extmem.open_device(kind='host')\ndevice.allocate(10).close()")
        assert not peer("'libvulkan' in open('/proc/self/maps').read()")
    assert Path("/proc/self/maps").exists()


def test_a_mapping_is_seen_when_the_driver_is_done(backend: VulkanBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver may write the address before it returns, and another thread requests it at that moment."""
    memory = mappable(backend)
    real, found = backend.device.commands.vkMapMemory, []
    other = threading.Thread(target=lambda: found.append(memory.map().address))

    def early(*arguments: Any) -> int:
        arguments[-1][0] = ffi.cast("void *", 0xBAD000)
        other.start()
        other.join(0.2)  # it does not return before this thread does
        return int(real(*arguments))

    monkeypatch.setattr(backend.device, "commands", _Wrapped(backend.device.commands, vkMapMemory=early))
    address = memory.map().address
    other.join()
    assert found == [address] and address != 0xBAD000
    monkeypatch.undo()
    memory.close()


def test_a_mapping_that_failed_is_not_there(backend: VulkanBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = mappable(backend)

    def failing(*arguments: Any) -> int:
        arguments[-1][0] = ffi.cast("void *", 0xBAD000)
        return int(vk.Result.ERROR_MEMORY_MAP_FAILED)

    with monkeypatch.context() as patch, pytest.raises(DriverError, match="MEMORY_MAP_FAILED"):
        patch.setattr(backend.device, "commands", _Wrapped(backend.device.commands, vkMapMemory=failing))
        memory.map()
    assert not memory.mapped and memory.map().address not in (0, 0xBAD000)
    memory.close()


class _Wrapped:
    """A driver's commands, some of them replaced."""

    def __init__(self, commands: Any, **others: Any) -> None:
        self._commands = commands
        vars(self).update(others)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._commands, name)
