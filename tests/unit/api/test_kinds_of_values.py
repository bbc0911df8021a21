"""A value of a wrong type is refused with the value: no AttributeError, no OverflowError, and never silently.

And the errors name the right cause.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import warnings
from collections.abc import Callable
from typing import Any

import pytest

import extmem
from extmem import raw, vk
from extmem.api import Device
from extmem.core.caller_warning import RuleWarning
from extmem.errors import DescriptorError, DriverError, HandleStateError, RuleViolation, UnsupportedError

T = vk.ExternalMemoryHandleTypeFlagBits
Call = Callable[[Device, Any], object]


class Odd:
    """An object with every attribute, none of which can be read."""

    def __getattr__(self, name: str) -> Any:
        raise LookupError(name)


ODD = [None, -1, 1.5, float("nan"), float("inf"), "x", b"x", [1], {}, (), object(), Odd(), 1 << 64, 1 << 200, vk]


def _import_fd(device: Device, value: Any) -> object:
    return device.allocate_memory(vk.MemoryAllocateInfo(4096, 0, vk.ImportMemoryFdInfoKHR(T.OPAQUE_FD, value)))


def _import_name(device: Device, value: Any) -> object:
    return device.allocate_memory(vk.MemoryAllocateInfo(4096, 0, vk.ImportMemoryWin32HandleInfoKHR(2, None, value)))


def _bind(device: Device, value: Any) -> object:
    with (
        device.create_buffer(vk.BufferCreateInfo(size=64, usage=3)) as buffer,
        device.allocate_memory(vk.MemoryAllocateInfo(4096, 0)) as memory,
    ):
        return device.bind_buffer_memory(buffer, memory, value)


CALLS: dict[str, Call] = {
    "allocate_memory": lambda d, v: d.allocate_memory(v),
    "allocation_size": lambda d, v: d.allocate_memory(vk.MemoryAllocateInfo(v, 0)),
    "p_next": lambda d, v: d.allocate_memory(vk.MemoryAllocateInfo(4096, 0, v if v is not None else 5)),
    "handle_types": lambda d, v: d.allocate_memory(vk.MemoryAllocateInfo(4096, 0, vk.ExportMemoryAllocateInfo(v))),
    "fd": _import_fd,
    "name": _import_name,
    "create_buffer": lambda d, v: d.create_buffer(v),
    "create_buffer, p_next": lambda d, v: d.create_buffer(vk.BufferCreateInfo(size=64, usage=3, p_next=v or 5)),
    "create_image": lambda d, v: d.create_image(v),
    "external buffers": lambda d, v: d.get_physical_device_external_buffer_properties(v),
    "images": lambda d, v: d.get_physical_device_image_format_properties2(v),
    "transfer_capability": lambda d, v: d.transfer_capability(v),
    "bind": _bind,
    "bind2": lambda d, v: d.bind_buffer_memory2([v]),
    "free_memory": lambda d, v: d.free_memory(v),
    "flush": lambda d, v: d.flush_mapped_memory_ranges([v]),
    "get_memory_fd": lambda d, v: d.get_memory_fd(v),
    "get_memory_win32_handle": lambda d, v: d.get_memory_win32_handle(v),
    "fd properties, type": lambda d, v: d.get_memory_fd_properties(v, 0),
    "fd properties, fd": lambda d, v: d.get_memory_fd_properties(T.DMA_BUF, v),
    "handle properties": lambda d, v: d.get_memory_win32_handle_properties(v, 4),
    "host pointer, type": lambda d, v: d.get_memory_host_pointer_properties(v, 4096),
    "host pointer": lambda d, v: d.get_memory_host_pointer_properties(T.HOST_ALLOCATION, v),
    "open_device, kind": lambda d, v: extmem.open_device(kind=v if v is not None else 5),
    "open_device, uuid": lambda d, v: extmem.open_device(uuid=v if v is not None else 5),
    "open_device, name": lambda d, v: extmem.open_device(kind="host", name=5 if v is None or isinstance(v, str) else v),
    "open, device": lambda d, v: extmem.open("x", device=v if v is not None else 5),
    "security": lambda d, v: d.allocate(4, security=v if v is not None else 0),
    "fd_choices": lambda d, v: raw.fd_choices(d, 0, handle_type=v if isinstance(v, int) else T.OPAQUE_WIN32),
}


@pytest.mark.linux_only("file descriptors")
@pytest.mark.parametrize("call", CALLS)
def test_values_of_wrong_types_are_refused(device: Device, call: str) -> None:
    for value in ODD:
        with pytest.raises((TypeError, ValueError, extmem.ExtmemError)) as refused:
            CALLS[call](device, value)
        assert not isinstance(refused.value, (UnicodeError,)), (call, value)


@pytest.mark.parametrize("mode", ["warn", "off"])
def test_unchecked_values_are_refused_where_they_cannot_be_used(mode: Any, device: Device) -> None:
    with extmem.open_device(kind="host", check=mode) as lax, warnings.catch_warnings():
        warnings.simplefilter("ignore", RuleWarning)
        for call in ("allocate_memory", "p_next", "name", "bind", "flush", "free_memory"):
            with pytest.raises((TypeError, ValueError, extmem.ExtmemError)):
                CALLS[call](lax, b"x")
        with pytest.raises(TypeError, match="the bytes b'x'"):
            CALLS["name"](lax, b"x")
        with lax.allocate_memory(vk.MemoryAllocateInfo(4096, 0)) as memory:  # the twin
            assert memory.allocation_size == 4096


def test_a_flush_takes_whole_numbers_alone(device: Device) -> None:
    with device.allocate(64) as memory:
        memory.map()
        for offset in ("1", 1.7, None, float("nan")):
            with pytest.raises(TypeError, match="range 0: offset is"):
                device.flush_mapped_memory_ranges([vk.MappedMemoryRange(memory, offset, 4)])  # type: ignore[arg-type]
        device.flush_mapped_memory_ranges([vk.MappedMemoryRange(memory, 0, 4)])


def test_a_buffer_has_no_layout(device: Device) -> None:
    with device.create_buffer(vk.BufferCreateInfo(size=64, usage=3)) as buffer, device.commands() as commands:
        with pytest.raises(TypeError, match="is not an Image"):
            commands.change_layout(buffer, vk.ImageLayout.UNDEFINED, vk.ImageLayout.GENERAL)  # type: ignore[arg-type]


@pytest.mark.linux_only("file descriptors")
def test_memory_of_one_device_is_exported_by_that(device: Device) -> None:
    with extmem.open_device(kind="host") as other, device.allocate(64) as memory:
        for asked in (vk.MemoryGetFdInfoKHR(memory, T.OPAQUE_FD),):
            with pytest.raises(HandleStateError, match="opened separately from this one"):
                other.get_memory_fd(asked)
            device.get_memory_fd(asked).close()


# Chains of any length and shape, as text and compared.


def _chain(length: int) -> Any:
    made = None
    for _ in range(length):
        made = vk.ExportMemoryAllocateInfo(1, made)
    return made


def test_long_chains_are_compared_and_written_out() -> None:
    assert _chain(20_000) == _chain(20_000) != _chain(19_999)
    assert repr(_chain(20_000)).endswith("p_next=..." + ")" * 64)
    assert repr(_chain(2)) == (
        "ExportMemoryAllocateInfo(handle_types=1, p_next=ExportMemoryAllocateInfo(handle_types=1, p_next=None))"
    )


def test_chains_that_end_in_themselves_are_compared_and_written_out() -> None:
    one, other = _chain(1), _chain(1)
    one.p_next, other.p_next = one, other
    assert one == other and repr(one) == "ExportMemoryAllocateInfo(handle_types=1, p_next=...)"
    extent = vk.Extent3D(1, 1, 1)
    extent.width = extent  # type: ignore[assignment]
    assert "..." in repr(extent) and extent == extent
    assert repr(vk.MemoryAllocateInfo(1, 2, 5)) == (  # type: ignore[arg-type]
        "MemoryAllocateInfo(allocation_size=1, memory_type_index=2, p_next=5)"
    )


# The right cause.


@pytest.mark.linux_only("file descriptors")
def test_a_device_without_dma_bufs_refuses_them(device: Device) -> None:
    with pytest.raises(UnsupportedError, match="DMA_BUF"):
        device.get_memory_fd_properties(T.DMA_BUF, 0)
    with pytest.raises(RuleViolation, match="closed"):
        device.get_memory_fd_properties(T.DMA_BUF, 1 << 20)


def test_closing_a_device_names_what_keeps_it(device: Device) -> None:
    other = extmem.open_device(kind="host")
    memory = other.allocate(64)
    with pytest.raises(HandleStateError, match="1 memory objects of .* are open"):
        other.close()
    with other.commands() as commands:
        commands.fill_buffer(memory.buffer(), 1)
        memory.close()
        with pytest.raises(HandleStateError, match="are closed, and still in use; end the block of commands"):
            other.close()
    other.close()


@pytest.mark.linux_only("file descriptors")
def test_an_import_gets_another_remedy_than_an_allocation(device: Device) -> None:
    with device.allocate(64) as memory, device.open(memory.export_handle(T.OPAQUE_FD)) as again:
        with pytest.raises(RuleViolation, match="Pass on the handle or name"):
            again.export_handle(T.OPAQUE_FD)
    with device.allocate_memory(vk.MemoryAllocateInfo(4096, 0)) as plain:
        with pytest.raises(RuleViolation, match="Chain ExportMemoryAllocateInfo"):
            plain.export_handle(T.OPAQUE_FD)


def test_a_stated_description_without_a_device_states_none(device: Device) -> None:
    with device.allocate(64) as memory, memory.export_handle(T.OPAQUE_WIN32) as handle:
        actual = memory.descriptor
        stated = extmem.Descriptor(
            handle_types=actual.handle_types,
            allocation_size=actual.allocation_size,
            memory_type_index=actual.memory_type_index,
        )
        with pytest.raises(DescriptorError, match="has device none, and the payload's own has device [0-9a-f]{32}"):
            raw.import_payload(device, handle, stated)


@pytest.mark.linux_only("handles of another binding")
@pytest.mark.parametrize("which", range(3))
def test_a_handle_of_another_binding_is_a_number(which: int, vulkan_device: Device) -> None:
    handles: list[Any] = list(raw.vk_handles(vulkan_device)[:3])
    handles[which] = "x"
    with pytest.raises(TypeError, match="is 'x', a str; pass its address as an int"):
        raw.adopt_device(*handles, extensions=(), queue_family_index=0)


def test_an_import_of_zero_bytes_reports_the_size_and_not_the_pointer(device: Device) -> None:
    with mmap.mmap(-1, mmap.PAGESIZE) as pages:
        begin = ctypes.c_char.from_buffer(pages)
        address = ctypes.addressof(begin)
        chain = vk.ImportMemoryHostPointerInfoEXT(T.HOST_ALLOCATION, address)
        with pytest.raises(RuleViolation) as refused:
            device.allocate_memory(vk.MemoryAllocateInfo(0, 0, chain))
        assert "host_pointer: " not in str(refused.value) and "allocation_size: it is 0" in str(refused.value)
        device.allocate_memory(vk.MemoryAllocateInfo(mmap.PAGESIZE, 0, chain)).close()
        del begin


# Images that are too large, and resources that cannot be bound.


def test_an_image_is_at_most_as_large_as_the_limit_of_the_device(device: Device) -> None:
    def made(layers: int, **fields: Any) -> Any:
        info = vk.ImageCreateInfo(
            image_type=1, format=37, extent=vk.Extent3D(16384, 16384, 1), array_layers=layers, usage=3, **fields
        )
        return device.create_image(info)

    asked = vk.PhysicalDeviceImageFormatInfo2(vk.Format.R8G8B8A8_UNORM, vk.ImageType.TYPE_2D, usage=3)
    most = device.get_physical_device_image_format_properties2(asked).image_format_properties.max_resource_size
    most_layers = int(most) >> 30
    with pytest.raises(UnsupportedError, match="maxResourceSize"):
        made(most_layers + 1)
    with pytest.raises(UnsupportedError, match="maxResourceSize"):
        made(most_layers, mip_levels=2)
    made(1).close()


@pytest.mark.linux_only("the memory is exported as an fd")
def test_copies_do_not_bind_what_the_caller_may_not_bind(vulkan_device: Device) -> None:
    size = 65536
    with vulkan_device.allocate_memory(vk.MemoryAllocateInfo(size, 0, vk.ExportMemoryAllocateInfo(1))) as memory:
        for chain in (None, vk.ExternalMemoryBufferCreateInfo(1)):
            handle = vulkan_device.get_memory_fd(vk.MemoryGetFdInfoKHR(memory, T.OPAQUE_FD))
            stated = extmem.Descriptor(
                handle_types=1,
                allocation_size=size,
                device_uuid=vulkan_device.uuid,
                driver_uuid=vulkan_device.identity.driver_uuid,
                dedicated=vk.BufferCreateInfo(size=size, usage=3, p_next=chain),
            )
            with handle as held:
                fd = os.dup(int(held))
            try:
                again = raw.import_payload(vulkan_device, fd, stated)
            except (DescriptorError, DriverError):
                os.close(fd)
                raise
            with again:
                assert again.read_bytes(0, 4) == bytes(4)
                assert again.resource is not None and again.resource.native.private == (chain is not None)
                if chain is None:
                    with pytest.raises(RuleViolation, match="memory-02985"):
                        vulkan_device.bind_buffer_memory(again.resource, again)  # type: ignore[arg-type]
